"""The catalogue's books: how they are numbered, what they hold, and how a database gets them.

Of diptych and of the demonstration only public names: this runs with those of another revision, too.
"""

from __future__ import annotations

import datetime
from typing import Any, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from demo_app.models import book_read_model
from demo_app.models.book import Base, Book
from diptych import ConfigService, ORMService

SEEDED = 10_000
_AT_ONCE = 10_000
PAGE_SIZE = 50
STOCK = 12

BOOKS = cast(sa.Table, Book.__table__)
# Earlier revisions had one document for lists and for a book by itself.
_Shown: type[msgspec.Struct] = getattr(book_read_model, "BookDetailDocument", book_read_model.BookDocument)
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


async def seed(database: str, count: int = SEEDED, author_size: int = 0) -> None:
    """Makes diptych's tables and the catalogue's, with so many books, numbered from 0. The log is left empty.

    ``database`` is a URL, or the path of a file for SQLite.
    """
    url = make_url(database if "://" in database else f"sqlite:///{database}")
    async with ORMService(ConfigService(environ={}, database_url=database)) as orm:
        await orm.init(database, models=Base)
    engine = create_async_engine(url.set(drivername=_DRIVERS[url.drivername]))
    try:
        async with engine.begin() as connection:
            for first in range(0, count, _AT_ONCE):
                numbers = range(first, min(first + _AT_ONCE, count))
                await connection.execute(sa.insert(BOOKS), [book(number, author_size) for number in numbers])
    finally:
        await engine.dispose()


def document(number: int, author_size: int = 0) -> bytes:
    """The document of a seeded book, as diptych answers with it."""
    return msgspec.json.encode(_Shown(id=number + 1, **book(number, author_size)))


def book(number: int, author_size: int = 0) -> dict[str, Any]:
    """The row of a book, but for its id."""
    return {
        "title": title(number),
        "author": f"Author {number % 997}".ljust(author_size, "."),
        "published_date": datetime.date(1965, 8, 1),
        "isbn": f"{number:013d}",
        "stock_quantity": STOCK,
    }


def title(number: int) -> str:
    """Titles are in the order of their numbers."""
    return f"A book of the catalogue, number {number:09d}"
