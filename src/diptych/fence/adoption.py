"""Adoption of a database put elsewhere: its log begins anew, and no generation in Redis counts any more.

So too if SQL's clock is not the clock that its times are of. A process that finds this out, at its start or when the
fence is read, adopts the database before anything that the fence says is relied on.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.aio.tasks import shielded
from diptych.fence.statements import FENCE
from diptych.log.expressions import EXPRESSIONS
from diptych.log.history import HISTORY, fuller, is_same_database
from diptych.log.table import LOG
from diptych.sql.database import Database
from diptych.sql.failures import translated

_log = logging.getLogger("diptych.write")

_LEASES = 1.2
"""Time in leases for which queries may still trust a lease that was published before: a promise is for 1.1 leases."""


async def adopt(database: Database, *, put_back: str | None = None) -> None:
    """Adopts the database, unless its log is of this very database.

    ``put_back`` is the name of a history that was seen to have gone back to an earlier state: that history ends in
    any case. Raises ``DatabaseUnavailableError``.
    """
    async with database.turn_to_write(first=True):
        with translated(database):
            await shielded(_adopt(database, put_back))


async def _adopt(database: Database, put_back: str | None) -> None:
    async with database.begin() as connection:
        values, ends = await _changes(connection, database, put_back)
        if values or ends:
            # ★ Open transactions with rows in the log end first: else a transaction could later commit a row at a
            # position below the first one, and no pass would ever read that row.
            await database.lock_writes(connection, LOG.name)
            # Another process may have been faster.
            values, ends = await _changes(connection, database, put_back)
            await _change(connection, database, values, ends=ends)
    database.was_adopted()


async def _changes(
    connection: AsyncConnection, database: Database, put_back: str | None
) -> tuple[dict[str, Any], bool]:
    """Returns the new values in the row of ``diptych_history``, and whether the history ends."""
    row, identity = (await connection.execute(sa.select(HISTORY))).mappings().one(), database.identity
    is_same = (
        row["database"] != "" and is_same_database(row["database"], identity) and row["name"] != put_back
    )
    values = {
        "database": fuller(row["database"], identity) if is_same else identity,
        "clock": database.clock_text(row["clock"]),
    }
    return {name: value for name, value in values.items() if value != row[name]}, not is_same


async def _change(
    connection: AsyncConnection, database: Database, values: dict[str, Any], *, ends: bool
) -> None:
    if ends:
        last = await _last_position(connection)
        await _draw_positions_after(connection, last)
        values |= {"name": secrets.token_hex(8), "first_position": last + 1}
    if values:
        await connection.execute(sa.update(HISTORY).values(values))
    if ends or "clock" in values:
        await _end_promises(connection, database)
    if ends:
        await _end_generations(connection, last)


async def _last_position(connection: AsyncConnection) -> int:
    last: int | None = (await connection.execute(sa.select(sa.func.max(LOG.c.position)))).scalar_one()
    return last or 0


async def _draw_positions_after(connection: AsyncConnection, last: int) -> None:
    """Moves the sequence of positions forward: copied rows have not drawn their positions from the sequence."""
    for statement in _SEQUENCE[connection.dialect.name]:
        await connection.execute(statement, {"last": last, "log": LOG.name})


_SEQUENCE: Mapping[str, tuple[sa.TextClause, ...]] = {
    "postgresql": (
        sa.text(
            "SELECT setval(sequence, CAST(:last AS bigint)) "
            "FROM CAST(pg_get_serial_sequence(:log, 'position') AS regclass) AS sequence "
            "WHERE :last > coalesce(pg_sequence_last_value(sequence), 0)"
        ),
    ),
    "sqlite": (
        sa.text("UPDATE sqlite_sequence SET seq = :last WHERE name = :log AND seq < :last"),
        sa.text(
            "INSERT INTO sqlite_sequence (name, seq) SELECT :log, :last "
            "WHERE :last > 0 AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = :log)"
        ),
    ),
}


async def _end_promises(connection: AsyncConnection, database: Database) -> None:
    """Has commands wait, once, for as long as queries may go by a lease of before.

    ★ By the clock that counts from now on. A promise by another clock, of the former host or of the time before the
    machine was started again, may look over although its lease stands.
    """
    until = EXPRESSIONS[database.name].now + database.lease_s * _LEASES
    promised = sa.update(FENCE).where(FENCE.c.lease_until > 0)
    await connection.execute(promised.values(lease_until=until))
    await connection.execute(sa.update(FENCE).values(building_until=0.0))


async def _end_generations(connection: AsyncConnection, last: int) -> None:
    """Ends every generation.

    ★ So ends every cursor, and every row that a process has in mind: these are of the former history.
    """
    none = {"generation": "", "ready": False, "cursor": None, "cursor_stamp": 0}
    ended = await connection.execute(sa.update(FENCE).where(FENCE.c.generation != "").values(none))
    if ended.rowcount:
        _log.warning(
            "the database is another one than that of its change log, or was put back to an earlier state: the log's "
            "rows up to position %d are of a former history, and the read models are built anew",
            last,
        )
