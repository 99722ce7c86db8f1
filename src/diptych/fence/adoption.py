"""Adoption of a database put elsewhere: its log begins anew, and no generation in Redis counts any more.

So too if SQL's clock is not the clock that its times are of, or if the database was put back to an earlier state. A
process that finds this out, at its start or when the fence is read, adopts the database before anything that the
fence says is relied on.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.aio.tasks import shielded
from diptych.fence.contract import FenceId, FenceRow
from diptych.fence.statements import FENCE, NO_GENERATION
from diptych.log.table import EXPRESSIONS, HISTORY, LOG
from diptych.sql.database import Database
from diptych.sql.failures import translated

_log = logging.getLogger("diptych.write")

_LEASES = 1.2
"""Time in leases for which queries may still trust a lease that was published before: a promise is for 1.1 leases."""


async def adopt(database: Database, *, put_back: str | None = None) -> str:
    """Adopts the database, unless its log is of this very database. Returns the database's token.

    ``put_back`` is the name of a history that was seen to have gone back to an earlier state: that history ends in
    any case. Raises ``DatabaseUnavailableError``.
    """
    async with database.turn_to_write(first=True):
        with translated(database):
            return await shielded(_adopt(database, put_back))


async def _adopt(database: Database, put_back: str | None) -> str:
    async with database.begin() as connection:
        row, values, ends = await _changes(connection, database, put_back)
        if values or ends:
            # ★ Open transactions with rows in the log end first: else a transaction could later commit a row at a
            # position below the first one, and no pass would ever read that row.
            await database.lock_writes(connection, LOG.name)
            # Another process may have been faster.
            row, values, ends = await _changes(connection, database, put_back)
            await _change(connection, database, values, ends=ends)
    database.was_adopted()
    return str(row["token"])


async def _changes(
    connection: AsyncConnection, database: Database, put_back: str | None
) -> tuple[RowMapping, dict[str, Any], bool]:
    """Returns the row of ``diptych_history``, its new values, and whether the history ends."""
    row, identity = (await connection.execute(sa.select(HISTORY))).mappings().one(), database.identity
    is_same = (
        row["database"] != "" and is_same_database(row["database"], identity) and row["name"] != put_back
    )
    values = {
        "database": fuller(row["database"], identity) if is_same else identity,
        "clock": database.clock_text(row["clock"]),
    }
    return row, {name: value for name, value in values.items() if value != row[name]}, not is_same


async def _change(
    connection: AsyncConnection, database: Database, values: dict[str, Any], *, ends: bool
) -> None:
    if ends:
        last = (await connection.execute(sa.select(sa.func.max(LOG.c.position)))).scalar_one() or 0
        # Copied rows have not drawn their positions from the sequence.
        for statement in _AFTER_LAST[connection.dialect.name]:
            await connection.execute(statement, {"last": last, "log": LOG.name})
        values |= {"name": secrets.token_hex(8), "first_position": last + 1}
    if values:
        await connection.execute(sa.update(HISTORY).values(values))
    if ends or "clock" in values:
        await _end_promises(connection, database)
    if ends:
        await _end_generations(connection, last)


_AFTER_LAST: Mapping[str, tuple[sa.TextClause, ...]] = {
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
"""Statements that move the sequence of positions forward to the last one."""


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
    ended = await connection.execute(sa.update(FENCE).where(FENCE.c.generation != "").values(NO_GENERATION))
    if ended.rowcount:
        _log.warning(
            "the database is another one than that of its change log, or was put back to an earlier state: the log's "
            "rows up to position %d are of a former history, and the read models are built anew",
            last,
        )


# Finding out


def is_same_database(one: str, other: str) -> bool:
    """Returns whether two identities may be of the same database. Parts unknown to the user tell nothing."""
    return all(a == b or not (a and b) for a, b in zip(one.split(":"), other.split(":"), strict=False))


def fuller(one: str, other: str) -> str:
    """Returns two identities of the same database, merged."""
    return ":".join(a or b for a, b in zip(one.split(":"), other.split(":"), strict=False))


PassesSeen = Mapping[FenceId, tuple[str, str, int]]
"""History, generation, and number of passes that were begun over the generation."""


class Witness:
    """Detects an SQL database put back to an earlier state under a running process.

    Remembers how many passes each generation has had. The number never falls, unless a copy is put back.

    A copy with another history or generation needs no witness: commands and keepers compare these.
    """

    def __init__(self) -> None:
        self._passes: dict[FenceId, tuple[str, str, int]] = {}

    def remembered(self) -> PassesSeen:
        """Returns the numbers seen until now, for ``put_back``. To be called before the fence is read.

        ★ Numbers that are seen meanwhile may be later than the rows that are read.
        """
        return dict(self._passes)

    def on_rows_read(self, rows: Iterable[FenceRow]) -> None:
        """Takes note of rows."""
        for row in rows:
            history, generation, passes = self._passes.get(row.id, ("", "", 0))
            if (history, generation) == (row.history, row.generation):
                passes = max(passes, row.passes_started)
            else:
                passes = row.passes_started
            self._passes[row.id] = row.history, row.generation, passes

    @staticmethod
    def put_back(rows: Iterable[FenceRow], remembered: PassesSeen) -> str | None:
        """Returns the name of a history gone back to an earlier state; None if none has."""
        for row in rows:
            history, generation, passes = remembered.get(row.id, ("", "", 0))
            is_same = (history, generation) == (row.history, row.generation)
            if is_same and generation and row.passes_started < passes:
                return history
        return None
