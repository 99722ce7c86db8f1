"""Messages as bodies, documents and pages as answers, and dependencies of Litestar's handlers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from litestar import Litestar, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.exceptions import PermissionDeniedException
from litestar.openapi import OpenAPIConfig
from litestar.params import FromPath, FromQuery, JSONBody
from openapi_spec_validator import validate
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from diptych import CommandOf, Diptych, Document, Page, WiringError
from diptych.ext.litestar import DiptychPlugin, asgi_app, routes
from tests.integration.http_suite.applications import running
from tests.integration.http_suite.site import (
    ENDPOINTS,
    AddBook,
    Book,
    BookDocument,
    Books,
    GetBook,
    shelf,
)

Shelf = NamedDependency[Diptych]
BookPages = NamedDependency[Books]
Session = NamedDependency[AsyncSession]


class Note(BaseModel, CommandOf[None]):
    text: str


@post("/own/books")
async def add(data: JSONBody[AddBook], diptych: Shelf) -> Document[BookDocument]:
    await diptych.execute(data)
    return await diptych.ask(GetBook(title=data.title))


@post("/own/notes")
async def note(data: JSONBody[Note]) -> str:
    return data.text


@get("/own/books")
async def page(books: BookPages) -> Page[BookDocument]:
    return await books.page(limit=10)


@get("/own/books/{title:str}")
async def book(title: FromPath[str], books: BookPages) -> Document[BookDocument]:
    return await books.get(title)


@get("/own/several")
async def several(books: BookPages) -> list[Document[BookDocument]]:
    return await books.get_many(["Emma", "nothing"])


@post("/own/session")
async def by_session(
    session: Session, diptych: Shelf, title: FromQuery[str], fail: FromQuery[bool] = False
) -> int:
    session.add(Book(title=title, pages=1))
    await session.flush()
    await diptych.execute(AddBook(title=f"{title}, again"))  # joins the transaction
    if fail:
        raise PermissionDeniedException("no")
    return (await session.scalars(sa.select(sa.func.count()).select_from(Book))).one()


@post("/own/undone")
async def undone(session: Session, books: BookPages) -> Document[BookDocument]:
    session.add(Book(title="Sanditon", pages=1))
    return await books.get("nothing")


OWN = [add, note, page, book, several, by_session, undone]


@pytest.fixture
def diptych(tmp_path: Path) -> Diptych:
    return shelf(f"sqlite:///{tmp_path / 'books.db'}")


def site_of(diptych: Diptych, **options: Any) -> Litestar:
    config = OpenAPIConfig(title="Shelf", version="1")
    plugins = [DiptychPlugin(diptych)]
    return Litestar([*routes(ENDPOINTS), *OWN], plugins=plugins, openapi_config=config, **options)


@pytest.fixture
async def client(diptych: Diptych) -> AsyncIterator[httpx.AsyncClient]:
    async with running(asgi_app(site_of(diptych))) as client:
        await client.post("/books", json={"title": "Emma", "pages": 7})
        yield client


EMMA = b'{"id":1,"title":"Emma","pages":7}'


async def test_documents_and_pages_are_sent_as_they_are_stored(client: httpx.AsyncClient):
    endpoint, own = await client.get("/books/Emma"), await client.get("/own/books/Emma")
    assert own.content == EMMA
    assert dict(own.headers) == dict(endpoint.headers)
    again = await client.get("/own/books/Emma", headers={"If-None-Match": own.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    found = await client.get("/own/books")
    assert found.content == b'{"items":[%s],"next":null}' % EMMA
    assert found.headers["etag"] == (await client.get("/books")).headers["etag"]
    missing = await client.get("/own/books/Dune")
    assert (missing.status_code, missing.json()["title"]) == (404, "Not Found")
    added = await client.post("/own/books", json={"title": "AC/DC"})
    assert (added.status_code, added.json()["title"]) == (201, "AC/DC")
    assert (await client.get("/own/books/AC%2FDC")).json() == added.json()
    assert (await client.get("/own/several")).content == b"[%s,null]" % EMMA


async def test_a_message_is_made_by_build_and_not_by_litestar(client: httpx.AsyncClient):
    answer = await client.post("/own/books", json={"title": "", "colour": "red"})
    assert answer.status_code == 422
    assert [(one["pointer"], one["detail"]) for one in answer.json()["errors"]] == [
        ("#/colour", "is not a known field"),
        ("#/title", "must not be empty"),
    ]
    assert (await client.post("/own/notes", json={"text": "x", "colour": "red"})).status_code == 422
    assert (await client.post("/own/notes", json={"text": "x"})).text == "x"
    twice = b'{"title": "a", "title": "b"}'
    answer = await client.post("/own/books", content=twice, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    form = await client.post("/own/books", data={"title": "Emma"})
    assert (form.status_code, form.headers["accept"]) == (415, "application/json")


async def test_a_session_is_a_transaction_of_the_request(client: httpx.AsyncClient, diptych: Diptych):
    headers = {"X-Request-ID": "request-9", "X-User": "jane"}
    answer = await client.post("/own/session?title=Dune", headers=headers)
    assert (answer.status_code, answer.json()) == (201, 3)
    assert (await client.get("/own/books/Dune")).json()["title"] == "Dune"
    assert (await client.post("/own/session?title=Persuasion&fail=true")).status_code == 403
    assert (await client.get("/own/books/Persuasion")).status_code == 404
    async with diptych.orm.session() as session:
        log = "SELECT DISTINCT correlation_id, actor FROM diptych_log WHERE correlation_id IS NOT NULL"
        assert (await session.execute(sa.text(log))).all() == [("request-9", "jane")]


async def test_the_openapi_document_is_valid_and_has_all_routes(client: httpx.AsyncClient):
    document = (await client.get("/schema/openapi.json")).json()
    validate(document)
    paths = document["paths"]
    assert [one["name"] for one in paths["/books"]["get"]["parameters"]] == ["limit", "after"]
    assert set(paths["/books/{title}"]) == {"get", "patch", "delete"}
    own = paths["/own/books/{title}"]["get"]["responses"]
    assert own["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/BookDocument")
    assert own["422"]["content"]["application/problem+json"]["schema"] == {
        "$ref": "#/components/schemas/Problem"
    }
    sent = paths["/own/books"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert sent["$ref"].endswith("/AddBook")
    assert "status_code" not in json.dumps(paths)


def nobody(_: ASGIConnection[Any, Any, Any, Any], __: object) -> None:
    raise PermissionDeniedException("not for you")


def test_hot_queries_with_guards_are_refused_by_name(diptych: Diptych):
    with pytest.raises(WiringError, match="without the guard nobody of its route"):
        asgi_app(site_of(diptych, guards=[nobody]), hot={"/books/{title}": GetBook})


async def test_an_answer_without_a_document_undoes_the_session(client: httpx.AsyncClient):
    """The status of such an answer is told only once the stored bytes are put into it."""
    assert (await client.post("/own/undone")).status_code == 404
    assert (await client.get("/own/books/Sanditon")).status_code == 404
