"""One read model, two routes: Redis and SQL give the same bytes, in the same order, for the same rows."""

from __future__ import annotations

import asyncio
import datetime
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diptych import Diptych, DuplicateError, InvalidMessage, WiringError, by
from tests import catalogue as tools
from tests.books import (
    AddBook,
    Book,
    BookChanges,
    BookDocument,
    BookReadModel,
    DeleteBook,
    EditBook,
    GetBook,
    ListBooks,
)
from tests.catalogue import answered_by

CHARACTERS = st.characters(exclude_categories=("Cs", "Cc"))
TITLES = st.text(CHARACTERS, min_size=1, max_size=12).filter(lambda t: t.strip() and t not in (".", ".."))
BOOKS = st.builds(
    AddBook,
    title=TITLES
    | st.sampled_from(["a", "B", "ä", "Z", "z", "\U0001f600", "\uffff", 'q"uote', "back\\slash"]),
    author=st.sampled_from(["Ann", "ann", "Ångström", "Zoë", "\U0001f600"]),
    published_date=st.none() | st.dates(),
    isbn=st.none(),
    stock_quantity=st.integers(0, 2147483647),
)


def catalogue(database_url: str, redis_url: str | None = None, **settings: Any) -> Diptych:
    """The catalogue with a lease that a busy machine does not let run out: here Redis has to answer."""
    return tools.catalogue(database_url, redis_url, **{"lease_ms": 10_000, **settings})


async def _add_all(app: Diptych, books: list[AddBook]) -> list[str]:
    titles = []
    for book in books:
        try:
            await app.execute(book)
        except DuplicateError:
            continue
        titles.append(book.title)
    return titles


async def _empty(app: Diptych) -> None:
    async for book in app.orm.iterate(Book):
        await app.execute(DeleteBook(book.title))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(books=st.lists(BOOKS, max_size=12), limit=st.integers(1, 5))
def test_both_routes_give_the_same_bytes(books, limit, database_url, redis_url):
    """Documents, pages by title and by author, and their cursors; applied by commands and by a rebuild."""

    async def run() -> None:
        async with catalogue(database_url, redis_url) as app:
            await answered_by(app, "redis")
            await _empty(app)
        async with catalogue(database_url, redis_url) as app, catalogue(database_url) as sql:
            await answered_by(app, "redis")
            titles = await _add_all(app, books)
            await _compare(app, sql, titles, limit)
        async with catalogue(database_url, redis_url) as app, catalogue(database_url) as sql:
            await answered_by(app, "redis")
            await _compare(app, sql, titles, limit)

    asyncio.run(run())


async def _compare(app: Diptych, sql: Diptych, titles: list[str], limit: int) -> None:
    for title in [*titles, "not there"]:
        from_redis, from_sql = await app.ask(GetBook(title)), await sql.ask(GetBook(title))
        assert (from_redis.served.store, from_sql.served.store) == ("redis", "sql")
        assert from_redis.body == from_sql.body
    assert await _listed(app, sql, None, limit) == sorted(titles)
    by_author = await _listed(app, sql, by(Book.author, Book.title), limit)
    assert sorted(by_author) == sorted(titles)


async def _listed(app, sql, order, limit) -> list[str]:
    """Pages through the list on both routes, comparing each page's bytes."""
    redis_model, sql_model = _read_model(app), _read_model(sql)
    listed, after = [], None
    while True:
        from_redis = await redis_model.page(order, limit=limit, after=after)
        from_sql = await sql_model.page(order, limit=limit, after=after)
        assert from_redis.served.store == "redis"
        assert from_redis.body == from_sql.body
        page = from_redis.decode()
        rows = [(item.author, item.title) for item in page.items]
        assert order is None or rows == sorted(rows)
        listed += [item.title for item in page.items]
        assert json.loads(from_redis.body)["next"] == page.next
        if page.next is None:
            return listed
        after = page.next


def _read_model(app: Diptych) -> BookReadModel:
    """The read model as the application's own handler has it."""
    handler = app._run.bus.handler_of(GetBook)
    return handler.__self__.books  # type: ignore[no-any-return,attr-defined]


async def test_a_document_is_answered_as_bytes_and_decodes_to_its_struct(database_url, redis_url):
    async with catalogue(database_url, redis_url) as app:
        await answered_by(app, "redis")
        book_id = await app.execute(
            AddBook("Dune", "Frank Herbert", datetime.date(1965, 8, 1), "0441172717", 3)
        )
        document = await app.ask(GetBook("Dune"))
        assert document.body == (
            b'{"id":%d,"title":"Dune","author":"Frank Herbert","published_date":"1965-08-01",'
            b'"isbn":"0441172717","stock_quantity":3}' % book_id
        )
        assert document.decode() == BookDocument(
            book_id, "Dune", "Frank Herbert", datetime.date(1965, 8, 1), "0441172717", 3
        )


async def test_a_renamed_book_leaves_its_old_address_and_place(database_url, redis_url):
    async with catalogue(database_url, redis_url) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("Dune", "Frank Herbert"))
        await app.execute(EditBook("Dune", BookChanges(title="Arrakis", author="F. Herbert")))
        assert not await app.ask(GetBook("Dune"))
        assert await app.ask(GetBook("Arrakis"))
        for order in (None, by(Book.author, Book.title)):
            page = await _read_model(app).page(order)
            assert page.served.store == "redis"
            assert [book.title for book in page.decode().items] == ["Arrakis"]


async def test_titles_may_be_swapped_in_one_command_and_taken_again(database_url, redis_url):
    """An address is given up before it is taken, whatever the order of the changes."""
    async with catalogue(database_url, redis_url) as app:
        await answered_by(app, "redis")
        for title in ("A", "B"):
            await app.execute(AddBook(title, f"author of {title}"))
        for old, new in (("A", "-"), ("B", "A"), ("-", "B")):
            await app.execute(EditBook(old, BookChanges(title=new)))
        await app.execute(DeleteBook("A"))
        await app.execute(AddBook("A", "another"))
        for title, author in (("A", "another"), ("B", "author of A")):
            document = await app.ask(GetBook(title))
            assert document.served.store == "redis"
            found = document.decode()
            assert found is not None
            assert found.author == author
        page = await app.ask(ListBooks())
        assert [book.title for book in page.decode().items] == ["A", "B"]


@pytest.mark.parametrize("after", ["x", "!", "", "QQ", "QUEA/w", "_" * 4000, "é"])
async def test_a_bad_cursor_is_refused_alike_on_both_routes(sqlite_url, valkey, after):
    async with catalogue(sqlite_url, valkey.url) as app:
        for store in ("sql", "redis"):
            if store == "redis":
                await answered_by(app, "redis")
            with pytest.raises(InvalidMessage) as caught:
                await app.ask(ListBooks(after=after))
            assert [fault.field for fault in caught.value.faults] == ["after"]


@pytest.mark.parametrize("limit", [0, -1, 501])
async def test_a_limit_out_of_bounds_is_refused(sqlite_url, limit):
    async with catalogue(sqlite_url) as app:
        with pytest.raises(InvalidMessage) as caught:
            await app.ask(ListBooks(limit=limit))
        assert [fault.field for fault in caught.value.faults] == ["limit"]


@pytest.mark.parametrize("title", ["\x00", "a\x00b", "\ud800", "x" * 5000, ""])
async def test_a_title_that_no_row_can_have_is_not_found_on_either_route(database_url, valkey, title):
    async with catalogue(database_url, valkey.url) as app, catalogue(database_url) as sql:
        await answered_by(app, "redis")
        for route in (app, sql):
            handler = _read_model(route)
            assert not await handler.get(title)


async def test_a_cursor_of_a_deleted_book_goes_on_behind_its_place(database_url, redis_url):
    async with catalogue(database_url, redis_url) as app:
        await answered_by(app, "redis")
        for title in "ABCD":
            await app.execute(AddBook(title, "x"))
        first = (await app.ask(ListBooks(limit=2))).decode()
        await app.execute(DeleteBook("B"))
        second = await app.ask(ListBooks(limit=2, after=first.next))
        assert [book.title for book in second.decode().items] == ["C", "D"]


async def test_an_undeclared_list_is_a_clear_error(sqlite_url):
    async with catalogue(sqlite_url) as app:
        with pytest.raises(WiringError, match="no list"):
            await _read_model(app).page(by(Book.isbn))


async def test_a_namespace_keeps_applications_on_one_redis_apart(tmp_path, redis_url):
    one = catalogue(f"sqlite:///{tmp_path}/one.db", redis_url, redis_namespace="one")
    two = catalogue(f"sqlite:///{tmp_path}/two.db", redis_url, redis_namespace="two")
    async with one, two:
        await answered_by(one, "redis")
        await answered_by(two, "redis")
        await one.execute(AddBook("Dune", "Frank Herbert"))
        document = await two.ask(GetBook("Dune"))
        assert document.served.store == "redis"
        assert not document
        assert (await one.ask(GetBook("Dune"))).served.store == "redis"
