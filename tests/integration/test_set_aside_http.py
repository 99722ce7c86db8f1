"""What HTTP says of rows that are set aside: the demo's pages and problems, hot queries and those behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from demo_app.app import create_app
from demo_app.messages import AddBook, DeleteBook, GetBook, ListBooks
from demo_app.models.book_read_model import BookReadModel
from diptych.http import Front, query_app
from tests.catalogue import answered_by
from tests.configuration import configured
from tests.integration.test_front import Answer, ask
from tests.setaside import write_raw


@pytest.fixture(params=["sql", "redis"])
async def front(request: pytest.FixtureRequest, sqlite_url: str) -> AsyncIterator[Front]:
    """The demo with three books, of which one has a date that is none, served by each store."""
    valkey = request.getfixturevalue("valkey") if request.param == "redis" else None
    config = configured(sqlite_url, valkey.url if valkey else None)
    app = create_app(config)
    assert isinstance(app, Front)
    async with app.diptych as books:
        for title in ("a", "b", "c"):
            await books.execute(AddBook(title=title, author="x"))
        await write_raw(books, "UPDATE books SET published_date = 'then' WHERE title = 'b'")
        if valkey is not None:
            await books.rebuild(BookReadModel)
        await answered_by(books, request.param)
        yield app


async def _titles(answer: Answer) -> list[str]:
    return [book["title"] for book in msgspec.json.decode(answer.body)["items"]]


async def _all(front: Front, path: bytes, query: bytes = b"", **headers: str) -> list[Answer]:
    """The answers of the front, of the framework behind it, and of the queries mounted alone."""
    alone = query_app(front.diptych, {"/books/{title}": GetBook, "/books?limit&after": ListBooks})
    return [await ask(app, "GET", path, query, **headers) for app in (front, front._app, alone)]


async def test_a_page_tells_how_many_it_leaves_out(front):
    for answer in await _all(front, b"/books"):
        assert (answer.status, answer.headers[b"diptych-set-aside"]) == (200, b"1")
        assert await _titles(answer) == ["a", "c"]
        for unchanged in await _all(front, b"/books", if_none_match=answer.headers[b"etag"].decode()):
            assert (unchanged.status, unchanged.headers[b"diptych-set-aside"]) == (304, b"1")
    for answer in await _all(front, b"/books", b"limit=1"):
        assert b"diptych-set-aside" not in answer.headers
    page = await ask(front, "GET", b"/books", accept="text/html")
    assert page.headers[b"diptych-set-aside"] == b"1"
    assert b"1 more here cannot be shown" in page.body


async def test_the_same_bytes_with_and_without_rows_left_out_have_headers_of_their_own(front):
    """What headers were made for a body is remembered with the number of rows that it left out."""
    before = await ask(front, "GET", b"/books")
    await front.diptych.execute(DeleteBook("b"))
    after = await ask(front, "GET", b"/books")
    assert after.body == before.body
    assert b"diptych-set-aside" not in after.headers


async def test_a_row_that_is_set_aside_is_a_problem_of_its_own(front, caplog):
    for _ in range(2):
        for answer in await _all(front, b"/books/b"):
            assert answer.status == 500
            assert answer.headers[b"content-type"] == b"application/problem+json"
            problem = msgspec.json.decode(answer.body)
            assert problem["type"] == "urn:diptych:problem:unreadable-row"
            assert "published_date" in problem["detail"]
    page = await ask(front, "GET", b"/books/b", accept="text/html")
    assert page.status == 500
    told = [record.getMessage() for record in caplog.records]
    assert len([text for text in told if "books with the key b" in text]) <= 1
    assert not any("unforeseen" in text for text in told)


async def test_health_counts_and_names_it(front):
    state = msgspec.json.decode((await ask(front, "GET", b"/health")).body)["read_models"]["BookReadModel"]
    if state["served_by"] == "redis":
        assert state["set_aside"] == 1
        assert state["set_aside_rows"] == [{"table": "books", "key": "b", "field": "published_date"}]
    else:
        assert state["set_aside"] is None
