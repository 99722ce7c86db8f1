"""What the plugin for Litestar can be told, in one process and without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar, MediaType, Request, Response, get, patch, post, route
from litestar.connection import ASGIConnection
from litestar.exceptions import (
    InternalServerException,
    PermissionDeniedException,
    ServiceUnavailableException,
)
from litestar.params import FromPath
from sqlalchemy.orm import DeclarativeBase

from diptych.app import Diptych
from diptych.config.service import ConfigService
from diptych.errors import InvalidMessage, NotStartedError, WiringError
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


@get("/bad", status_code=400)
async def bad() -> str:
    return "my own"


@get("/shared/{title:str}")
async def read_shared(title: FromPath[str]) -> str:
    return title


@patch("/shared/{title:str}")
async def change_shared(title: FromPath[str]) -> str:
    return title


@post("/shared/{name:str}")
async def post_shared(name: FromPath[str]) -> str:
    return name


@route("/own", http_method=["OPTIONS"], status_code=200)
async def own_options() -> Response[str]:
    return Response("mine", headers={"Allow": "FANCY"})


def nobody(_: ASGIConnection[Any, Any, Any, Any], __: object) -> None:
    raise PermissionDeniedException("not for you")


async def test_options_names_every_method_of_the_path(diptych: Diptych) -> None:
    site = Litestar([read_shared, change_shared, post_shared, hook], plugins=[DiptychPlugin(diptych)])
    async with client_of(site) as client:
        for path, allow in (("/shared/x%2Fy", "GET, HEAD, OPTIONS, PATCH, POST"), ("/hook", "OPTIONS, POST")):
            answer = await client.options(path)
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers.get_list("allow") == [allow]
            assert (await client.put(path)).headers["allow"] == allow
        assert (await client.options("/nothing")).status_code == 404


async def test_options_of_the_applications_own_stay_and_guards_stand_before_them(diptych: Diptych) -> None:
    async with client_of(Litestar([own_options], plugins=[DiptychPlugin(diptych)])) as client:
        answer = await client.options("/own")
        assert (answer.status_code, answer.text, answer.headers["allow"]) == (200, "mine", "FANCY")
    async with client_of(Litestar([hook], plugins=[DiptychPlugin(diptych)], guards=[nobody])) as client:
        assert (await client.options("/hook")).status_code == 403


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


@pytest.mark.parametrize("layer", ["application", "handler"])
async def test_a_handler_of_unforeseen_errors_comes_first_too(layer: str, diptych: Diptych) -> None:
    def mine(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
        return Response("mine", status_code=500)

    own: Any = {"exception_handlers": {500: mine}}

    @get("/unforeseen", **(own if layer == "handler" else {}))
    async def unforeseen() -> None:
        raise RuntimeError("hunter2")

    @get("/invalid", **(own if layer == "handler" else {}))
    async def invalid() -> None:
        raise InvalidMessage("", [])

    routes = [unforeseen, invalid]
    site = Litestar(routes, plugins=[DiptychPlugin(diptych)], **(own if layer == "application" else {}))
    async with client_of(site) as client:
        assert (await client.get("/unforeseen")).text == "mine"
        assert (await client.get("/invalid")).status_code == 422


def test_an_application_has_one_plugin(diptych: Diptych) -> None:
    other = Diptych(models=Base, handlers=[])
    with pytest.raises(WiringError, match="this application has a Diptych already"):
        Litestar([hook], plugins=[DiptychPlugin(diptych), DiptychPlugin(other)])


async def test_requests_of_other_sites_can_be_let_in(diptych: Diptych) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site"}
    for same_site, status in ((True, 403), (False, 201)):
        site = Litestar([hook], plugins=[DiptychPlugin(diptych, same_site=same_site)])
        async with client_of(site) as client:
            assert (await client.post("/hook", headers=foreign)).status_code == status


async def test_an_unknown_host_is_a_problem_and_no_message_of_litestars(diptych: Diptych) -> None:
    plugin = DiptychPlugin(diptych, render_problem=lambda problem, request: f"<h1>{problem.title}</h1>")
    site = Litestar([hook, bad], plugins=[plugin], allowed_hosts=["www.books.example"])
    async with client_of(site) as client:
        refused = await client.post("/hook", headers={"Host": "evil.example"})
        assert (refused.status_code, refused.headers["content-type"]) == (400, "application/problem+json")
        assert refused.json()["detail"] == "this server does not answer under this name"
        page = await client.post("/hook", headers={"Host": "evil.example", "Accept": "text/html"})
        assert (page.status_code, page.text) == (400, "<h1>Bad Request</h1>")
        assert (await client.post("/hook")).headers["location"].startswith("http://www.books.example")
        assert (await client.post("/hook", headers={"Host": "www.books.example"})).text == "heard"
        own = await client.get("/bad", headers={"Host": "www.books.example"})
        assert (own.status_code, own.text) == (400, "my own")


async def test_security_headers_can_be_changed(diptych: Diptych) -> None:
    site = Litestar([hook], plugins=[DiptychPlugin(diptych)])
    changes = {"Cross-Origin-Resource-Policy": None, "X-Frame-Options": "SAMEORIGIN"}
    async with client_of(site, security_headers=changes) as client:
        headers = (await client.post("/hook")).headers
        assert "cross-origin-resource-policy" not in headers
        assert headers["x-frame-options"] == "SAMEORIGIN"


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
