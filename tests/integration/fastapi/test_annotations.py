"""Documents in the results of routes that do not say so in their annotations, and their schemas where they do."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from msgspec import Struct
from pydantic import BaseModel

from diptych import Command, Document, Page, PageOf
from diptych.ext.fastapi import install, provide
from tests.integration.http_suite.applications import running
from tests.integration.http_suite.site import ENDPOINTS, BookDocument, Books, shelf

BookPages = Annotated[Books, provide(Books)]
EMMA = {"id": 1, "title": "Emma", "pages": 7}


class Shown(BaseModel):
    book: Document[BookDocument]


def add_routes(app: FastAPI) -> None:
    @app.get("/none")
    async def unannotated(books: BookPages):
        return await books.get("Emma")

    @app.get("/any")
    async def annotated_any(books: BookPages) -> Any:
        return await books.get("Emma")

    @app.get("/dict")
    async def annotated_dict(books: BookPages) -> dict[str, Any]:
        return {"book": await books.get("Emma")}

    @app.get("/page")
    async def page(books: BookPages) -> Any:
        return await books.page(limit=5)

    @app.get("/encoded")
    async def encoded(books: BookPages) -> Any:
        return jsonable_encoder({"book": await books.get("Emma"), "page": await books.page(limit=5)})

    @app.get("/list/{title}")
    async def listed(title: str, books: BookPages) -> list[Document[BookDocument]]:
        return [await books.get(title)]

    @app.get("/shown/{title}")
    async def shown(title: str, books: BookPages) -> Shown:
        return Shown(book=await books.get(title))

    @app.get("/pages")
    async def pages(books: BookPages) -> list[Page[BookDocument]]:
        return [await books.page(limit=5)]

    @app.get("/whole/{title}")
    async def whole(title: str, books: BookPages) -> Document[BookDocument]:
        return await books.get(title)

    @app.get("/optional/{title}")
    async def optional(title: str, books: BookPages) -> Document[BookDocument] | None:
        return await books.get(title) or None


class Copy(Struct, rename="camel", tag="copy", omit_defaults=True):
    book_id: uuid.UUID
    cover: bytes = b""


class Loan(Struct):
    copies: list[Copy]
    due: datetime.datetime


class Within(Struct):
    book: Document[BookDocument]


class Lend(Command[None]):
    loan: Loan


NAME = uuid.UUID(int=7)
LOAN = Loan([Copy(NAME)], datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC))
LENT = {"copies": [{"type": "copy", "bookId": str(NAME)}], "due": "2024-01-01T00:00:00Z"}
BOOK = BookDocument(1, "Emma", 7)


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    app = FastAPI()
    install(app, shelf(f"sqlite:///{tmp_path / 'books.db'}"), ENDPOINTS)
    add_routes(app)
    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with running(app) as client:
        await client.post("/books", json={"title": "Emma", "pages": 7})
        yield client


async def test_documents_are_sent_as_json_where_no_annotation_says_so(client: httpx.AsyncClient):
    page = {"items": [EMMA], "next": None}
    for path, sent in (
        ("/none", EMMA),
        ("/any", EMMA),
        ("/dict", {"book": EMMA}),
        ("/page", page),
        ("/encoded", {"book": EMMA, "page": page}),
    ):
        answer = await client.get(path)
        assert (path, answer.status_code, answer.json()) == (path, 200, sent)


STRUCTS: tuple[tuple[Any, Any], ...] = (
    (BOOK, EMMA),
    (LOAN, LENT),
    ([LOAN], [LENT]),
    ({"loan": LOAN}, {"loan": LENT}),
    (Lend(loan=LOAN), {"loan": LENT}),
    (PageOf([BOOK], None), msgspec.to_builtins(PageOf([BOOK], None))),
)


@pytest.mark.parametrize(("returned", "sent"), STRUCTS)
@pytest.mark.parametrize("options", [{}, {"response_model": Any}])
async def test_structs_are_sent_as_json_where_no_annotation_says_so(
    app: FastAPI, returned: Any, sent: Any, options: dict[str, Any]
):
    @app.get("/struct", **options)
    async def struct():
        return returned

    async with running(app) as client:
        answer = await client.get("/struct")
        assert (answer.status_code, answer.json()) == (200, sent)


@pytest.mark.parametrize("options", [{}, {"response_model": Any}])
async def test_a_document_in_a_struct_is_an_error_and_not_sent_as_what_it_is_in_python(
    app: FastAPI, options: dict[str, Any]
):
    @app.get("/within", **options)
    async def within(books: BookPages):
        return Within(await books.get("Emma"))

    async with running(app) as client:
        assert (await client.get("/within")).status_code == 500


def test_pydantic_leaves_structs_what_they_are_in_python():
    class Held(BaseModel):
        loan: Any

    assert Held(loan=LOAN).model_dump() == {"loan": LOAN}
    assert Held(loan=[Lend(loan=LOAN)]).model_dump() == {"loan": [{"loan": LOAN}]}
    assert Held(loan=Lend(loan=LOAN)).model_dump(mode="json") == {"loan": {"loan": LENT}}


@pytest.mark.parametrize("place", ["list", "shown", "whole", "optional"])
@pytest.mark.parametrize("title", ["Emma", "nothing"])
async def test_schemas_of_documents_say_what_is_sent(
    client: httpx.AsyncClient, app: FastAPI, place: str, title: str
):
    document = app.openapi()
    answer = await client.get(f"/{place}/{title}")
    assert answer.status_code == (404 if (place, title) == ("whole", "nothing") else 200)
    shown = document["paths"][f"/{place}/{{title}}"]["get"]["responses"]["200"]["content"]["application/json"]
    schema = {**shown["schema"], "components": document["components"]}
    if place == "whole":
        assert shown["schema"] == {"$ref": "#/components/schemas/BookDocument"}
    if answer.status_code == 200:
        jsonschema.validate(answer.json(), schema)


def test_a_page_is_never_null(app: FastAPI):
    pages = app.openapi()["paths"]["/pages"]["get"]["responses"]["200"]["content"]["application/json"]
    assert list(pages["schema"]["items"]) == ["$ref"]
