"""Endpoints in an application of their own, over HTTP: what each request is answered with."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import msgspec
import pytest
from litestar import Litestar
from msgspec import UNSET, Meta, Struct, UnsetType
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import (
    Command,
    ConfigService,
    Diptych,
    Document,
    Fault,
    InvalidMessage,
    ORMService,
    Page,
    Query,
    ReadModel,
    by,
    code_point_text,
)
from diptych.ext.litestar import DiptychPlugin, asgi_app, routes
from diptych.http import (
    SECURITY_HEADERS,
    Answer,
    Endpoint,
    EndpointRequest,
    Html,
    Problem,
    endpoints_app,
    hot_routes,
)
from tests.configuration import configured


class Base(DeclarativeBase):
    pass


class Book(Base):
    __tablename__ = "endpoint_books"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(code_point_text(60), unique=True)
    stock: Mapped[int] = mapped_column(default=0)
    published: Mapped[datetime.date | None] = mapped_column(default=None)


class BookDocument(Struct):
    id: int
    title: str
    stock: int
    published: datetime.date | None


class BookReadModel(ReadModel[Book]):
    key = Book.title
    document = BookDocument
    lists = (by(Book.title),)


Title = Annotated[str, Meta(min_length=1, max_length=60)]


class AddBook(Command[int]):
    title: Title
    stock: Annotated[int, Meta(ge=0)] = 0
    published: datetime.date | None = None


class Changes(Struct, frozen=True):
    title: Title | UnsetType = UNSET
    stock: int | UnsetType = UNSET


class EditBook(Command[BookDocument | None]):
    title: Title
    changes: Changes


class SetStock(Command[BookDocument | None]):
    title: str
    stock: int


class DeleteBook(Command[bool]):
    title: str
    if_stock: int | None = None


class DeleteById(Command[bool]):
    id: Annotated[int, Meta(ge=1, le=2_147_483_647)]


class Clear(Command[None]):
    pass


class GetBook(Query[Document[BookDocument]]):
    title: str


class ListBooks(Query[Page[BookDocument]]):
    limit: int = 50
    after: str | None = None
    secret: bool = False


class CountBooks(Query[int]):
    since: datetime.date | None = None


class Handlers:
    def __init__(self, orm: ORMService) -> None:
        self.orm = orm

    async def add(self, command: AddBook) -> int:
        return (await self.orm.create(Book, **msgspec.structs.asdict(command))).id

    async def edit(self, command: EditBook) -> BookDocument | None:
        given = {n: v for n, v in msgspec.structs.asdict(command.changes).items() if v is not UNSET}
        return await self._changed(command.title, given)

    async def set_stock(self, command: SetStock) -> BookDocument | None:
        if command.stock < 0:
            raise InvalidMessage("SetStock", [Fault("stock", "must not be negative")])
        return await self._changed(command.title, {"stock": command.stock})

    async def _changed(self, title: str, values: dict[str, Any]) -> BookDocument | None:
        book = await self.orm.update(Book, title, "title", return_instance=True, **values)
        return None if book is None else BookDocument(book.id, book.title, book.stock, book.published)

    async def delete(self, command: DeleteBook) -> bool:
        book = await self.orm.get(Book, command.title, "title")
        if book is None or command.if_stock not in (None, book.stock):
            return False
        return await self.orm.delete(Book, command.title, "title")

    async def delete_by_id(self, command: DeleteById) -> bool:
        return await self.orm.delete(Book, command.id)

    async def clear(self, command: Clear) -> None:
        for book in await self.orm.all(Book):
            await self.orm.delete(Book, book.id)


class Queries:
    def __init__(self, books: BookReadModel, orm: ORMService) -> None:
        self.books = books
        self.orm = orm

    async def get(self, query: GetBook) -> Document[BookDocument]:
        return await self.books.get(query.title)

    async def list(self, query: ListBooks) -> Page[BookDocument]:
        return await self.books.page(limit=query.limit, after=query.after)

    async def count(self, query: CountBooks) -> int:
        return len(await self.orm.all(Book))


class BookPage(Html):
    async def found(self, request: EndpointRequest, message: GetBook, found: Any) -> Answer:
        return Answer.page(f"<h1>{found.decode().title}</h1>{request.cookies.get('flash', '')}")


class AddForm(Html):
    async def refused(self, request: EndpointRequest, problem: Problem) -> Answer:
        faults = ", ".join(f"{error.field} {error.detail}" for error in problem.errors)
        return Answer.page(f"{request.fields.values['title']}: {faults}", problem.status)


class EditForm(Html):
    async def done(self, request: EndpointRequest, message: EditBook, result: Any) -> Answer:
        return Answer.see_other("/edited", {"Set-Cookie": "flash=done"})


def _id(message: AddBook, result: int) -> dict[str, int]:
    return {"id": result}


def _stock(message: GetBook, found: Document[BookDocument]) -> dict[str, int]:
    book = found.decode()
    return {"stock": 0 if book is None else book.stock}


NO_BOOK = "there is no book “{title}”"
ENDPOINTS = (
    Endpoint("GET", "/books?limit&after", ListBooks),
    Endpoint("GET", "/count", CountBooks),
    Endpoint("GET", "/books/{title}", GetBook, missing=NO_BOOK, html=BookPage()),
    Endpoint(
        "POST",
        "/books",
        AddBook,
        form=True,
        status=201,
        location="/books/{title}",
        answer=_id,
        html=AddForm(),
    ),
    Endpoint(
        "PATCH", "/books/{title}", EditBook, body="changes", missing=NO_BOOK, form=True, html=EditForm()
    ),
    Endpoint(
        "POST",
        "/books/{title}",
        EditBook,
        body="changes",
        form=True,
        override="PATCH",
        override_required=True,
        location="/books/{title}",
        missing=NO_BOOK,
    ),
    Endpoint("GET", "/books/{title}/stock", GetBook, missing=NO_BOOK, answer=_stock),
    Endpoint("PUT", "/books/{title}/stock", SetStock, missing=NO_BOOK),
    Endpoint("DELETE", "/books/{title}", DeleteBook, missing=NO_BOOK),
    Endpoint("DELETE", "/numbers/{id}", DeleteById, missing="there is no book number {id}"),
    Endpoint("DELETE", "/typed/{id:int}", DeleteById),
    Endpoint("POST", "/clear", Clear),
)


def shop(config: ConfigService) -> Diptych:
    return Diptych(config, models=Base, handlers=[Handlers, Queries], read_models=[BookReadModel])


def pure(app: Diptych) -> Any:
    return endpoints_app(app, ENDPOINTS, title="Shop", version="2", description="What there is.")


def litestar(app: Diptych) -> Any:
    handlers = routes(ENDPOINTS, title="Shop", version="2", description="What there is.")
    site = Litestar(handlers, plugins=[DiptychPlugin(app)], openapi_config=None, logging_config=None)
    return asgi_app(site, hot=hot_routes(ENDPOINTS))


FRAMEWORKS = {"pure": pure, "litestar": litestar}


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> Callable[[Diptych], Any]:
    """Makes the application that is asked, of each kind."""
    return FRAMEWORKS[request.param]


@asynccontextmanager
async def served(database_url: str, framework: Callable[[Diptych], Any]) -> AsyncIterator[httpx.AsyncClient]:
    async with shop(configured(database_url, max_body_bytes=1000)) as app:
        transport = httpx.ASGITransport(framework(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
            yield client


@pytest.fixture
async def client(sqlite_url: str, framework: Callable[[Diptych], Any]) -> AsyncIterator[httpx.AsyncClient]:
    async with served(sqlite_url, framework) as client:
        yield client


def errors(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.status_code == 422, answer.text
    found: list[dict[str, str]] = answer.json()["errors"]
    return found


HTML = {"Accept": "text/html"}


async def test_a_book_is_added_read_changed_and_deleted(
    database_url: str, framework: Callable[[Diptych], Any]
):
    async with served(database_url, framework) as client:
        added = await client.post("/books", json={"title": "AC/DC", "published": "1973-11-01"})
        assert (added.status_code, added.headers["location"]) == (201, "/books/AC%2FDC")
        number = added.json()["id"]
        found = await client.get(added.headers["location"])
        assert found.json() == {"id": number, "title": "AC/DC", "stock": 0, "published": "1973-11-01"}
        assert found.headers["cache-status"] == "diptych; fwd=bypass; detail=no-redis"
        again = await client.get("/books/AC%2FDC", headers={"If-None-Match": found.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        changed = await client.patch("/books/AC%2FDC", json={"title": "x", "stock": 3})
        assert (changed.status_code, changed.json()) == (200, found.json() | {"title": "x", "stock": 3})
        assert [book["title"] for book in (await client.get("/books")).json()["items"]] == ["x"]
        deleted = await client.delete("/books/x")
        assert (deleted.status_code, deleted.content) == (204, b"")
        gone = await client.delete("/books/x")
        assert (gone.status_code, gone.json()["detail"]) == (404, "there is no book “x”")
        assert (await client.get("/books/x")).status_code == 404


async def test_what_is_not_there_is_404_in_the_words_of_the_endpoint(client: httpx.AsyncClient):
    requests: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("GET", "/books/None", {}),
        ("PATCH", "/books/None", {"json": {}}),
        ("PUT", "/books/None/stock", {"json": {"stock": 1}}),
        ("DELETE", "/books/None", {}),
    )
    for method, path, sent in requests:
        answer = await client.request(method, path, **sent)
        assert answer.status_code == 404
        assert answer.json()["detail"] == "there is no book “None”"
    found = await client.get("/books/None")
    assert found.headers["cache-status"] == "diptych; fwd=bypass; detail=no-redis"
    long = await client.delete("/books/" + "x" * 200)
    assert long.json()["detail"] == f"there is no book “{'x' * 80}…”"


@pytest.mark.parametrize("number", ["x", "0", "-1", "01", "1.0", "9" * 40, "٣", "%20"])
async def test_a_path_that_no_row_can_have_is_404(client: httpx.AsyncClient, number: str):
    answer = await client.delete(f"/numbers/{number}")
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("there is no book number ")
    assert (await client.delete(f"/typed/{number}")).status_code in (404, 422)


async def test_a_whole_number_has_one_address(client: httpx.AsyncClient):
    number = (await client.post("/books", json={"title": "x"})).json()["id"]
    assert (await client.delete(f"/typed/0{number}")).status_code == 404
    assert (await client.delete(f"/typed/{number}")).status_code == 204


async def test_faults_name_their_place(client: httpx.AsyncClient):
    """A pointer into the body, or the parameter."""
    assert errors(await client.get("/books?limit=x&page=2")) == [
        {"field": "page", "detail": "is not a known field", "parameter": "page"},
        {"field": "limit", "detail": "must be a whole number", "parameter": "limit"},
    ]
    assert errors(await client.get("/books?limit=0")) == [  # found by the handler
        {"field": "limit", "detail": "must be a whole number from 1 to 500", "parameter": "limit"}
    ]
    assert errors(await client.post("/books", json={"stock": -1, "colour": 1})) == [
        {"field": "colour", "detail": "is not a known field", "pointer": "#/colour"},
        {"field": "title", "detail": "is missing", "pointer": "#/title"},
        {"field": "stock", "detail": "must be at least 0", "pointer": "#/stock"},
    ]
    assert errors(await client.put("/books/x/stock", json={"stock": -1})) == [
        {"field": "stock", "detail": "must not be negative", "pointer": "#/stock"}
    ]
    assert errors(await client.delete("/books/x?if_stock=x&other=1")) == [
        {"field": "other", "detail": "is not a known field", "parameter": "other"},
        {"field": "if_stock", "detail": "must be a whole number", "parameter": "if_stock"},
    ]


async def test_a_body_that_is_one_field_is_named_from_its_root(client: httpx.AsyncClient):
    await client.post("/books", json={"title": "x"})
    assert errors(await client.patch("/books/x", json={"title": "", "colour": 1})) == [
        {"field": "colour", "detail": "is not a known field", "pointer": "#/colour"},
        {"field": "title", "detail": "must not be empty", "pointer": "#/title"},
    ]
    both = await client.patch(f"/books/{'x' * 61}", json={"title": ""})
    assert errors(both) == [
        {"field": "title", "detail": "must have at most 60 characters", "parameter": "title"},
        {"field": "title", "detail": "must not be empty", "pointer": "#/title"},
    ]
    assert errors(await client.patch("/books/x", json=[])) == [
        {"field": "", "detail": "must be a JSON object", "pointer": "#"}
    ]
    taken = await client.post("/books", json={"title": "x"})
    assert (taken.status_code, taken.json()["errors"]) == (
        409,
        [{"field": "title", "detail": "is already taken", "pointer": "#/title"}],
    )


async def test_a_key_in_the_body_has_to_be_that_of_the_path(client: httpx.AsyncClient):
    await client.post("/books", json={"title": "7"})
    assert (await client.put("/books/7/stock", json={"title": "7", "stock": 1})).status_code == 200
    for other in ("8", 8, None, ["7"]):
        answer = await client.put("/books/7/stock", json={"title": other, "stock": 2})
        assert errors(answer) == [
            {"field": "title", "detail": "contradicts the path", "pointer": "#/title"}
        ], other
    assert (await client.get("/books/7")).json()["stock"] == 1


async def test_only_the_parameters_that_are_named_can_be_set(client: httpx.AsyncClient):
    assert [error["parameter"] for error in errors(await client.get("/books?secret=true"))] == ["secret"]
    assert [error["parameter"] for error in errors(await client.get("/books/x?title=y"))] == ["title"]
    assert errors(await client.get("/books?limit=1&limit=2")) == [
        {"field": "limit", "detail": "was sent more than once", "parameter": "limit"}
    ]
    assert (await client.get("/books?limit=&after=")).status_code == 200  # an empty one counts as absent
    assert (await client.get("/books?limit=%31")).status_code == 200
    for malformed in ("limit=%ff", "limit=%2", "&" * 100):
        assert (await client.get(f"/books?{malformed}")).status_code == 400


async def test_a_deletion_takes_no_fields_of_a_body(client: httpx.AsyncClient):
    await client.post("/books", json={"title": "x"})
    answer = await client.request("DELETE", "/books/x", json={"if_stock": 0})
    assert errors(answer) == [
        {"field": "if_stock", "detail": "is not a known field", "pointer": "#/if_stock"}
    ]
    assert (await client.delete("/books/x?if_stock=1")).status_code == 404
    assert (await client.delete("/books/x?if_stock=0")).status_code == 204


async def test_a_query_for_a_value_has_an_etag(client: httpx.AsyncClient):
    await client.post("/books", json={"title": "x"})
    answer = await client.get("/count?since=2024-12-31")
    assert (answer.status_code, answer.json(), answer.headers["cache-control"]) == (200, 1, "no-cache")
    again = await client.get("/count", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert "content-length" not in again.headers
    assert (await client.post("/clear")).status_code == 204
    assert (await client.get("/count")).json() == 0


async def test_an_answer_made_from_a_document_says_which_store_it_came_from(client: httpx.AsyncClient):
    await client.post("/books", json={"title": "x", "stock": 3})
    answer = await client.get("/books/x/stock")
    assert (answer.status_code, answer.json()) == (200, {"stock": 3})
    assert answer.headers["cache-status"] == "diptych; fwd=bypass; detail=no-redis"
    again = await client.get("/books/x/stock", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.headers["cache-status"]) == (304, answer.headers["cache-status"])
    assert (await client.get("/books/None/stock")).json()["detail"] == "there is no book “None”"


async def test_bodies_of_another_kind_are_refused(client: httpx.AsyncClient):
    text = await client.post("/books", content=b"x", headers={"Content-Type": "text/plain"})
    assert text.status_code == 415
    assert text.headers["accept"] == "application/json, application/x-www-form-urlencoded"
    form = await client.put("/books/x/stock", data={"stock": "1"})
    assert (form.status_code, form.headers["accept"]) == (415, "application/json")
    assert (await client.put("/books/x/stock", content=b"{}")).status_code == 415
    json = {"Content-Type": "application/json"}
    assert (await client.post("/books", content=b"{", headers=json)).status_code == 400
    assert (await client.post("/books", content=b" " * 1001, headers=json)).status_code == 413


async def test_methods(client: httpx.AsyncClient):
    allowed = "DELETE, GET, HEAD, OPTIONS, PATCH, POST"
    refused = await client.put("/books/x", json={})
    assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
    assert refused.headers["content-type"] == "application/problem+json"
    options = await client.options("/books/x")
    assert (options.status_code, options.headers["allow"], options.content) == (204, allowed, b"")
    assert options.headers["accept-patch"] == "application/json, application/x-www-form-urlencoded"
    assert "accept-patch" not in (await client.options("/books")).headers
    await client.post("/books", json={"title": "x"})
    got, head = await client.get("/books/x"), await client.head("/books/x")
    assert (head.status_code, head.content, head.headers) == (200, b"", got.headers)
    for path in ("/", "/books/", "/nowhere", "/books/x/y"):
        assert (await client.get(path)).status_code == 404
    assert (await client.get("/books/%ff")).status_code == 400


async def test_security_headers(client: httpx.AsyncClient):
    await client.post("/books", json={"title": "x"})
    for path in ("/books/x", "/count", "/nowhere"):
        assert (await client.get(path)).headers["x-content-type-options"] == "nosniff"
    page = await client.get("/books/x", headers=HTML)
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert page.headers["content-security-policy"] == policy


async def test_another_sites_page_may_not_write(client: httpx.AsyncClient):
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://example.com"}):
        for method, path in (("POST", "/books"), ("DELETE", "/books/x"), ("POST", "/clear")):
            answer = await client.request(method, path, headers=headers)
            assert answer.status_code == 403
    assert (await client.get("/count", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 200


async def test_browsers_get_pages_and_forms(client: httpx.AsyncClient):
    added = await client.post("/books", data={"title": "Dune", "stock": "3"}, headers=HTML)
    assert (added.status_code, added.headers["location"]) == (303, "/books/Dune")
    page = await client.get("/books/Dune", headers={**HTML, "Cookie": 'a=b; flash="hello"'})
    assert (page.headers["content-type"], page.text) == ("text/html; charset=utf-8", "<h1>Dune</h1>hello")
    assert (await client.get("/books/Dune")).json()["stock"] == 3
    again = await client.post("/books", data={"title": "Dune", "stock": "many"}, headers=HTML)
    assert (again.status_code, again.text) == (422, "Dune: stock must be a whole number")
    taken = await client.post("/books", data={"title": "Dune"}, headers=HTML)
    assert (taken.status_code, taken.text) == (409, "Dune: title is already taken")
    assert (await client.post("/books", data={"title": "Dune"})).json()["status"] == 409  # no browser
    edited = await client.patch("/books/Dune", data={"stock": "4"}, headers=HTML)
    assert (edited.status_code, edited.headers["location"], edited.headers["set-cookie"]) == (
        *(303, "/edited"),
        "flash=done",
    )
    assert (await client.get("/books/None", headers=HTML)).status_code == 404


async def test_a_form_may_have_to_name_its_method(client: httpx.AsyncClient):
    await client.post("/books", json={"title": "Dune"})
    for sent in ({}, {"_method": "PUT"}):
        assert [error["field"] for error in errors(await client.post("/books/Dune", data=sent))] == [
            "_method"
        ]
    changed = await client.post("/books/Dune", data={"_method": "PATCH", "title": "a b"})
    assert (changed.status_code, changed.headers["location"]) == (303, "/books/a%20b")  # of the result
    twice = await client.post("/books/a%20b", content="_method=PATCH&stock=1&stock=2", headers=FORM)
    assert errors(twice) == [{"field": "stock", "detail": "was sent more than once", "pointer": "#/stock"}]


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def test_the_application_starts_and_stops_with_the_server(sqlite_url: str):
    app = endpoints_app(shop(configured(sqlite_url)), ENDPOINTS)
    said: list[Any] = []
    steps = iter(["lifespan.startup", "lifespan.shutdown"])
    scope = {"type": "http", "method": "GET", "path": "/count", "query_string": b"", "headers": []}

    async def receive() -> dict[str, Any]:
        if (step := next(steps)) == "lifespan.shutdown":
            await app(dict(scope), receive, send)  # between the two it answers
        return {"type": step}

    async def send(message: Any) -> None:
        said.append(message.get("status", message["type"]))

    await app({"type": "lifespan"}, receive, send)
    assert said == [
        *("lifespan.startup.complete", 200, "http.response.body"),
        "lifespan.shutdown.complete",
    ]
    said.clear()
    await app(dict(scope), receive, send)
    assert said[0] == 500  # it is not started any more


async def test_a_start_that_fails_is_told_to_the_server():
    app = endpoints_app(shop(configured("sqlite:////nowhere/at/all.db")), ENDPOINTS)
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        said.append(message["type"])

    with pytest.raises(Exception, match="nowhere"):
        await app({"type": "lifespan"}, receive, send)
    assert said == ["lifespan.startup.failed"]


async def test_the_documentation_is_served(client: httpx.AsyncClient):
    for path, kind in PAGES.items():
        page = await client.get(path)
        assert (page.status_code, page.headers["content-type"]) == (200, kind)
        again = await client.get(path, headers={"If-None-Match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert (await client.head(path)).headers["etag"] == page.headers["etag"]
        refused = await client.post(path)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert (await client.get("/openapi.json")).json()["info"]["version"] == "2"
    assert (await client.get("/count")).json() == 0


PAGES = {
    "/openapi.json": "application/json",
    "/docs": "text/html; charset=utf-8",
    "/docs.css": "text/css; charset=utf-8",
}
