"""What `install` gives to an application of FastAPI, with routes of its own beside endpoints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import pytest
import sqlalchemy as sa
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, HTTPException, Query
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from openapi_spec_validator import validate
from pydantic import BaseModel, Field, ValidationError, create_model, model_validator
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.applications import Starlette
from starlette.authentication import AuthenticationBackend
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from diptych import Diptych, Document, Health, Page, WiringError
from diptych.errors import NotStartedError
from diptych.ext.fastapi import diptych_of, install, provide, router, session
from diptych.ext.starlette import install as install_into_starlette
from diptych.http import hot_routes
from tests.integration.http_suite.applications import running
from tests.integration.http_suite.site import (
    ENDPOINTS,
    AddBook,
    Book,
    BookDocument,
    Books,
    EditBook,
    GetBook,
    ListBooks,
    shelf,
)

Shelf = Annotated[Diptych, provide(Diptych)]
BookPages = Annotated[Books, provide(Books)]
Session = Annotated[AsyncSession, session()]
Flushing = Annotated[AsyncSession, session(commit="flush")]


class Note(BaseModel):
    text: str = Field(min_length=1)
    stars: int | None = None


class Shown(BaseModel):
    book: Document[BookDocument]
    note: str


async def emma(books: BookPages) -> Document[BookDocument]:
    return await books.get("Emma")


def add_routes(app: FastAPI) -> None:
    @app.post("/own/books", status_code=201)
    async def add(command: AddBook, shelf: Shelf) -> Document[BookDocument]:
        await shelf.execute(command)
        return await shelf.ask(GetBook(title=command.title))

    @app.get("/own/books")
    async def page(books: BookPages, tasks: BackgroundTasks) -> Page[BookDocument]:
        tasks.add_task(done.append, "task")
        return await books.page(limit=10)

    @app.get("/own/books/{title}")
    async def book(title: str, books: BookPages) -> Document[BookDocument]:
        return await books.get(title)

    @app.get("/own/numbers/{number}")
    async def by_number(number: int, books: BookPages) -> Document[BookDocument]:
        found = await books.get(id=number)
        if not found:
            raise HTTPException(404, f"no book has the number {number}", {"X-Why": "none"})
        return found

    @app.get("/own/shown/{title}")
    async def shown(title: str, books: BookPages) -> Shown:
        return Shown(book=await books.get(title), note='"diptych:00"')

    @app.get("/own/several")
    async def several(books: BookPages) -> list[Document[BookDocument]]:
        return await books.get_many(["Emma", "nothing"])

    @app.get("/own/sync")
    def sync(found: Annotated[Document[BookDocument], Depends(emma)]) -> Document[BookDocument]:
        return found

    @app.get("/own/health")
    async def health(shelf: Shelf) -> Health:
        return await shelf.health()

    @app.post("/own/notes")
    async def note(note: Note, stars: Annotated[int, Query(ge=1)], x_lang: Annotated[str, Header()]) -> None:
        return None

    @app.post("/own/pair")
    async def pair(command: AddBook, note: Note) -> str:
        return command.title

    @app.post("/own/session")
    async def by_session(db: Session, shelf: Shelf, title: str, fail: bool = False) -> int:
        db.add(Book(title=title, pages=1))
        await db.flush()
        await shelf.execute(AddBook(title=f"{title}, again"))  # joins the transaction
        if fail:
            raise HTTPException(409, "no")
        return (await db.scalars(sa.select(sa.func.count()).select_from(Book))).one()

    @app.post("/own/flushing")
    async def flushing(db: Flushing, title: str) -> None:
        db.add(Book(title=title, pages=1))
        await db.commit()

    @app.get("/own/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"a", b"b"]), media_type="text/plain")

    @app.get("/own/refused")
    async def refused() -> None:
        raise HTTPException(418, {"short": "and stout"})

    @app.get("/own/broken")
    async def broken() -> Note:
        return {"text": 5}  # type: ignore[return-value]


done: list[str] = []


@pytest.fixture
def diptych(tmp_path: Path) -> Diptych:
    return shelf(f"sqlite:///{tmp_path / 'books.db'}")


@pytest.fixture
async def client(diptych: Diptych) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    install(app, diptych, ENDPOINTS)
    add_routes(app)  # after it, as may be
    async with running(app) as client:
        await client.post("/books", json={"title": "Emma", "pages": 7})
        yield client


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    return found


EMMA = b'{"id":1,"title":"Emma","pages":7}'


async def test_documents_and_pages_are_sent_as_they_are_stored(client: httpx.AsyncClient):
    endpoint, own = await client.get("/books/Emma"), await client.get("/own/books/Emma")
    assert own.content == EMMA
    assert dict(own.headers) == dict(endpoint.headers)
    again = await client.get("/own/books/Emma", headers={"If-None-Match": own.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = await client.head("/own/books/Emma")
    assert (head.content, head.headers["content-length"]) == (b"", str(len(EMMA)))
    page = await client.get("/own/books")
    assert page.content == b'{"items":[%s],"next":null}' % EMMA
    assert page.headers["etag"] == (await client.get("/books")).headers["etag"]
    assert done == ["task"]
    problem(await client.get("/own/books/Dune"), 404)
    added = await client.post("/own/books", json={"title": "AC/DC"})
    assert (added.status_code, added.json()["title"]) == (201, "AC/DC")
    assert (await client.get("/own/books/AC%2FDC")).json() == added.json()
    assert (await client.get("/own/sync")).content == EMMA


async def test_documents_inside_other_answers_are_the_stored_bytes_too(client: httpx.AsyncClient):
    shown = await client.get("/own/shown/Emma")
    assert shown.content == b'{"book":%s,"note":"\\"diptych:00\\""}' % EMMA
    assert shown.headers["content-length"] == str(len(shown.content))
    assert (await client.get("/own/several")).content == b"[%s,null]" % EMMA
    assert (await client.get("/own/stream")).text == "ab"
    assert (await client.get("/own/health")).json()["status"] == "ok"


async def test_what_fastapi_refuses_is_a_problem_like_any_other(client: httpx.AsyncClient):
    answer = await client.post("/own/books", json={"title": "", "colour": "red"})
    assert [(one["pointer"], one["detail"]) for one in problem(answer, 422)["errors"]] == [
        ("#/colour", "is not a known field"),
        ("#/title", "must not be empty"),
    ]
    answer = await client.post("/own/notes?stars=0", json={"text": "", "stars": "x"})
    refused = problem(answer, 422)
    assert refused["detail"] == "4 fields are wrong; see errors"
    no_number = "must be a valid integer, unable to parse string as an integer"
    assert refused["errors"] == [
        {"field": "text", "detail": "must have at least 1 character", "pointer": "#/text"},
        {"field": "stars", "detail": no_number, "pointer": "#/stars"},
        {"field": "stars", "detail": "must be greater than or equal to 1", "parameter": "stars"},
        {"field": "x-lang", "detail": "is missing", "parameter": "x-lang"},
    ]
    answer = await client.post("/own/pair", json={"command": {"name": 1}, "note": {}})
    assert [one["pointer"] for one in problem(answer, 422)["errors"]] == [
        "#/command/name",
        "#/command/title",
        "#/note/text",
    ]
    json_kind = {"Content-Type": "application/json"}
    problem(await client.post("/own/books", content=b"{", headers=json_kind), 400)
    problem(await client.post("/own/books", content=b"{}", headers={"Content-Type": "text/plain"}), 415)
    problem(await client.post("/own/books"), 422)
    answer = await client.get("/own/numbers/x")
    assert problem(answer, 422)["errors"][0]["parameter"] == "number"


async def test_errors_that_the_application_makes_itself_are_problems_too(diptych: Diptych):
    app = FastAPI()
    install(app, diptych)
    made: list[Any] = []

    @app.get("/checked")
    async def checked() -> None:
        raise RequestValidationError(made)

    class Dates(BaseModel):
        first: int
        last: int

        @model_validator(mode="after")
        def in_order(self) -> Dates:
            if self.first > self.last:
                raise ValueError("must be in order")
            return self

    with pytest.raises(ValidationError) as disorder:
        Dates(first=2, last=1)
    with pytest.raises(ValidationError) as no_number:
        Dates.model_validate({"first": "x", "last": 1})
    async with running(app) as client:
        for errors, field, detail in (
            (disorder.value.errors(), "", "must be in order"),
            (
                no_number.value.errors(),
                "first",
                "must be a valid integer, unable to parse string as an integer",
            ),
            ([{"loc": ["body", "a", 0], "msg": "Is odd"}], "a.0", "is odd"),
            ([{"loc": ("query",), "msg": "Is odd"}], "query", "is odd"),
            (["Is odd"], "", "is odd"),
        ):
            made[:] = errors
            found = problem(await client.get("/checked"), 422)["errors"]
            assert [(one["field"], one["detail"]) for one in found] == [(field, detail)]


async def test_faults_of_a_union_are_named_by_their_fields(diptych: Diptych):
    app = FastAPI()
    install(app, diptych)

    @app.post("/either")
    async def either(sent: AddBook | EditBook | list[AddBook]) -> None: ...

    async with running(app) as client:
        found = problem(await client.post("/either", json={"colour": 1}), 422)["errors"]
        assert {one["field"] for one in found} == {"", "colour", "title", "changes"}
        assert len({(one["field"], one["detail"]) for one in found}) == len(found)


async def test_exceptions_of_the_framework_are_problems_with_their_headers(client: httpx.AsyncClient):
    answer = await client.get("/own/numbers/7")
    assert problem(answer, 404)["detail"] == "no book has the number 7"
    assert answer.headers["x-why"] == "none"
    assert json.loads(problem(await client.get("/own/refused"), 418)["detail"]) == {"short": "and stout"}
    answer = await client.put("/own/books/Emma")
    problem(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    problem(await client.get("/own/broken"), 500)


@pytest.mark.parametrize("status", [204, 304])
async def test_an_exception_with_a_status_that_has_no_body_is_sent_without(diptych: Diptych, status: int):
    app = FastAPI()
    install(app, diptych)

    @app.get("/unchanged")
    async def unchanged() -> None:
        raise HTTPException(status, headers={"ETag": '"1"'})

    async with running(app) as client:
        answer = await client.get("/unchanged")
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (status, b"", '"1"')
        assert not {"content-type", "content-length"} & answer.headers.keys()


async def test_a_session_is_a_transaction_of_the_request(client: httpx.AsyncClient, diptych: Diptych):
    headers = {"X-Request-ID": "request-9", "X-User": "jane"}
    answer = await client.post("/own/session?title=Dune", headers=headers)
    assert (answer.status_code, answer.json()) == (200, 3)
    assert (await client.get("/own/books/Dune")).json()["title"] == "Dune"
    problem(await client.post("/own/session?title=Persuasion&fail=true"), 409)
    problem(await client.get("/own/books/Persuasion"), 404)
    assert (await client.post("/own/flushing?title=Sanditon")).status_code == 200
    assert (await client.get("/own/books/Sanditon")).status_code == 200
    async with diptych.orm.session() as db:
        log = "SELECT DISTINCT correlation_id, actor FROM diptych_log WHERE correlation_id IS NOT NULL"
        assert (await db.execute(sa.text(log))).all() == [("request-9", "jane")]


async def test_handlers_of_the_applications_own_come_first(diptych: Diptych):
    app = FastAPI()

    @app.exception_handler(HTTPException)
    async def own(_: Any, error: HTTPException) -> Any:
        return PlainTextResponse("mine", error.status_code)

    install(app, diptych, ENDPOINTS)
    add_routes(app)
    async with running(app) as client:
        assert (await client.get("/own/refused")).text == "mine"


@pytest.mark.parametrize("kind", [500, Exception])
@pytest.mark.parametrize("make", [FastAPI, Starlette])
async def test_a_handler_of_unforeseen_errors_comes_first_too(make: Any, kind: Any, diptych: Diptych):
    def own(*_: Any) -> Any:
        return PlainTextResponse("mine", 500)

    async def fail(_: Request) -> Any:
        raise RuntimeError

    app = make(exception_handlers={kind: own}, routes=[Route("/fail", fail)])
    install_into_starlette(app, diptych)
    async with running(app) as client:
        assert (await client.get("/fail")).text == "mine"


async def test_the_applications_lifespan_runs_within(diptych: Diptych):
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        seen.append((await diptych.health()).status)
        yield {"key": "value"}
        seen.append((await diptych.health()).status)

    app = FastAPI(lifespan=lifespan)
    install(app, diptych)
    async with running(app):
        assert app.state.diptych is diptych
    assert seen == ["ok", "ok"]
    with pytest.raises(NotStartedError):
        await diptych.health()


def test_diptych_is_installed_once_and_before_the_first_request(diptych: Diptych):
    app = FastAPI()
    install(app, diptych)
    with pytest.raises(WiringError, match="install it once"):
        install(app, diptych)
    served = FastAPI()
    served.middleware_stack = served.build_middleware_stack()
    with pytest.raises(WiringError, match="install diptych before"):
        install(served, diptych)
    with pytest.raises(NotStartedError, match="has no Diptych"):
        diptych_of(Request({"type": "http", "app": FastAPI()}))


def staff(authorization: Annotated[str | None, Header()] = None) -> None:
    if authorization != "Bearer staff":
        raise HTTPException(401, "who are you?", {"WWW-Authenticate": "Bearer"})


async def test_endpoints_may_have_guards_and_a_prefix(diptych: Diptych):
    app = FastAPI()
    install(app, diptych)
    app.include_router(router(ENDPOINTS), prefix="/api", dependencies=[Depends(staff)], tags=["shelf"])
    async with running(app) as client:
        refused = await client.get("/api/books")
        problem(refused, 401)
        assert refused.headers["www-authenticate"] == "Bearer"
        allowed = {"Authorization": "Bearer staff"}
        assert (await client.get("/api/books", headers=allowed)).status_code == 200
        await client.post("/api/books", json={"title": "AC/DC"}, headers=allowed)
        assert (await client.get("/api/books/AC%2FDC", headers=allowed)).status_code == 200
        assert (await client.options("/api/books")).headers["allow"] == "GET, HEAD, OPTIONS, POST"
        document = app.openapi()
        assert document["paths"]["/api/books"]["get"]["tags"] == ["shelf"]
        names = [one["name"] for one in document["paths"]["/api/books"]["get"]["parameters"]]
        assert names == ["limit", "after", "authorization"]


async def start(app: Starlette) -> None:
    async with running(app):
        pass


async def test_hot_queries_heed_the_middleware_of_the_application(diptych: Diptych):
    app = FastAPI()
    install(app, diptych, ENDPOINTS, hot=hot_routes(ENDPOINTS))
    app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"])
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["books.example"])
    async with running(app) as client:
        await client.post("/books", json={"title": "Emma"})
        answer = await client.get("/books/Emma", headers={"Origin": "https://shop.example"})
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert (await client.get("/books/Emma", headers={"Host": "evil.example"})).status_code == 400


@pytest.mark.parametrize("is_traced", [False, True])
async def test_without_middleware_hot_queries_are_answered_first_of_all(
    diptych: Diptych, is_traced: bool, monkeypatch: pytest.MonkeyPatch
):
    app = FastAPI()
    seen: list[str] = []
    answer = ServerErrorMiddleware.__call__

    async def noted(self: Any, scope: Any, receive: Any, send: Any) -> None:
        seen.append(f"{scope.get('method')} {scope.get('path')}")
        await answer(self, scope, receive, send)

    monkeypatch.setattr(ServerErrorMiddleware, "__call__", noted)
    if is_traced:  # by a tool that puts itself around what this function returns
        app.build_middleware_stack = app.build_middleware_stack  # type: ignore[method-assign]
    install(app, diptych, ENDPOINTS, hot=hot_routes(ENDPOINTS), security_headers={"X-Own": "yes"})
    async with running(app) as client:
        await client.post("/books", json={"title": "Emma"})
        seen.clear()
        answers = [await client.request(method, "/books/Emma") for method in ("GET", "HEAD")]
        headers = [dict(answer.headers) for answer in answers]
        assert headers[0] == headers[1]
        assert headers[0]["x-own"] == "yes"
        assert headers[0]["x-content-type-options"] == "nosniff"
        assert (answers[0].json()["title"], answers[1].content) == ("Emma", b"")
        assert (await client.get("/books/none")).status_code == 404
        framework = ["GET /books/Emma", "GET /books/none"]  # HEAD is made from GET
        assert seen == (["GET /books/Emma", *framework] if is_traced else framework)


@pytest.mark.parametrize(
    ("dependencies", "hot", "says"),
    [
        ([Depends(staff)], {"/books/{title}": GetBook}, "without the dependency staff of its route"),
        ([], {"/elsewhere/{title}": GetBook}, "the application has no such route"),
        ([], {"/books?nothing": ListBooks}, "has no field 'nothing'"),
    ],
)
async def test_hot_queries_that_would_pass_by_something_are_refused_at_start(
    diptych: Diptych, dependencies: list[Any], hot: Any, says: str
):
    app = FastAPI(dependencies=dependencies)
    install(app, diptych, ENDPOINTS, hot=hot)
    with pytest.raises(WiringError, match=says):
        await start(app)


class Guarded(APIRoute):
    """A class of routes that refuses everybody."""

    def get_route_handler(self) -> Any:
        async def refuse(request: Request) -> Any:
            raise HTTPException(401)

        return refuse


async def test_hot_queries_are_refused_at_start_where_their_route_has_a_class_of_its_own(diptych: Diptych):
    app = FastAPI()
    install(app, diptych, hot={"/books/{title}": GetBook})
    app.include_router(router(ENDPOINTS, route_class=Guarded))
    with pytest.raises(WiringError, match="without get_route_handler of Guarded, the class of its route"):
        await start(app)


async def test_hot_queries_are_refused_at_start_where_their_route_has_middleware(diptych: Diptych):
    def refusing(inner: Any) -> Any:
        async def refuse(scope: Any, receive: Any, send: Any) -> None:
            await PlainTextResponse("no", 401)(scope, receive, send)

        return refuse

    async def book(request: Request) -> PlainTextResponse:
        return PlainTextResponse("a book")

    for middleware in (
        Middleware(refusing),
        Middleware(AuthenticationMiddleware, backend=AuthenticationBackend()),
    ):
        app = Starlette(routes=[Route("/books/{title}", book, middleware=[middleware])])
        install_into_starlette(app, diptych, hot={"/books/{title}": GetBook})
        with pytest.raises(WiringError, match="without the middleware of its route"):
            await start(app)
    app = Starlette(routes=[Route("/books/{title}", book)])
    install_into_starlette(app, diptych, hot={"/books/{title}": GetBook})
    await start(app)


async def test_routes_with_a_parameter_in_a_part_of_a_segment_go_on(diptych: Diptych):
    app = FastAPI()

    @app.get("/files/{name}.{ext}/{title}")
    async def file(name: str, ext: str, title: str) -> list[str]:
        return [name, ext, title]

    @app.get("/own/books/{title}:read")
    async def read(title: str) -> str:
        return title

    install(app, diptych, ENDPOINTS, hot=hot_routes(ENDPOINTS))
    async with running(app) as client:
        assert (await client.get("/files/a.txt/Emma")).json() == ["a", "txt", "Emma"]
        assert (await client.get("/files/a.txt/AC%2FDC")).json() == ["a", "txt", "AC/DC"]
        assert (await client.get("/files/a/AC%2FDC")).status_code == 404
        assert (await client.get("/own/books/Emma:read")).json() == "Emma"
        await client.post("/books", json={"title": "Emma"})
        assert (await client.get("/books/Emma")).headers["cache-status"].startswith("diptych; ")
    app = FastAPI()
    app.add_api_route("/books/{title}:read", read)
    install(app, diptych, ENDPOINTS, hot=hot_routes(ENDPOINTS))
    with pytest.raises(WiringError, match=r"paths for the route .*:read may fit it too"):
        await start(app)


async def test_a_mounted_application_says_which_methods_it_allows(diptych: Diptych, tmp_path: Path):
    (tmp_path / "books").write_text("a file")
    app = FastAPI()
    install(app, diptych, ENDPOINTS)
    app.mount("/static", StaticFiles(directory=tmp_path))
    async with running(app) as client:
        assert (await client.get("/static/books")).text == "a file"
        for name in ("books", "nothing.css"):
            answer = await client.post(f"/static/{name}")
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
            assert answer.headers["content-type"] == "application/problem+json"
        answer = await client.options("/static/books")
        assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


async def test_an_invalid_parameter_is_named_whatever_its_type_is(diptych: Diptych):
    app = FastAPI()

    @app.get("/several")
    async def several(tags: Annotated[list[int], Query()], limit: int | Literal["all"] = "all") -> None:
        return None

    install(app, diptych)
    async with running(app) as client:
        for sent, name in (("tags=1&tags=x", "tags"), ("tags=1&limit=x", "limit")):
            errors = (await client.get(f"/several?{sent}")).json()["errors"]
            assert {error["parameter"] for error in errors} == {name}


async def test_dependencies_of_diptych_are_no_guards(diptych: Diptych):
    app = FastAPI()
    install(app, diptych, hot={"/own/books/{title}": GetBook})
    add_routes(app)
    async with running(app) as client:
        assert (await client.get("/own/books/Dune")).status_code == 404


def test_the_openapi_document_is_valid_and_has_all_routes(diptych: Diptych):
    app = FastAPI(title="Shelf")
    install(app, diptych, ENDPOINTS)
    add_routes(app)
    document = app.openapi()
    assert document is app.openapi()
    validate(document)
    paths, schemas = document["paths"], document["components"]["schemas"]
    assert [one["name"] for one in paths["/books"]["get"]["parameters"]] == ["limit", "after"]
    assert set(paths["/books/{title}"]) == {"get", "patch", "delete"}
    assert "/by-number/{id}" in paths
    answer = paths["/books/{title}"]["get"]["responses"]
    assert answer["200"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/BookDocument"
    }
    own = paths["/own/books/{title}"]["get"]["responses"]
    assert own["200"]["content"] == answer["200"]["content"]
    assert own["422"]["content"]["application/problem+json"]["schema"] == {
        "$ref": "#/components/schemas/Problem"
    }
    assert "HTTPValidationError" not in json.dumps(document)
    assert not [name for name in schemas if name.endswith("_") or "__" in name]


def test_two_schemas_of_one_name_are_both_there(diptych: Diptych):
    app = FastAPI()

    app.add_api_route("/other", list, response_model=create_model("BookDocument", number=(int, ...)))
    install(app, diptych, ENDPOINTS)
    document = app.openapi()
    validate(document)
    assert set(document["components"]["schemas"]) >= {"BookDocument", "BookDocument_"}


async def test_a_router_of_the_applications_own_works_as_its_routes_do(diptych: Diptych):
    app, own = FastAPI(), APIRouter(prefix="/deep")

    @own.get("/books/{title}/x")
    async def book(title: str, books: BookPages) -> Document[BookDocument]:
        return await books.get(title)

    app.include_router(own)
    install(app, diptych, ENDPOINTS)
    async with running(app) as client:
        await client.post("/books", json={"title": "AC/DC"})
        assert (await client.get("/deep/books/AC%2FDC/x")).json()["title"] == "AC/DC"
        assert (await client.get("/deep/books/Emma/x")).status_code == 404


async def test_requests_at_once_get_their_own_answers(client: httpx.AsyncClient):
    await client.post("/books", json={"title": "Dune"})
    titles = ["Emma", "Dune"] * 20
    answers = await asyncio.gather(*(client.get(f"/own/shown/{title}") for title in titles))
    assert [one.json()["book"]["title"] for one in answers] == titles


async def test_what_is_wrong_with_a_message_that_a_route_makes_is_a_parameter_where_no_body_is_sent(
    diptych: Diptych,
):
    """A message is made of the parameters of a GET, and of the body of a POST."""
    app = FastAPI()

    @app.get("/made")
    @app.post("/made")
    async def made(limit: int) -> int:
        return ListBooks(limit).limit

    @app.get("/paged")
    async def paged(after: str, books: BookPages) -> Page[BookDocument]:
        return await books.page(after=after)

    install(app, diptych)
    async with running(app) as client:
        for method, kind in (("GET", "parameter"), ("POST", "pointer")):
            (error,) = (await client.request(method, "/made?limit=0")).json()["errors"]
            assert (error["field"], kind in error) == ("limit", True)
        (error,) = (await client.get("/paged?after=x")).json()["errors"]
        assert (error["field"], error["parameter"]) == ("after", "after")
