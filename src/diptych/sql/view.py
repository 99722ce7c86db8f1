"""One moment of SQL, read by several statements: the log, and the rows that its changes are of."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from diptych.sql.database import Database
from diptych.sql.execute import execute
from diptych.sql.failures import translated_reading


class View:
    """Several statements on one connection. In a transaction of ``view_of`` all see the snapshot of the first one."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def fetch(
        self, statement: sa.Select[Any], values: Mapping[str, Any] | None = None
    ) -> Sequence[sa.Row[Any]]:
        """What a statement of the write room finds in it."""
        rows: Sequence[sa.Row[Any]] = (await execute(self._connection, statement, values)).all()
        return rows


@contextlib.asynccontextmanager
async def view_of(database: Database, engine: AsyncEngine | None = None) -> AsyncIterator[View]:
    """What the database holds when the first statement of the view runs, over the hinge's engine or this one."""
    with translated_reading(database):
        async with (engine or database.keeper).connect() as connection:
            await database.begin_snapshot(connection)
            yield View(connection)
