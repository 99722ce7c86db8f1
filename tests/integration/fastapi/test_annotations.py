"""Documents in the results of routes that do not say so in their annotations, and their schemas where they do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import pytest
from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from pydantic import BaseModel

from diptych import Document, Page
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
