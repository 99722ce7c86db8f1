"""Programs that know nothing of diptych, and use its database."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.schema import CreateTable

from tests.books import Base


class Foreign:
    """A program with an engine of its own on the database of this URL."""

    def __init__(self, url: str) -> None:
        self._engine = create_async_engine(with_driver(url))

    async def runs(self, *statements: str) -> None:
        """Runs the statements in one transaction."""
        async with self._engine.begin() as connection:
            for statement in statements:
                await connection.execute(sa.text(statement))

    def open(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Opens a transaction, which is committed at the end of the block."""
        return self._engine.begin()

    async def rows(self, statement: str) -> Sequence[Any]:
        """Returns the rows of a select."""
        async with self._engine.connect() as connection:
            return (await connection.execute(sa.text(statement))).all()

    async def close(self) -> None:
        """Closes its connections."""
        await self._engine.dispose()


def with_driver(url: str) -> str:
    """Returns the URL with the name of an asynchronous driver in it."""
    scheme, _, rest = url.partition(":")
    return f"{scheme}+{'aiosqlite' if scheme == 'sqlite' else 'asyncpg'}:{rest}"


def books_table(url: str) -> str:
    """Returns the statement that makes the table of the catalogue, as a migration of its own would."""
    dialect = make_url(with_driver(url)).get_dialect()()
    return str(CreateTable(Base.metadata.tables["books"]).compile(dialect=dialect))
