"""What guards, hooks, middleware and routers of Litestar do around endpoints and handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from litestar import Litestar, Request, Router, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.params import FromPath, JSONBody

from diptych import ConfigService, Diptych
from diptych.ext.litestar import DiptychPlugin, asgi_app, routes
from diptych.http import read_fields
from tests.integration.http_suite.applications import running
from tests.integration.http_suite.site import (
    ENDPOINTS,
    AddBook,
    Base,
    BookCommands,
    BookQueries,
    Books,
    shelf,
)

Shelf = NamedDependency[Diptych]
BOOK = {"title": "Emma", "pages": 7}


@pytest.fixture
def diptych(tmp_path: Path) -> Diptych:
    return shelf(f"sqlite:///{tmp_path / 'books.db'}")


@asynccontextmanager
async def served(diptych: Diptych, *handlers: Any, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    site = Litestar(handlers, plugins=[DiptychPlugin(diptych)], **options)
    async with running(asgi_app(site)) as client:
        yield client


async def by_own_request(connection: ASGIConnection[Any, Any, Any, Any], _: object) -> None:
    await Request(connection.scope, connection.receive).body()


async def before(request: Request[Any, Any, Any]) -> None:
    await request.json()


async def by_stream(request: Request[Any, Any, Any]) -> None:
    async for _ in request.stream():
        pass


@pytest.mark.parametrize("option", [{"guards": [by_own_request]}, {"before_request": before}])
async def test_a_guard_or_a_hook_may_read_the_body_of_an_endpoint(diptych: Diptych, option: dict[str, Any]):
    async with asyncio.timeout(20), served(diptych, *routes(ENDPOINTS), **option) as client:
        assert (await client.post("/books", json=BOOK)).status_code == 201
        assert (await client.get("/books/Emma")).json()["pages"] == 7
        limit = diptych.config.get("MAX_BODY_BYTES")
        answer = await client.post("/books", json={"title": "x" * limit})
        assert answer.status_code == 413


@post("/fields")
async def fields(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return (await read_fields(request.scope, request.receive, 100)).values


def reading(way: str) -> Any:
    """Middleware that reads the body this way, by a request of its own."""

    def middleware(app: Any) -> Any:
        async def read(scope: Any, receive: Any, send: Any) -> None:
            request = Request[Any, Any, Any](scope, receive, send)
            await (by_stream(request) if way == "stream" else getattr(request, way)())

            async def own() -> Any:
                return await receive()

            await app(scope, receive if way == "stream" else own, send)

        return read

    return middleware


@pytest.mark.parametrize(
    "option",
    [{"guards": [by_own_request]}, {"before_request": before}]
    + [{"middleware": [reading(way)]} for way in ("body", "json")],
)
async def test_fields_are_read_of_the_body_that_was_read_before(diptych: Diptych, option: dict[str, Any]):
    async with asyncio.timeout(20), served(diptych, fields, **option) as client:
        assert (await client.post("/fields", json=BOOK)).json() == BOOK
        assert (await client.post("/fields", json={"title": "x" * 100})).status_code == 413


@pytest.mark.parametrize("option", [{"before_request": by_stream}, {"middleware": [reading("stream")]}])
@pytest.mark.parametrize("path", ["/books", "/fields"])
async def test_a_body_that_was_streamed_away_is_an_error_and_no_hanging_request(
    diptych: Diptych, path: str, option: dict[str, Any]
):
    async with asyncio.timeout(20), served(diptych, *routes(ENDPOINTS), fields, **option) as client:
        assert (await client.post(path, json=BOOK)).status_code == 500
        assert (await client.get("/books")).status_code == 200


def nobody(_: ASGIConnection[Any, Any, Any, Any], __: object) -> None:
    raise HTTPException("not for you", status_code=403)


async def test_endpoints_stand_below_a_prefix_and_behind_guards_of_a_router(diptych: Diptych):
    api = Router("/api", route_handlers=routes(ENDPOINTS))
    closed = Router("/closed", route_handlers=routes(ENDPOINTS), guards=[nobody])
    async with served(diptych, api, closed) as client:
        assert (await client.post("/api/books", json=BOOK)).status_code == 201
        assert (await client.get("/api/books/Emma")).json()["pages"] == 7
        assert (await client.get("/closed/books/Emma")).status_code == 403
        document = (await client.get("/schema/openapi.json")).json()
        sent = document["paths"]["/api/books"]["post"]["requestBody"]["content"]["application/json"]
        assert sent["schema"]["properties"]["title"]["maxLength"] == 100


class Ann(AbstractAuthenticationMiddleware):
    """Everybody is Ann."""

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        return AuthenticationResult(user="ann", auth=None)


@post("/own/books")
async def add(request: Request[Any, Any, Any], data: JSONBody[AddBook], diptych: Shelf) -> None:
    request.state.desk = "desk 4"
    await diptych.execute(data)


async def test_the_actor_is_told_what_middleware_and_handlers_know_of_the_request(tmp_path: Path):
    def actor(scope: Any) -> str:
        return f"{scope.get('user')} at {scope['state'].get('desk')}"

    config = ConfigService(environ={}, database_url=f"sqlite:///{tmp_path / 'books.db'}")
    diptych = Diptych(
        config, models=Base, handlers=[BookCommands, BookQueries], read_models=[Books], actor=actor
    )
    async with served(diptych, *routes(ENDPOINTS), add, middleware=[Ann]) as client:
        assert (await client.post("/own/books", json=BOOK)).status_code == 201
        assert (await client.post("/books", json={"title": "Dune"})).status_code == 201
        async with diptych.orm.session() as session:
            log = sa.text("SELECT actor FROM diptych_log WHERE actor IS NOT NULL")
            assert set(await session.scalars(log)) == {"ann at desk 4", "ann at None"}


@get("/statuses/{status:int}")
async def ends_with(status: FromPath[int]) -> None:
    raise HTTPException("of no use here", status_code=status, headers={"X-Why": "asked"})


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
async def test_an_exception_with_a_status_without_a_body_is_answered_without(
    diptych: Diptych, status: int, accept: str
):
    plugin = DiptychPlugin(diptych, render_problem=lambda problem, request: "page")
    async with running(asgi_app(Litestar([ends_with], plugins=[plugin]))) as client:
        answer = await client.get(f"/statuses/{status}", headers={"Accept": accept})
        assert (answer.status_code, answer.content, answer.headers["x-why"]) == (status, b"", "asked")
        assert "content-type" not in answer.headers
