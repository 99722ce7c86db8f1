"""A moment of SQL, read by several statements: the log, and the rows of its changes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from diptych.sql.database import Database
from diptych.sql.failures import translated_reading


class View:
    """A connection for several reads. Within ``view_of`` all see the snapshot of the first statement."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def fetch(
        self, statement: sa.Select[Any], values: Mapping[str, Any] | None = None
    ) -> Sequence[sa.Row[Any]]:
        """Returns the rows of a statement."""
        rows: Sequence[sa.Row[Any]] = (await self._connection.execute(statement, values)).all()
        return rows


@contextlib.asynccontextmanager
async def view_of(database: Database, engine: AsyncEngine | None = None) -> AsyncIterator[View]:
    """Opens a view of the moment of its first statement, over ``engine`` or the hinge's."""
    with translated_reading(database):
        async with (engine or database.keeper).connect() as connection:
            await database.begin_snapshot(connection)
            yield View(connection)
