"""Routes that an application has before diptych is installed: they answer as they did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Response
from starlette.requests import Request

from diptych import Diptych
from diptych.ext.fastapi import install
from tests.integration.http_suite.applications import running
from tests.integration.http_suite.site import ENDPOINTS, GetBook, shelf


@pytest.fixture
def diptych(tmp_path: Path) -> Diptych:
    return shelf(f"sqlite:///{tmp_path / 'books.db'}")


def add_routes(app: FastAPI) -> None:
    @app.get("/files/{path:path}")
    async def file(path: str) -> str:
        return path

    @app.get("/own/{kind}/{name}")
    async def own(kind: str, name: str) -> list[str]:
        return [kind, name]

    @app.head("/up/{name}")
    async def up(name: str) -> Response:
        return Response(headers={"X-Size": "7"})

    @app.get("/up/{name}")
    async def content(name: str) -> str:
        return name

    @app.head("/only")
    async def only() -> Response:
        return Response(headers={"X-Size": "8"})

    @app.api_route("/both", methods=["GET", "HEAD"])
    async def both(request: Request) -> Response:
        return Response(headers={"X-Method": request.method})


def add_host(app: FastAPI) -> None:
    host = FastAPI()

    @host.get("/of-host/{path:path}")
    async def of_host(path: str) -> str:
        return path

    app.host("admin.example", host)


REQUESTS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("GET", "/files/a%2Fb.txt", {}),
    ("GET", "/files/a%2F..%2Fb.txt", {}),
    ("GET", "/files//a%2Fb", {}),
    ("GET", "/own%2Fa/b", {}),
    ("GET", "/of-host/a%2Fb", {"Host": "admin.example"}),
    ("HEAD", "/up/1", {}),
    ("HEAD", "/only", {}),
    ("HEAD", "/both", {}),
)


async def asked(app: FastAPI) -> list[tuple[str, int, bytes, tuple[str | None, str | None]]]:
    found = []
    async with running(app) as client:
        for method, path, headers in REQUESTS:
            answer = await client.request(method, path, headers=headers)
            own = (answer.headers.get("x-size"), answer.headers.get("x-method"))
            found.append((path, answer.status_code, answer.content, own))
    return found


async def test_routes_of_the_applications_own_answer_as_before(diptych: Diptych):
    plain, installed = FastAPI(), FastAPI()
    for app in (plain, installed):
        add_routes(app)
        add_host(app)
    install(installed, diptych, ENDPOINTS)
    before = await asked(plain)
    assert [one[1] for one in before] == [200] * len(REQUESTS)
    assert await asked(installed) == before


async def test_a_path_is_that_of_an_endpoint_only_as_it_was_sent(diptych: Diptych):
    app = FastAPI()
    install(app, diptych, ENDPOINTS)
    add_routes(app)
    async with running(app) as client:
        await client.post("/books", json={"title": "Emma"})
        assert (await client.get("/books/Emma")).status_code == 200
        assert (await client.get("/books%2FEmma")).status_code == 404
        assert (await client.options("/only")).headers["allow"] == "HEAD, OPTIONS"
        assert (await client.head("/books/Emma")).status_code == 200


async def test_behind_a_proxy_that_takes_the_prefix_away_paths_are_the_same(diptych: Diptych):
    app = FastAPI()
    install(app, diptych, ENDPOINTS, hot={"/plain/{title}": GetBook})
    add_routes(app)
    asked: list[str] = []

    @app.get("/plain/{title}")
    async def plain(title: str) -> None:
        asked.append(title)

    @app.get("/seen")
    async def see(request: Request) -> str:
        return str(request.scope["root_path"])

    async def proxied(scope: Any, receive: Any, send: Any) -> None:  # as `FastAPI(root_path="/proxy")` does
        await app({**scope, "root_path": "/proxy"}, receive, send)

    async with running(proxied) as client:
        await client.post("/books", json={"title": "AC/DC"})
        for prefix in ("", "/proxy"):
            answer = await client.get(f"{prefix}/books/AC%2FDC")
            assert (answer.status_code, answer.json()["title"]) == (200, "AC/DC")
            assert (await client.get(f"{prefix}/plain/AC%2FDC")).json()["title"] == "AC/DC"
            assert (await client.get(f"{prefix}/files/a%2Fb")).json() == "a/b"
            assert (await client.get(f"{prefix}/own/a%2Fb/c")).json() == ["a/b", "c"]
            assert (await client.get(f"{prefix}/seen")).json() == "/proxy"
    assert asked == []  # the query is hot, and answered before the framework
