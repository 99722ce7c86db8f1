"""Whoever writes: random changes by commands, sessions, statements and a foreign program, and Redis equals SQL.

After a command its changes are seen at once; after a foreign change, once ``catch_up`` returns.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from demo_app.messages import ListBooks
from demo_app.models.book import Book
from diptych import Diptych, DuplicateError
from tests.catalogue import answered_by, catalogue

TITLES = [f"t{number}" for number in range(6)]
OPERATIONS = int(os.environ.get("DIPTYCH_OPERATIONS", "250"))
SEED = int(os.environ.get("DIPTYCH_SEED", "0"))

Operation = Callable[["Writers"], Awaitable[None]]


class Writers:
    """Who writes: an application, and a program beside it."""

    def __init__(self, app: Diptych, foreign: AsyncConnection, draw: random.Random) -> None:
        self.app = app
        self.foreign = foreign
        self.draw = draw
        self.counter = 0

    def title(self) -> str:
        return self.draw.choice(TITLES)

    def author(self) -> str:
        self.counter += 1
        return f"a{self.counter}"

    @property
    def is_sqlite(self) -> bool:
        return self.foreign.dialect.name == "sqlite"


async def command_creates(to: Writers) -> None:
    with contextlib.suppress(DuplicateError):
        await to.app.orm.create(Book, title=to.title(), author=to.author(), stock_quantity=0)


async def command_updates(to: Writers) -> None:
    await to.app.orm.update(Book, to.title(), "title", author=to.author())


async def command_moves(to: Writers) -> None:
    with contextlib.suppress(DuplicateError):
        await to.app.orm.update(Book, to.title(), "title", title=to.title())


async def command_deletes(to: Writers) -> None:
    await to.app.orm.delete(Book, to.title(), "title")


async def session_mixes(to: Writers) -> None:
    """Adds, changes and deletes in one flush, a part of it in a savepoint that may fail."""
    async with to.app.orm.session() as session:
        books = list(await session.scalars(sa.select(Book).order_by(Book.id)))
        if books:
            to.draw.choice(books).author = to.author()
        if len(books) > 1 and to.draw.random() < 0.3:
            await session.delete(books[-1])
            await session.flush()
        with contextlib.suppress(IntegrityError):
            async with session.begin_nested():
                session.add(Book(title=to.title(), author=to.author(), stock_quantity=0))


async def session_swaps(to: Writers) -> None:
    """Two rows change their keys, by way of a third."""
    async with to.app.orm.session() as session:
        books = list(await session.scalars(sa.select(Book).order_by(Book.id).limit(2)))
        if len(books) == 2:
            first, second = books
            titles = first.title, second.title
            for book, title in ((first, "between"), (second, titles[0]), (first, titles[1])):
                book.title = title
                await session.flush()


async def statement_updates(to: Writers) -> None:
    await to.app.orm.execute(sa.update(Book).where(Book.title > to.title()).values(author=to.author()))


async def statement_deletes(to: Writers) -> None:
    await to.app.orm.execute(sa.delete(Book).where(Book.title == to.title()))


async def both_in_one_command(to: Writers) -> None:
    async with to.app.orm.session() as session:
        await to.app.orm.update(Book, to.title(), "title", author=to.author())
        book = await session.scalar(sa.select(Book).where(Book.title == to.title()))
        if book is not None:
            book.author = to.author()
        await to.app.orm.execute(sa.text("UPDATE books SET stock_quantity = stock_quantity + 1"))


def foreign(*statements: str) -> Operation:
    async def run(to: Writers) -> None:
        with contextlib.suppress(IntegrityError):
            async with to.foreign.begin():
                for statement in statements:
                    values = {"title": to.title(), "other": to.title(), "author": to.author()}
                    named = {name: value for name, value in values.items() if f":{name}" in statement}
                    await to.foreign.execute(sa.text(statement), named)
        await to.app.catch_up()

    return run


_ADD = "INSERT INTO books (title, author, stock_quantity) VALUES (:title, :author, 0)"
OPERATIONS_OF_ALL: Sequence[Operation] = (
    *(command_creates, command_creates, command_updates, command_moves, command_deletes),
    *(session_mixes, session_mixes, session_swaps, statement_updates, statement_deletes, both_in_one_command),
    foreign(_ADD),
    foreign(f"{_ADD} ON CONFLICT (title) DO UPDATE SET author = excluded.author"),
    foreign(f"{_ADD} ON CONFLICT DO NOTHING"),
    foreign("UPDATE books SET author = :author WHERE title = :title"),
    foreign("UPDATE books SET title = :other WHERE title = :title"),
    foreign("UPDATE books SET author = :author"),
    foreign("DELETE FROM books WHERE title = :title"),
    foreign("UPDATE books SET title = 'x' || title", "UPDATE books SET title = substr(title, 2)"),
    foreign(
        "DELETE FROM books WHERE title = :title",
        _ADD,
        "UPDATE books SET author = :author WHERE title = :title",
    ),
)
ON_SQLITE = (
    foreign(_ADD.replace("INSERT", "INSERT OR REPLACE")),
    foreign("UPDATE OR REPLACE books SET title = :other WHERE title = :title"),
)
ON_POSTGRESQL = (
    foreign("TRUNCATE books"),
    foreign(
        "MERGE INTO books USING (SELECT CAST(:title AS text) AS title, CAST(:author AS text) AS author) AS given "
        "ON books.title = given.title WHEN MATCHED THEN UPDATE SET author = given.author "
        "WHEN NOT MATCHED THEN INSERT (title, author, stock_quantity) VALUES (given.title, given.author, 0)"
    ),
)


async def shown(app: Diptych) -> list[tuple[str, str]]:
    page: Any = await app.ask(ListBooks(limit=500))
    return [(book.title, book.author) for book in page.decode().items]


async def stored(app: Diptych) -> list[tuple[str, str]]:
    async with app.orm.database.reader.connect() as connection:
        rows = await connection.execute(sa.text("SELECT title, author FROM books"))
        return sorted((row.title, row.author) for row in rows)


@pytest.mark.parametrize("seed", range(SEED, SEED + 2))
async def test_redis_equals_sql_after_each_of_many_changes_by_anybody(database_url, valkey, seed):
    draw = random.Random(seed)
    scheme, _, rest = database_url.partition(":")
    engine = create_async_engine(f"{scheme}+{'aiosqlite' if scheme == 'sqlite' else 'asyncpg'}:{rest}")
    async with catalogue(database_url, valkey.url, lease_ms=30_000) as app, engine.connect() as connection:
        to = Writers(app, connection, draw)
        await answered_by(app, "redis")
        operations = [*OPERATIONS_OF_ALL, *(ON_SQLITE if to.is_sqlite else ON_POSTGRESQL)]
        done: list[str] = []
        for _ in range(OPERATIONS):
            operation = draw.choice(operations)
            done.append(getattr(operation, "__name__", ""))
            await operation(to)
            assert await shown(app) == await stored(app), done[-5:]
        await answered_by(app, "redis")
    await engine.dispose()
