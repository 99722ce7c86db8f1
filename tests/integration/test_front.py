"""The front: what it answers itself is what the framework would have answered, and everything else goes on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

import httpx
import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from litestar import Litestar, Request, Response, asgi, get
from litestar.config.cors import CORSConfig
from litestar.params import FromPath
from msgspec import Meta, defstruct
from sqlalchemy.orm import DeclarativeBase

from demo_app.app import create_app
from demo_app.catalogue import create_catalogue
from demo_app.messages import (
    AddBook,
    AddReview,
    BookTags,
    DeleteBook,
    GetBook,
    ListBooks,
    NewReview,
    SetTags,
)
from diptych import ConfigService, Diptych, Document, Query, Served, WiringError
from diptych.ext.litestar import DiptychPlugin, asgi_app
from diptych.http import Front, query_app
from tests.catalogue import answered_by, catalogue, redis_side_of
from tests.configuration import configured
from tests.servers import RedisServer

TITLES = [
    "Dune",
    "AC/DC",
    "action",
    "a b",
    "Ünïcode ☃",
    "100%",
    "~._-",
    "1984",
    "edit",
    "...",
    "x=y",
    "a+b",
    "'",
]
ACCEPTED = [
    *(
        "",
        "application/json",
        "*/*",
        "text/html",
        "text/*",
        "text/html, application/json",
        "text/html;q=0.5, */*",
    ),
    *("application/json;q=0.1, */*", "*/*;q=0.1", "image/png", "text/html,application/xhtml+xml,*/*;q=0.8"),
]


class Base(DeclarativeBase):
    pass


class Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Asked:
    """An ASGI application that is asked within this process; ``went_on`` counts what the framework was asked."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.framework = front._app
        self.went_on = 0
        front._app = self._count

    async def _count(self, scope: Any, receive: Any, send: Any) -> None:
        self.went_on += 1
        await self.framework(scope, receive, send)


async def ask(app: Any, method: str, path: bytes, query: bytes = b"", **headers: str) -> Answer:
    """Asks as a server would. Header names have ``_`` for ``-``; empty ones are left out."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"books.test")]
        + [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items() if value],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }
    return await _answer_to(app, scope)


async def _answer_to(app: Any, scope: Mapping[str, Any]) -> Answer:
    sent: list[dict[str, Any]] = []
    requests = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        return requests.pop() if requests else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(dict(scope), receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    headers = {bytes(name).lower(): bytes(value) for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], headers, body)


@pytest.fixture(scope="module", params=["sql", "redis"])
def asked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[asyncio.Runner, Asked]]:
    """The demo with some books, served by each store, and the loop that it runs in."""
    url = f"sqlite:///{tmp_path_factory.mktemp('front') / 'books.db'}"
    valkey = request.getfixturevalue("valkey_of_module") if request.param == "redis" else None
    config = configured(url, valkey.url if valkey else None)
    front = create_app(config)
    assert isinstance(front, Front)
    with asyncio.Runner() as runner:
        runner.run(_fill(front, request.param))
        yield runner, Asked(front)
        runner.run(front.diptych.stop())


async def _fill(front: Front, store: str) -> None:
    await front.diptych.start()
    for title in TITLES:
        await front.diptych.execute(AddBook(title=title, author=f"the author of {title}"))
    await answered_by(front.diptych, store)


def _paths() -> st.SearchStrategy[bytes]:
    """Returns paths of books that there are or not, encoded in several ways, and other paths."""
    title = st.sampled_from(TITLES) | st.text(max_size=5)
    encoded = title.map(lambda text: quote(text, safe="", errors="replace"))
    loose = title.map(lambda text: quote(text, safe="/'+=!$&%", errors="replace"))
    segment = encoded | loose | encoded.map(str.lower) | st.text("%abc2F.~-_/ é", max_size=6)
    path = st.builds(
        "/books/{}{}".format, segment, st.sampled_from(["", "", "", "/", "/edit", "/action/add", "?"])
    )
    fixed = st.sampled_from(["/books", "/books/", "//books", "/books/action/add", "/", "/static/style.css"])
    return (path | path | fixed).map(lambda text: text.encode("utf-8", "surrogatepass"))


def _queries() -> st.SearchStrategy[bytes]:
    value = st.sampled_from(
        ["1", "2", "500", "501", "0", "-1", "x", "", "%31", "RHVuZQ", "RHVuZQBE", "1e0", "٣"]
    )
    pair = st.builds("{}={}".format, st.sampled_from(["limit", "after", "title", "x", ""]), value)
    joined = st.lists(pair, max_size=3).map("&".join)
    return (st.just("") | joined).map(lambda text: text.encode())


@given(
    method=st.sampled_from(["GET", "GET", "GET", "HEAD", "OPTIONS"]),
    path=_paths(),
    query=_queries(),
    accept=st.sampled_from(ACCEPTED),
    known=st.sampled_from(["", "*", '"x"', "same"]),
)
@example(method="GET", path=b"/books/Dune", query=b"", accept="", known="same")
@example(method="GET", path=b"/books", query=b"limit=2", accept="*/*", known="same")
@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_it_answers_as_the_framework_does(
    asked: tuple[asyncio.Runner, Asked], method: str, path: bytes, query: bytes, accept: str, known: str
):
    runner, app = asked

    async def both() -> tuple[Answer, Answer]:
        tag = known
        if known == "same":
            tag = (
                (await ask(app.framework, "GET", path, query, accept=accept))
                .headers.get(b"etag", b"")
                .decode()
            )
        return (
            await ask(app.front, method, path, query, accept=accept, if_none_match=tag),
            await ask(app.framework, method, path, query, accept=accept, if_none_match=tag),
        )

    ours, theirs = runner.run(both())
    assert ours == theirs


@pytest.mark.parametrize("title", TITLES)
def test_the_path_of_a_book_does_not_reach_the_framework(asked: tuple[asyncio.Runner, Asked], title: str):
    runner, app = asked
    before = app.went_on
    answer = runner.run(ask(app.front, "GET", b"/books/" + quote(title, safe="").encode()))
    assert (answer.status, app.went_on) == (200, before)
    assert f"the author of {title}".encode() in answer.body
    otherwise = "".join(f"%{octet:02x}" for octet in title.encode())
    assert runner.run(ask(app.front, "GET", f"/books/{otherwise}".encode())) == answer
    assert app.went_on == before
    same = runner.run(
        ask(
            app.front,
            "GET",
            b"/books/" + quote(title, safe="").encode(),
            if_none_match=answer.headers[b"etag"].decode(),
        )
    )
    assert (same.status, same.body, app.went_on) == (304, b"", before)


def test_a_page_does_not_reach_the_framework(asked: tuple[asyncio.Runner, Asked]):
    runner, app = asked
    before = app.went_on
    first = runner.run(ask(app.front, "GET", b"/books", b"limit=5", accept="application/json"))
    cursor = first.body.rpartition(b'"next":"')[2].rstrip(b'"}')
    second = runner.run(ask(app.front, "GET", b"/books", b"limit=5&after=" + cursor))
    assert (first.status, second.status, app.went_on) == (200, 200, before)
    assert first.headers[b"etag"] != second.headers[b"etag"]


async def test_the_tag_is_the_same_from_either_store(sqlite_url, valkey):
    tags: dict[bytes, set[bytes]] = {}
    began = {"sql": b"diptych; fwd", "redis": b"diptych; hit"}
    for store, redis_url in (("sql", None), ("redis", valkey.url)):
        front = create_app(configured(sqlite_url, redis_url))
        assert isinstance(front, Front)
        async with front.diptych as app:
            if store == "sql":
                await app.execute(AddBook(title="Dune", author="x"))
            await answered_by(app, store)
            for path in (b"/books/Dune", b"/books"):
                answer = await ask(front, "GET", path)
                assert answer.headers[b"cache-status"].startswith(began[store])
                tags.setdefault(path, set()).add(answer.headers[b"etag"])
    assert all(len(found) == 1 for found in tags.values())


async def test_an_acknowledged_change_is_in_the_next_answer(database_url, valkey):
    front = create_app(configured(database_url, valkey.url))
    assert isinstance(front, Front)
    async with front.diptych as app:
        await answered_by(app, "redis")
        for number in range(50):
            await app.execute(AddBook(title="Dune", author=f"author {number}"))
            answer = await ask(front, "GET", b"/books/Dune")
            assert f"author {number}".encode() in answer.body
            await app.execute(DeleteBook(title="Dune"))
            assert (await ask(front, "GET", b"/books/Dune")).status == 404


async def test_a_book_with_reviews_and_lists_by_tag_and_rating_are_one_command_of_redis(sqlite_url, valkey):
    front = create_app(configured(sqlite_url, valkey.url, lease_ms=30_000))
    assert isinstance(front, Front)
    async with front.diptych as app:
        await app.execute(AddBook(title="Dune", author="x"))
        await app.execute(AddReview(title="Dune", review=NewReview(4, "Good")))
        await app.execute(SetTags(title="Dune", tags=BookTags(["sf", "classic"])))
        await answered_by(app, "redis")
        for keeper in redis_side_of(app).keepers.values():
            await keeper.stop()
        for path, query, script in (
            (b"/books/Dune", b"", False),
            (b"/books", b"sort=-rating", True),
            (b"/books", b"tag=sf&sort=-rating", True),
            (b"/tags", b"", True),
        ):
            before = _calls(valkey)
            for _ in range(20):
                answer = await ask(front, "GET", path, query)
                assert (answer.status, answer.headers[b"cache-status"]) == (200, b"diptych; hit")
            after = _calls(valkey)
            asked = {name: after[name] - before.get(name, 0) for name in ("mget", "evalsha_ro", "evalsha")}
            # The script calls MGET itself, once.
            assert asked == {"mget": 20, "evalsha_ro": 20 if script else 0, "evalsha": 0}, (path, query)


def _calls(server: RedisServer) -> dict[str, int]:
    """How often each command was called; those inside scripts too."""
    with redis.Redis.from_url(server.url) as client:
        stats: Any = client.info("commandstats")
        return {name.removeprefix("cmdstat_"): values["calls"] for name, values in stats.items()}


async def test_what_is_unavailable_is_answered_as_the_framework_does(sqlite_url, valkey):
    config = ConfigService(environ={}, database_url=sqlite_url, redis_url=valkey.url, redis_critical=True)
    front = create_app(config)
    assert isinstance(front, Front)
    async with front.diptych as app:
        await answered_by(app, "redis")
        valkey.kill()
        asked = Asked(front)
        answer = await ask(front, "GET", b"/books/Dune")
        assert (answer.status, asked.went_on) == (503, 0)
        assert answer == await ask(asked.framework, "GET", b"/books/Dune")


def _site(*handlers: Any) -> Litestar:
    app = catalogue("sqlite:///unused.db", None)
    return Litestar(list(handlers), plugins=[DiptychPlugin(app)], openapi_config=None, logging_config=None)


@get("/books/{title:str}")
async def book(title: FromPath[str]) -> str:
    return title


@get("/books/new")
async def new() -> str:
    return "new"


@get("/{page:str}/imprint")
async def imprint(page: FromPath[str]) -> str:
    return page


def test_a_route_that_is_named_more_exactly_is_not_taken():
    front = asgi_app(_site(book, new, imprint), hot={"/books/{title}": GetBook})
    assert isinstance(front, Front)

    def query_of(path: bytes) -> object:
        return front._query_of(
            {"raw_path": path, "headers": [], "query_string": b"", "type": "http", "root_path": ""}
        )

    assert query_of(b"/books/Dune") == GetBook(title="Dune")
    assert query_of(b"/books/new") is None
    assert query_of(b"/books/imprint") == GetBook(title="imprint")  # as the router decides, too


GetBooks: Any = defstruct(
    "GetBooks",
    [("titles", Annotated[tuple[str, str] | None, Meta(description="the first and the last")])],
    bases=(Query,),
    module="elsewhere",  # queries of this module need a handler
    frozen=True,
)


@pytest.mark.parametrize(
    ("routes", "problem"),
    [
        ({"/books/{name}": GetBook}, "GetBook has no field 'name': its fields are title"),
        ({"/books/{title}?author": GetBook}, "GetBook has no field 'author'"),
        ({"/books/{title}?title": GetBook}, "'title' is named more than once"),
        (
            {"/books/{titles}": GetBooks},
            "/books/{titles}: 'titles' is of several values, and a parameter is one text: give GetBooks a field for",
        ),
        ({"/tomes/{title}": GetBook}, "the site has no such route"),
    ],
)
def test_a_route_that_can_not_be_answered_is_refused(routes: dict[str, Any], problem: str):
    with pytest.raises(WiringError, match=re.escape(problem)):
        asgi_app(_site(book), hot=routes)


def test_hot_queries_need_the_plugin():
    with pytest.raises(WiringError, match="DiptychPlugin"):
        asgi_app(Litestar([book], openapi_config=None), hot={"/books/{title}": GetBook})


async def test_queries_may_be_mounted_in_another_framework(sqlite_url):
    async with create_catalogue(configured(sqlite_url, None)) as app:
        await app.execute(AddBook(title="AC/DC", author="x"))
        queries = query_app(app, {"/books/{title}": GetBook, "/books?limit&after": ListBooks})

        @asgi("/api", is_mount=True, copy_scope=True)
        async def api(scope: Any, receive: Any, send: Any) -> None:
            await queries({**scope, "root_path": "/api"}, receive, send)

        site = Litestar([api], openapi_config=None, logging_config=None)
        transport = httpx.ASGITransport(site)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://books.test") as client:
            found = await client.get("/api/books/AC%2FDC")
            assert (found.status_code, found.json()["author"]) == (200, "x")
            again = await client.get("/api/books/AC%2FDC", headers={"If-None-Match": found.headers["etag"]})
            assert again.status_code == 304
            assert len((await client.get("/api/books?limit=1")).json()["items"]) == 1
            head = await client.head("/api/books/AC%2FDC")
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["etag"] == found.headers["etag"]
            wrong = {
                **{"/none": 404, "/else/where": 404, "/%ff": 400},
                **{"?limit=0": 422, "?limit=1&limit=2": 422, "?x=%ff": 400},
            }
            for path, status in wrong.items():
                answer = await client.get(f"/api/books{path}")
                assert answer.status_code == status
                assert answer.headers["content-type"] == "application/problem+json"
            absent = await client.get("/api/books/none")
            assert absent.headers["cache-status"] == "diptych; fwd=bypass; detail=no-redis"
            assert (await client.get("/api/books/AC%2fDC")).status_code == 200
            refused = await client.post("/api/books/AC%2FDC")
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


# Handlers of all kinds


class Tome(Query[Any]):
    title: str
    language: str
    is_secret: bool = False


class Latest(Query[Any]):
    pass


class ById(Query[Any]):
    id: int


class Failing(Query[Any]):
    pass


class Nothing(Query[Any]):
    pass


class Refused(Exception):
    """Something that the application's own exception handler answers."""


class Handlers:
    runs = 0

    async def tome(self, query: Tome) -> Any:
        return _document(f"{query.title} in {query.language}, secret: {query.is_secret}")

    async def latest(self, query: Latest) -> Any:
        return _document("latest")

    async def by_id(self, query: ById) -> Any:
        return _document(f"number {query.id}")

    async def failing(self, query: Failing) -> Any:
        Handlers.runs += 1
        raise Refused

    async def nothing(self, query: Nothing) -> Any:
        return None


def _document(text: str) -> Document[Any]:
    return Document(f'"{text}"'.encode(), Served("redis"), str)


def _teapot(_request: Request[Any, Any, Any], _error: Exception) -> Response[str]:
    return Response("as the application says it", status_code=418, media_type="text/plain")


@get(["/tomes/{title:str}", "/tomes/latest", "/numbers/{id:int}", "/failing", "/nothing"])
async def never() -> str:
    return "the framework"


ROUTES: dict[str, type[Query[Any]]] = {
    "/tomes/{title}?language": Tome,
    "/tomes/latest": Latest,
    "/numbers/{id:int}": ById,
    "/failing": Failing,
    "/nothing": Nothing,
}


def _app(url: str) -> Diptych:
    return Diptych(ConfigService(environ={}, database_url=url), models=Base, handlers=[Handlers])


async def test_what_a_front_answers_and_what_goes_on(sqlite_url):
    async with _app(sqlite_url) as app:
        site = Litestar(
            [never], plugins=[DiptychPlugin(app)], exception_handlers={Refused: _teapot}, openapi_config=None
        )
        front = asgi_app(site, hot=ROUTES)
        answers = {
            (b"/tomes/x", b"language=de"): b'"x in de, secret: False"',
            (b"/tomes/latest", b""): b'"latest"',
            (b"/numbers/7", b""): b'"number 7"',
            # A parameter is missing, not declared, or of another kind; or there is no document.
            (b"/tomes/x", b""): b"the framework",
            (b"/tomes/x", b"language=de&is_secret=true"): b"the framework",
            (b"/numbers/07", b""): b"the framework",
            (b"/nothing", b""): b"the framework",
        }
        for (path, query), body in answers.items():
            assert (await ask(front, "GET", path, query)).body == body
        before = Handlers.runs
        refused = await ask(front, "GET", b"/failing")
        assert (refused.status, refused.body) == (418, b"as the application says it")
        assert Handlers.runs == before + 1


async def test_queries_that_stand_alone_answer_everything(sqlite_url):
    async with _app(sqlite_url) as app:
        queries = query_app(app, ROUTES)
        answers = {
            (b"/tomes/%78", b"language=%64e"): (200, b'"x in de, secret: False"'),
            (b"/tomes/l%61test", b""): (200, b'"latest"'),
            (b"/numbers/%37", b""): (200, b'"number 7"'),
            (b"/numbers/x", b""): (404, None),
            (b"/tomes/x", b""): (422, None),
            (b"/tomes/x", b"language=de&is_secret=true"): (422, None),
            (b"/nothing", b""): (404, None),
            (b"/failing", b""): (500, None),
        }
        for (path, query), (status, body) in answers.items():
            answer = await ask(queries, "GET", path, query)
            assert answer.status == status
            assert body in (None, answer.body)


@pytest.mark.parametrize(
    ("root", "path", "found"),
    [
        ("/api", b"/api/tomes/latest", True),
        ("/my api", b"/my%20api/tomes/latest", True),
        ("/\u00e9/", b"/%C3%A9/tomes/latest", True),
        ("/api", b"/tomes/latest", False),
        ("/api", b"/apis/tomes/latest", False),
        ("/api", None, True),
    ],
)
async def test_a_mount_is_taken_off_the_path(sqlite_url, root: str, path: bytes | None, found: bool):
    async with _app(sqlite_url) as app:
        scope = {"type": "http", "method": "GET", "headers": [], "query_string": b"", "root_path": root}
        scope |= {"path": f"{root}/tomes/latest"} | ({} if path is None else {"raw_path": path})
        answer = await _answer_to(query_app(app, ROUTES), scope)
        assert answer.status == (200 if found else 404)


def test_what_litestar_would_add_is_not_forgotten():
    app = catalogue("sqlite:///unused.db", None)
    site = Litestar([book], plugins=[DiptychPlugin(app)], cors_config=CORSConfig(), openapi_config=None)
    with pytest.raises(WiringError, match="cors_config is not heeded by hot queries"):
        asgi_app(site, hot={"/books/{title}": GetBook})
