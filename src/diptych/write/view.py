"""One moment of SQL, read by several statements: the log, and the rows that its changes are of."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from diptych.write.engines import Engines
from diptych.write.failures import translated_reading


class SqlView:
    """A ``View``: a transaction that only reads, all of it in the snapshot of its first statement."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def fetch(
        self, statement: sa.Select[Any], values: Mapping[str, Any] | None = None
    ) -> Sequence[sa.Row[Any]]:
        rows: Sequence[sa.Row[Any]] = (await self._connection.execute(statement, values)).all()
        return rows


@contextlib.asynccontextmanager
async def view_of(engines: Engines, engine: AsyncEngine | None = None) -> AsyncIterator[SqlView]:
    """What the database holds when the first statement of the view runs, over the hinge's engine or this one."""
    with translated_reading(engines):
        async with (engine or engines.keeper).connect() as connection:
            if engines.name == "sqlite":
                await connection.exec_driver_sql("BEGIN")  # the driver begins nothing by itself
            else:
                await connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            yield SqlView(connection)
