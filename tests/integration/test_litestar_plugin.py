"""What the plugin for Litestar can be told, in one process and without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.exceptions import (
    InternalServerException,
    PermissionDeniedException,
    ServiceUnavailableException,
)
from litestar.params import FromPath
from sqlalchemy.orm import DeclarativeBase

from diptych.app import Diptych
from diptych.config import ConfigService
from diptych.errors import NotStartedError
from diptych.ext.litestar import DiptychPlugin, asgi_app


class Base(DeclarativeBase):
    pass


@pytest.fixture
def diptych(tmp_path: Path) -> Diptych:
    return Diptych(ConfigService(database_url=f"sqlite:///{tmp_path / 'test.db'}"), models=Base, handlers=[])


def client_of(site: Litestar, **options: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=asgi_app(site, **options))
    return httpx.AsyncClient(transport=transport, base_url="http://books.example")


@get("/{rest:path}")
async def anything(rest: FromPath[str]) -> str:
    return rest


@get("/denied")
async def denied() -> None:
    raise PermissionDeniedException("not for you")


@get("/failed")
async def failed() -> None:
    raise InternalServerException("hunter2")


@get("/closed")
async def closed() -> None:
    raise ServiceUnavailableException("hunter2", headers={"Retry-After": "60"})


@post("/hook", media_type=MediaType.TEXT)
async def hook() -> str:
    return "heard"


async def test_a_route_for_any_path_takes_none_that_is_refused(diptych: Diptych) -> None:
    async with client_of(Litestar([anything], plugins=[DiptychPlugin(diptych)])) as client:
        assert (await client.get("/a%20b/c")).text == "/a b/c"
        assert (await client.get("/a/../b")).text == "/b"  # the client has resolved it
        assert (await client.get("/a//b")).status_code == 404
        assert (await client.get("/a/%2E%2E%2Fb")).status_code == 404
        assert (await client.get("/a/%FF")).status_code == 400


async def test_litestars_own_errors_keep_status_and_headers_but_no_internals(diptych: Diptych) -> None:
    async with client_of(Litestar([denied, failed, closed], plugins=[DiptychPlugin(diptych)])) as client:
        refused = await client.get("/denied")
        assert (refused.status_code, refused.json()["detail"]) == (403, "not for you")
        for path, status in (("/failed", 500), ("/closed", 503)):
            answer = await client.get(path)
            assert answer.status_code == status
            assert "hunter2" not in answer.text
        assert answer.headers["retry-after"] == "60"


async def test_debug_shows_no_internals_either(diptych: Diptych) -> None:
    async with client_of(Litestar([failed], plugins=[DiptychPlugin(diptych)], debug=True)) as client:
        answer = await client.get("/failed", headers={"Accept": "text/html"})
        assert answer.headers["content-type"] == "application/problem+json"
        assert "hunter2" not in answer.text


async def test_the_applications_own_exception_handlers_come_first(diptych: Diptych) -> None:
    def mine(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
        return Response("mine", status_code=404)

    site = Litestar([hook], plugins=[DiptychPlugin(diptych)], exception_handlers={404: mine})
    async with client_of(site) as client:
        assert (await client.get("/nothing")).text == "mine"


async def test_requests_of_other_sites_can_be_let_in(diptych: Diptych) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site"}
    for same_site, status in ((True, 403), (False, 201)):
        site = Litestar([hook], plugins=[DiptychPlugin(diptych, same_site=same_site)])
        async with client_of(site) as client:
            assert (await client.post("/hook", headers=foreign)).status_code == status


async def test_security_headers_can_be_changed(diptych: Diptych) -> None:
    site = Litestar([hook], plugins=[DiptychPlugin(diptych)])
    async with client_of(site, security_headers={"Referrer-Policy": None}) as client:
        headers = (await client.post("/hook")).headers
        assert "referrer-policy" not in headers
        assert headers["x-frame-options"] == "DENY"


async def test_the_applications_lifespan_finds_the_diptych_running(diptych: Diptych) -> None:
    seen = []

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        seen.append((await diptych.health()).status)
        yield
        seen.append((await diptych.health()).status)

    async with Litestar([hook], plugins=[DiptychPlugin(diptych)], lifespan=[lifespan]).lifespan():
        pass
    assert seen == ["ok", "ok"]
    with pytest.raises(NotStartedError):
        await diptych.health()
