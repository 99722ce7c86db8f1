"""Commands and queries on the catalogue's rows in PostgreSQL, as diptych's units of work and reads send them."""

from __future__ import annotations

import datetime
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from benchmarks.books import BOOKS, PAGE_SIZE, SEEDED, book, title
from diptych.log.table import LOG

_APPEND = sa.insert(LOG).returning(LOG.c.position)
_SELECT = sa.select(*BOOKS.c)
_BY_TITLE = _SELECT.where(BOOKS.c.title == sa.bindparam("key", type_=BOOKS.c.title.type))


class Books:
    """Commands and queries over one driver's engines. ``numbers`` gives each added book a number of its own."""

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine, numbers: Iterator[int]) -> None:
        self._writer = writer
        self._reader = reader
        self._numbers = numbers
        self._random = random.Random(7)

    async def add(self, _client: int) -> None:
        """Insert and log, one transaction."""
        async with self._unit_of_work() as connection:
            insert = sa.insert(BOOKS).values(book(next(self._numbers))).returning(*BOOKS.c)
            row = (await connection.execute(insert)).one()
            await _log(connection, "created", row._asdict())

    async def change(self, client: int) -> None:
        """Lock, update and log, one transaction; each of up to 100 clients has books of its own."""
        number = self._random.randrange(SEEDED // 100) * 100 + client
        async with self._unit_of_work() as connection:
            locked = _SELECT.where(BOOKS.c.title == title(number)).limit(2).with_for_update()
            before = (await connection.execute(locked)).one()
            update = sa.update(BOOKS).where(sa.and_(BOOKS.c.id == before.id))
            update = update.values(stock_quantity=before.stock_quantity + 1)
            row = (await connection.execute(update.returning(*BOOKS.c))).one()
            await _log(connection, "updated", row._asdict())

    async def one(self, _client: int) -> None:
        """A book by its title."""
        async with self._reader.connect() as connection:
            found = await connection.execute(_BY_TITLE, {"key": title(self._random.randrange(SEEDED))})
            assert len(found.all()) == 1

    async def page(self, _client: int) -> None:
        """Fifty books in the order of their titles, from somewhere in the middle."""
        after = sa.literal(title(self._random.randrange(SEEDED - PAGE_SIZE - 1)), BOOKS.c.title.type)
        page = (
            _SELECT.order_by(BOOKS.c.title)
            .limit(PAGE_SIZE)
            .where(sa.tuple_(BOOKS.c.title) > sa.tuple_(after))
        )
        async with self._reader.connect() as connection:
            assert len((await connection.execute(page)).all()) == PAGE_SIZE

    @asynccontextmanager
    async def _unit_of_work(self) -> AsyncIterator[AsyncConnection]:
        async with self._writer.connect() as connection:
            await connection.begin()
            yield connection
            await connection.commit()


async def _log(connection: AsyncConnection, kind: str, image: dict[str, Any]) -> None:
    identity = {name: image[name] for name in ("id", "title", "isbn")}
    values = {
        "entity": "Book",
        "key": msgspec.json.encode(identity).decode(),
        "old_key": msgspec.json.encode(identity).decode() if kind == "updated" else None,
        "kind": kind,
        "version": 1,
        "image": msgspec.json.encode(image).decode(),
        "command_id": str(uuid.uuid4()),
        "correlation_id": None,
        "actor": None,
        "recorded_at": datetime.datetime.now(datetime.UTC),
    }
    (await connection.execute(_APPEND, values)).scalar_one()
