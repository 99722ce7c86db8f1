"""Parameters in the prefix of endpoints: they are fields of the messages, and nothing else sets those fields."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from openapi_spec_validator import validate
from sqlalchemy.orm import DeclarativeBase
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route

from diptych import Command, ConfigService, Diptych, Document, Query, Served, WiringError
from diptych.ext.fastapi import install, router
from diptych.ext.starlette import install as install_into_starlette
from diptych.ext.starlette import routes
from diptych.http import Endpoint, endpoints_app
from diptych.http.asgi import ASGIApp
from tests.integration.http_suite.applications import running


class Base(DeclarativeBase):
    pass


class ListTickets(Query[str]):
    tenant: str
    limit: int = 10


class GetTicket(Query[Document[dict[str, Any]]]):
    tenant: str
    code: str


class AddTicket(Command[str]):
    tenant: str
    code: str


class Tag(Command[None]):
    tags: list[str]


class Handlers:
    async def all(self, query: ListTickets) -> str:
        return f"{query.tenant} {query.limit}"

    async def one(self, query: GetTicket) -> Document[dict[str, Any]]:
        return Document(f'{{"of":"{query.tenant}"}}'.encode(), Served("redis"), dict)

    async def add(self, command: AddTicket) -> str:
        return f"{command.tenant} {command.code}"

    async def tag(self, command: Tag) -> None: ...


ENDPOINTS = (
    Endpoint("GET", "/tickets", ListTickets),
    Endpoint("GET", "/ticket", GetTicket),
    Endpoint("POST", "/tickets", AddTicket, status=201, location="/{tenant}/tickets/{code}"),
)


@pytest.fixture
def diptych(tmp_path: Path) -> Diptych:
    config = ConfigService(environ={}, database_url=f"sqlite:///{tmp_path / 'tickets.db'}")
    return Diptych(config, models=Base, handlers=[Handlers])


def included(diptych: Diptych) -> ASGIApp:
    app = FastAPI()
    install(app, diptych)
    app.include_router(router(ENDPOINTS, prefix="/{tenant}"))
    return app


def mounted(diptych: Diptych) -> ASGIApp:
    app = Starlette(routes=[Mount("/{tenant}", routes=routes(ENDPOINTS))])
    install_into_starlette(app, diptych)
    return app


def mounted_whole(diptych: Diptych) -> ASGIApp:
    app = Starlette(routes=[Mount("/{tenant}", app=endpoints_app(diptych, ENDPOINTS))])
    install_into_starlette(app, diptych)
    return app


@pytest.mark.parametrize("make", [included, mounted, mounted_whole])
async def test_a_field_in_the_prefix_is_set_by_the_path_alone(make: Any, diptych: Diptych):
    async with running(make(diptych)) as client:
        assert (await client.get("/acme/tickets?limit=3")).json() == "acme 3"
        assert (await client.get("/acme/ticket?code=7")).json() == {"of": "acme"}
        for path in ("/acme/tickets?tenant=other", "/acme/ticket?code=7&tenant=other"):
            refused = await client.get(path)
            assert (refused.status_code, refused.json()["errors"]) == (
                422,
                [{"field": "tenant", "detail": "is not a known field", "parameter": "tenant"}],
            )
        added = await client.post("/acme/tickets", json={"code": "7"})
        assert (added.json(), added.headers["location"]) == ("acme 7", "/acme/tickets/7")
        assert (await client.post("/acme/tickets", json={"code": "7", "tenant": "acme"})).status_code == 201
        refused = await client.post("/acme/tickets", json={"code": "7", "tenant": "other"})
        assert [one["detail"] for one in problem_errors(refused)] == ["contradicts the path"]


def problem_errors(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 422
    found: list[dict[str, str]] = answer.json()["errors"]
    return found


async def test_routes_in_a_mount_are_found_as_others_are(diptych: Diptych):
    async def own(request: Request) -> Response:
        return PlainTextResponse(f"{request.method} {request.path_params['name']}")

    of_tenant = [
        *routes(ENDPOINTS),
        Mount("/own", routes=[Route("/{name}", own, methods=["HEAD", "PUT"]), Route("/{name}", own)]),
    ]
    app = Starlette(routes=[Mount("/of/{tenant}", routes=of_tenant)])
    install_into_starlette(app, diptych)
    async with running(app) as client:
        assert (await client.get("/of/a%2Fb/tickets")).json() == "a/b 10"
        assert (await client.get("/of/acme/own/a%2Fb")).text == "GET a/b"
        assert (await client.get("/of/a%2Fb/nothing")).status_code == 404
        for path, allow in (
            ("/of/a%2Fb/tickets", "GET, HEAD, OPTIONS, POST"),
            ("/of/acme/ticket", "GET, HEAD, OPTIONS"),
            ("/of/acme/own/a%2Fb", "GET, HEAD, OPTIONS, PUT"),
        ):
            assert (await client.options(path)).headers["allow"] == allow
            refused = await client.delete(path)
            assert (refused.status_code, refused.headers["allow"]) == (405, allow)
            assert refused.json()["detail"] == f"this address allows only: {allow}"


async def test_a_slash_in_the_prefix_is_text(diptych: Diptych):
    async with running(included(diptych)) as client:
        assert (await client.get("/a%2Fb/tickets")).json() == "a/b 10"


def test_the_openapi_document_has_all_parameters_of_the_path(diptych: Diptych):
    app = FastAPI()
    install(app, diptych)
    app.include_router(router(ENDPOINTS, prefix="/{region}/{tenant}"))
    document = app.openapi()
    validate(document)
    operations = document["paths"]["/{region}/{tenant}/tickets"]
    assert [(one["name"], one["in"]) for one in operations["get"]["parameters"]] == [
        ("tenant", "path"),
        ("limit", "query"),
        ("region", "path"),
    ]
    body = operations["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert list(body["properties"]) == ["code"]


async def test_a_prefix_that_can_be_no_field_is_refused_at_start(diptych: Diptych):
    endpoint = Endpoint("POST", "/tags", Tag)
    app = FastAPI()
    install(app, diptych)
    app.include_router(router([endpoint], prefix="/{tags}"))
    within = Starlette(routes=[Mount("/{tags}", routes=routes([endpoint]))])
    install_into_starlette(within, diptych)
    for one in (app, within):
        with pytest.raises(WiringError, match=r"POST /\{tags\}/tags: 'tags' is of several values"):
            async with running(one):
                pass


@pytest.mark.parametrize("kind", [FastAPI, Starlette])
async def test_endpoints_in_a_mounted_application_without_a_diptych_are_refused_at_start(
    kind: Any, diptych: Diptych
):
    within = kind(routes=[Mount("/deep", routes=routes(ENDPOINTS))])
    app = Starlette(routes=[Mount("/of/{tenant}", app=within), Host("tickets.example", app=within)])
    install_into_starlette(app, diptych)
    with pytest.raises(WiringError) as caught:
        async with running(app):
            pass
    assert len(caught.value.problems) == 2
    for problem, place in zip(caught.value.problems, ("/of/{tenant}", "tickets.example"), strict=True):
        assert f"the application at {place} has endpoints and no Diptych" in problem
    install_into_starlette(within, diptych)
    async with running(app) as client:
        assert (await client.get("/of/acme/deep/ticket?code=7")).json() == {"of": "acme"}


@pytest.mark.parametrize("kind", [FastAPI, Starlette])
async def test_a_mounted_application_whose_own_diptych_nobody_starts_is_refused_at_start(
    kind: Any, diptych: Diptych, tmp_path: Path
):
    config = ConfigService(environ={}, database_url=f"sqlite:///{tmp_path / 'others.db'}")
    other = Diptych(config, models=Base, handlers=[Handlers])
    within = kind(routes=[Mount("/of/{tenant}", routes=routes(ENDPOINTS))])
    install_into_starlette(within, other)

    def around(**options: Any) -> Starlette:
        app = Starlette(routes=[Mount("/api", routes=[Mount("/v1", app=within)])], **options)
        install_into_starlette(app, Diptych(diptych.config, models=Base, handlers=[Handlers]))
        return app

    with pytest.raises(
        WiringError, match="the application at /api/v1 has another Diptych, which nobody starts"
    ):
        async with running(around()):
            pass

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with other:
            yield

    async with running(around(lifespan=lifespan)) as client:
        assert (await client.get("/api/v1/of/acme/tickets")).json() == "acme 10"
    async with other, running(around()) as client:
        assert (await client.get("/api/v1/of/acme/tickets")).json() == "acme 10"
