"""Where documents are decoded, and where their stored bytes are sent: nobody sees a text that stands for one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, Response
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.routing import APIRoute
from pydantic import BaseModel, field_serializer
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse

from diptych import Diptych, Document, Page
from diptych.ext.fastapi import install, provide
from tests.integration.http_suite.applications import running
from tests.integration.http_suite.site import ENDPOINTS, AddBook, BookDocument, Books, GetBook, shelf

BookPages = Annotated[Books, provide(Books)]
EMMA = b'{"id":1,"title":"Emma","pages":7}'


class Shown(BaseModel):
    book: Document[BookDocument]


class Signed(BaseModel):
    """Has its JSON within a text too."""

    shown: Shown

    @field_serializer("shown")
    def _as_text(self, shown: Shown) -> str:
        return shown.model_dump_json()


@pytest.fixture
def diptych(tmp_path: Path) -> Diptych:
    return shelf(f"sqlite:///{tmp_path / 'books.db'}")


@asynccontextmanager
async def serving(
    diptych: Diptych, add_routes: Callable[[FastAPI], None]
) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    install(app, diptych, ENDPOINTS)
    add_routes(app)
    async with running(app) as client:
        await client.post("/books", json={"title": "Emma", "pages": 7})
        yield client


async def test_what_the_application_makes_of_a_model_has_decoded_documents(diptych: Diptych):
    made: list[Any] = []

    def add_routes(app: FastAPI) -> None:
        @app.get("/shown")
        async def shown(tasks: BackgroundTasks) -> Shown:
            found = Shown(book=await diptych.ask(GetBook(title="Emma")))
            made.append(found.model_dump_json())
            made.append(json.dumps(found.model_dump()))
            tasks.add_task(lambda: made.append(found.model_dump_json()))
            return found

        @app.get("/signed")
        async def signed() -> Signed:
            return Signed(shown=Shown(book=await diptych.ask(GetBook(title="Emma"))))

    async with serving(diptych, add_routes) as client:
        assert (await client.get("/shown")).content == b'{"book":%s}' % EMMA
        assert [json.loads(one) for one in made] == [{"book": json.loads(EMMA)}] * 3
        assert json.loads((await client.get("/signed")).json()["shown"]) == {"book": json.loads(EMMA)}


def add_book_routes(app: FastAPI) -> None:
    @app.get("/all")
    async def all_books(books: BookPages) -> Page[BookDocument]:
        return await books.page(limit=10)

    @app.get("/shown")
    async def shown(books: BookPages) -> Shown:
        return Shown(book=await books.get("Emma"))

    @app.get("/{title}")
    async def book(title: str, books: BookPages) -> Document[BookDocument]:
        return await books.get(title)


@pytest.mark.parametrize("compressed", [False, True])
async def test_a_mounted_application_sends_documents_whatever_its_middleware_does(
    diptych: Diptych, compressed: bool
):
    def mount(app: FastAPI) -> None:
        mounted = FastAPI()
        mounted.state.diptych = diptych
        add_book_routes(mounted)
        if compressed:
            mounted.add_middleware(GZipMiddleware, minimum_size=1)
        app.mount("/mounted", mounted)

    async with serving(diptych, mount) as client:
        answer = await client.get("/mounted/Emma")
        assert answer.content == EMMA
        assert ("etag" in answer.headers) is not compressed
        assert (await client.get("/mounted/shown")).content == b'{"book":%s}' % EMMA
        assert (await client.get("/mounted/all")).content == b'{"items":[%s],"next":null}' % EMMA
        if not compressed:
            assert (await client.get("/mounted/none")).status_code == 404


async def test_a_class_of_routes_sees_what_is_sent(diptych: Diptych):
    seen: list[bytes] = []

    class Seeing(APIRoute):
        def get_route_handler(self) -> Any:
            handle = super().get_route_handler()

            async def see(request: Request) -> Response:
                response = await handle(request)
                seen.append(bytes(response.body))
                return response

            return see

    def add_routes(app: FastAPI) -> None:
        app.router.route_class = Seeing
        add_book_routes(app)

    async with serving(diptych, add_routes) as client:
        answer = await client.get("/Emma")
        assert (answer.content, "etag" in answer.headers) == (EMMA, True)
        assert (await client.get("/none")).status_code == 404
        assert seen == [EMMA, b"null"]


async def test_a_class_of_responses_is_given_decoded_documents(diptych: Diptych):
    class Enveloped(JSONResponse):
        def render(self, content: Any) -> bytes:
            return super().render({"data": content})

    class Pretty(JSONResponse):
        def render(self, content: Any) -> bytes:
            return json.dumps(content, indent=1).encode()

    class Text(PlainTextResponse):
        def render(self, content: Any) -> bytes:
            return content["title"].encode()  # type: ignore[no-any-return]

    def add_routes(app: FastAPI) -> None:
        for kind in (JSONResponse, Enveloped, Pretty, Text):

            @app.get(f"/{kind.__name__}/{{title}}", response_class=kind)
            async def book(title: str, books: BookPages) -> Document[BookDocument]:
                return await books.get(title)

    async with serving(diptych, add_routes) as client:
        answer = await client.get("/JSONResponse/Emma")
        assert (answer.content, "etag" in answer.headers) == (EMMA, True)
        assert (await client.get("/JSONResponse/none")).status_code == 404
        assert (await client.get("/Enveloped/Emma")).json() == {"data": json.loads(EMMA)}
        assert (await client.get("/Pretty/Emma")).content == json.dumps(json.loads(EMMA), indent=1).encode()
        assert (await client.get("/Pretty/none")).status_code == 404
        assert (await client.get("/Text/Emma")).text == "Emma"


async def test_routes_that_the_lifespan_adds_send_stored_bytes_too(diptych: Diptych):
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        add_book_routes(app)
        yield

    app = FastAPI(lifespan=lifespan)
    install(app, diptych)
    async with running(app) as client:
        await diptych.execute(AddBook(title="AC/DC"))
        assert "etag" in (await client.get("/AC%2FDC")).headers
        assert (await client.get("/none")).status_code == 404
