"""Many rows at once, and rows that are added or changed."""

from __future__ import annotations

import asyncio

import pytest

from diptych import DuplicateError, InvalidValueError, ORMService, UnknownColumnError
from tests.conformance.tables import Book, Shelf
from tests.conformance.test_log import log_of, parts


async def test_many_rows_are_added_in_their_order_each_with_its_entry(orm: ORMService):
    rows = [{"title": f"{number:03}", "author": "A", "stock_quantity": number} for number in range(300)]
    rows[7] = {"title": "007", "author": "B"}  # of other columns than the rest
    books = await orm.create_all(Book, rows)
    assert [book.title for book in books] == [row["title"] for row in rows]
    assert [book.stock_quantity for book in books][6:9] == [6, 0, 8]
    log = await log_of(orm)
    assert parts(log, "kind") == ["created"] * 300
    assert [entry["title"] for entry in parts(log, "image")] == [row["title"] for row in rows]
    assert sorted(book.title for book in await orm.all(Book)) == [book.title for book in books]


async def test_of_many_rows_all_are_added_or_none(orm: ORMService):
    with pytest.raises(DuplicateError):
        await orm.create_all(Book, [{"title": title, "author": "A"} for title in "TUT"])
    with pytest.raises(InvalidValueError):
        await orm.create_all(Book, [{"title": "T", "author": "A"}, {"title": "U"}])
    assert await orm.all(Book) == []
    assert await log_of(orm) == []
    assert await orm.create_all(Book, []) == []


async def test_columns_may_have_other_names(orm: ORMService):
    shelves = await orm.create_all(
        Shelf, [{"room": "north", "number": number, "code": f"N{number}"} for number in "12"]
    )
    assert [(shelf.key, shelf.number) for shelf in shelves] == [(1, 1), (2, 2)]


async def test_a_row_is_added_or_changed(orm: ORMService):
    first = await orm.upsert(Book, conflict_on=Book.title, title="T", author="A")
    second = await orm.upsert(Book, conflict_on="title", title="T", author="B", stock_quantity=3)
    assert (second.id, second.author, second.stock_quantity) == (first.id, "B", 3)
    assert parts(await log_of(orm), "kind") == ["created", "updated"]


async def test_of_many_that_add_the_same_row_one_adds_it(orm: ORMService):
    authors = [str(number) for number in range(20)]
    books = await asyncio.gather(
        *(orm.upsert(Book, conflict_on=Book.title, title="T", author=author) for author in authors)
    )
    assert len({book.id for book in books}) == 1
    assert len(await orm.all(Book)) == 1
    assert sorted(parts(await log_of(orm), "kind"))[:2] == ["created", "updated"]


async def test_what_can_not_be_looked_up_by_is_refused(orm: ORMService):
    with pytest.raises(ValueError, match=r"Book\.author is not unique"):
        await orm.upsert(Book, conflict_on=Book.author, title="T", author="A")
    with pytest.raises(ValueError, match="needs a value of isbn"):
        await orm.upsert(Book, conflict_on=Book.isbn, title="T", author="A")
    with pytest.raises(UnknownColumnError):
        await orm.upsert(Book, conflict_on="name", title="T", author="A")
