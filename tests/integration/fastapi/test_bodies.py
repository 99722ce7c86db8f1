"""Bodies of requests for endpoints that something in front of the endpoint has read already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Form, Request
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

from diptych import CommandOf, ConfigService, Diptych, WiringError
from diptych.ext.fastapi import install, router
from diptych.ext.starlette import install as install_into_starlette
from diptych.ext.starlette import routes
from diptych.http import Endpoint, read_fields
from tests.integration.http_suite.applications import running
from tests.integration.http_suite.site import ENDPOINTS, AddBook, Base, BookCommands, BookQueries, Books

read: list[Any] = []


@pytest.fixture
def diptych(tmp_path: Path) -> Diptych:
    config = ConfigService(environ={}, database_url=f"sqlite:///{tmp_path / 'books.db'}", max_body_bytes=300)
    return Diptych(config, models=Base, handlers=[BookCommands, BookQueries], read_models=[Books])


async def by_body(request: Request) -> None:
    read.append(await request.body())


async def by_json(request: Request) -> None:
    read.append(await request.json())


async def by_parameter(pages: Annotated[int, Body(embed=True)]) -> None:
    read.append(pages)


async def by_chunks(request: Request) -> None:
    async for chunk in request.stream():
        read.append(chunk)


async def send(client: httpx.AsyncClient, **more: Any) -> httpx.Response:
    read.clear()
    async with asyncio.timeout(10):  # without the body the endpoint would wait for ever
        return await client.post("/books", **({"json": {"title": "Emma", "pages": 7}} | more))


@pytest.mark.parametrize("reads", [by_body, by_json, by_parameter])
async def test_a_dependency_may_read_the_body_of_an_endpoint(reads: Any, diptych: Diptych):
    app = FastAPI()
    install(app, diptych)
    app.include_router(router(ENDPOINTS), dependencies=[Depends(reads)])
    async with running(app) as client:
        answer = await send(client)
        assert (answer.status_code, len(read)) == (201, 1), answer.text
        assert (await send(client, json={"title": "x" * 400, "pages": 7})).status_code == 413


async def test_a_body_that_a_dependency_has_used_up_is_an_error_and_no_wait(diptych: Diptych):
    app = FastAPI()
    install(app, diptych)
    app.include_router(router(ENDPOINTS), dependencies=[Depends(by_chunks)])
    async with running(app) as client:
        assert (await send(client)).status_code == 500


async def test_a_body_read_before_a_route_of_the_applications_own_is_an_error_and_no_wait(
    diptych: Diptych, caplog: pytest.LogCaptureFixture
):
    app = FastAPI()
    install(app, diptych)

    @app.post("/books", dependencies=[Depends(by_body)])
    async def add(request: Request) -> dict[str, Any]:
        return (await read_fields(request.scope, request.receive, 300)).values

    async with running(app) as client:
        assert (await send(client)).status_code == 500
        assert "the body was read before, and is gone: read it once" in caplog.text


async def by_form(request: Request) -> None:
    async with request.form() as form:
        read.append(form["title"])


async def test_a_dependency_may_read_the_form_of_an_endpoint(diptych: Diptych):
    app = FastAPI()
    install(app, diptych)
    app.include_router(
        router([Endpoint("POST", "/books", AddBook, form=True, status=201)]), dependencies=[Depends(by_form)]
    )
    async with running(app) as client:
        answer = await send(client, json=None, data={"title": "Emma & Co. é", "pages": "7"})
        assert (answer.status_code, read) == (201, ["Emma & Co. é"]), answer.text


class Reading(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        await by_body(request)
        return await call_next(request)


async def test_middleware_may_read_the_body_of_an_endpoint(diptych: Diptych):
    app = Starlette(routes=routes(ENDPOINTS), middleware=[Middleware(Reading)])
    install_into_starlette(app, diptych)
    async with running(app) as client:
        assert (await send(client)).status_code == 201
        assert read == [b'{"title":"Emma","pages":7}']


async def test_a_body_in_chunks_is_read_as_it_comes(diptych: Diptych):
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"title":'
        yield b'"Emma"}'

    app = FastAPI()
    install(app, diptych, ENDPOINTS)
    async with running(app) as client:
        json_kind = {"Content-Type": "application/json"}
        answer = await client.post("/books", content=chunks(), headers=json_kind)
        assert answer.status_code == 201, answer.text


class AddModel(BaseModel, CommandOf[int]):
    title: str
    pages: int


async def test_a_message_as_a_form_is_refused_at_start(diptych: Diptych):
    def add(command: Annotated[AddBook, Form()]) -> None: ...
    def guard(command: Annotated[AddBook | None, Form()] = None) -> None: ...
    def add_model(command: Annotated[AddModel, Form()]) -> int:
        return command.pages

    app, api = FastAPI(), APIRouter(prefix="/api")
    install(app, diptych)
    api.post("/forms")(add)
    app.include_router(api)
    app.post("/guarded", dependencies=[Depends(guard)])(by_body)
    app.post("/models")(add_model)
    with pytest.raises(WiringError) as caught:
        async with running(app):
            pass
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "POST /api/forms",
        "POST /guarded",
    ]
    assert (
        "FastAPI makes no AddBook of a form ('command'): use Endpoint(form=True)" in caught.value.problems[0]
    )


async def test_a_model_as_a_form_is_made_by_fastapi(diptych: Diptych):
    app = FastAPI()
    install(app, diptych)

    @app.post("/models")
    def add_model(command: Annotated[AddModel, Form()]) -> int:
        return command.pages

    async with running(app) as client:
        assert (await client.post("/models", data={"title": "Emma", "pages": "5"})).json() == 5
