"""Hot queries beside routes that stand in front of theirs: none passes by what would have refused the request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Host, Mount, Route, WebSocketRoute

from diptych import Diptych, WiringError
from diptych.ext.fastapi import install
from diptych.ext.starlette import install as install_into_starlette
from diptych.ext.starlette import routes
from diptych.http import hot_routes
from tests.integration.http_suite.applications import running
from tests.integration.http_suite.site import ENDPOINTS, shelf

HOT = hot_routes(ENDPOINTS)


@pytest.fixture
def diptych(tmp_path: Path) -> Diptych:
    return shelf(f"sqlite:///{tmp_path / 'books.db'}")


def guarded() -> FastAPI:
    app = FastAPI()

    @app.get("/{rest:path}")
    async def refuse(rest: str) -> None:
        raise HTTPException(401)

    return app


async def refuse(request: Any) -> Any:
    raise HTTPException(401)


def add_mount(app: FastAPI) -> None:
    app.mount("/books", guarded())


def add_root_mount(app: FastAPI) -> None:
    app.mount("", guarded())


def add_mount_with_parameter(app: FastAPI) -> None:
    app.mount("/{kind}", guarded())


def add_host(app: FastAPI) -> None:
    app.host("admin.example", guarded())


def add_rest(app: FastAPI) -> None:
    app.add_api_route("/{path:path}", refuse)


def add_wider(app: FastAPI) -> None:
    app.add_api_route("/{kind}/{name}", refuse)


class Refusing(HTTPEndpoint):
    get = staticmethod(refuse)


def add_class(app: FastAPI) -> None:
    app.router.routes.append(Route("/{kind}/{name}", Refusing))


@pytest.mark.parametrize(
    ("add", "name"),
    [
        (add_mount, "the mounted application /books"),
        (add_root_mount, "the mounted application "),
        (add_mount_with_parameter, r"the mounted application /\{kind\}"),
        (add_host, "the application of the host admin.example"),
        (add_rest, r"the route /\{path:path\}"),
        (add_wider, r"the route /\{kind\}/\{name\}"),
        (add_class, r"the route /\{kind\}/\{name\}"),
    ],
)
async def test_what_stands_before_the_route_of_a_hot_query_is_refused_at_start(
    diptych: Diptych, add: Callable[[FastAPI], None], name: str
):
    app = FastAPI()
    add(app)
    install(app, diptych, ENDPOINTS, hot=HOT)
    with pytest.raises(
        WiringError, match=rf"/books/\{{title\}} is hot, and .* in place of {name}, which stands"
    ):
        async with running(app):
            pass


async def test_what_gets_no_request_for_a_hot_query_may_stand_anywhere(diptych: Diptych):
    async def socket(socket: Any) -> None: ...

    app = Starlette(
        routes=[
            Route("/books/new", refuse),
            Route("/books/{title}/pages", refuse),
            Route("/{kind}/{name}", refuse, methods=["POST"]),
            WebSocketRoute("/{kind}/{name}", socket),
            Mount("/static", guarded()),
            *routes(ENDPOINTS),
            Mount("/books", guarded()),
            Host("admin.example", guarded()),
            Mount("", guarded()),
        ]
    )
    install_into_starlette(app, diptych, hot=HOT)
    async with running(app) as client:
        await client.post("/books", json={"title": "Emma"})
        for headers in ({}, {"Host": "admin.example"}):
            answer = await client.get("/books/Emma", headers=headers)
            assert answer.headers["cache-status"].startswith("diptych; ")
            assert (await client.get("/books/new", headers=headers)).status_code == 401
