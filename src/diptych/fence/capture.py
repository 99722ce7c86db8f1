"""Capture of the tables of read models: triggers are made at the start, and looked after by every pass."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import DatabaseBusyError, SchemaError
from diptych.fence.contract import FenceRow
from diptych.fence.holders import Holders, holders
from diptych.fence.statements import FENCE, IS_OF_GENERATION, NO_GENERATION, key_values
from diptych.log.capture.install import broken, mend
from diptych.log.capture.others import forget_others, refuse_others
from diptych.log.capture.table import CapturedTable
from diptych.log.table import HISTORY
from diptych.sql.database import Database
from diptych.sql.failures import words_of

_log = logging.getLogger("diptych.write")

_LOCK_MS = 300
"""Longest time that other writers of a table are held up while its triggers are to be made, in milliseconds."""

_MOST_LOCK_MS = 5000
"""The same where autovacuum may hold the table, which makes room only for who has waited for ``deadlock_timeout``."""

_PATIENCE_S = 20.0
"""Time for which it is tried to make triggers on a table that others hold, in seconds."""

_STANDS = sa.select(FENCE.c.generation).where(IS_OF_GENERATION)


async def capture(
    database: Database, tables: Sequence[CapturedTable], *, hints: bool, takes_over: bool = False
) -> Collection[str]:
    """Makes the triggers of these tables where they are not as they were made. Returns the names of those tables.

    Triggers made for another mapping of a table, which this one can't be beside, are left, unless it ``takes_over``.

    ★ Every generation that was made from such a table ends with it, and its cursor: rows may have been changed
    without an entry in the log. The triggers come first: what is changed after them is in the log that a build reads.

    Raises ``SchemaError`` for a table that is not there, or is captured for such a mapping, or where the role of
    ``DATABASE_URL`` may not make triggers; ``DatabaseBusyError`` if others hold a table for long.
    """
    deadline = time.monotonic() + _PATIENCE_S
    lock_ms = _LOCK_MS
    while True:
        try:
            return await _capture(database, tables, lock_ms, hints=hints, takes_over=takes_over)
        except DBAPIError as error:
            if database.failure_of(error) not in ("busy", "conflict") or database.has_one_writer:
                raise
            async with database.begin() as connection:
                found = await holders(connection, tables)
            if time.monotonic() >= deadline:
                raise _held(found) from error
        # Every second try is short: others would have no turn while one long try follows the other.
        may_yield = found.yield_ms is not None and lock_ms == _LOCK_MS
        lock_ms = min(_LOCK_MS + (found.yield_ms or 0), _MOST_LOCK_MS) if may_yield else _LOCK_MS
        await asyncio.sleep(random.uniform(0.1, 0.3))  # noqa: S311 - who waits behind this has its turn


async def _capture(
    database: Database, tables: Sequence[CapturedTable], lock_ms: int, *, hints: bool, takes_over: bool
) -> Collection[str]:
    async with database.turn_to_write(first=True), database.begin() as connection:
        await database.lock_schema(connection)
        if not database.has_one_writer:
            # A trigger is made under a lock that waits for open transactions, and everybody who comes later waits
            # behind it; and PostgreSQL would end a deadlock by another program's transaction as well as by this one.
            await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{lock_ms}ms'")
        try:
            if takes_over:
                await forget_others(connection, tables)
            else:
                await refuse_others(connection, tables)
            [[token]] = await connection.execute(sa.select(HISTORY.c.token))
            mended = await mend(connection, tables, token, hints=hints)
        except DBAPIError as error:
            raise _explained(error, tables) from error
        names = {captured.name for captured in mended}
        if names:
            ended = (await connection.execute(generations_over(database.name, names))).rowcount
            _log.log(
                logging.WARNING if ended else logging.INFO,
                "changes of %s are captured from now on%s",
                ", ".join(sorted(names)),
                "; since some may have been missed, the read models are built anew" if ended else "",
            )
        return names


async def are_missed(connection: AsyncConnection, tables: Sequence[CapturedTable], row: FenceRow) -> bool:
    """Returns whether changes of these tables may be missing in the row's generation and in the log.

    ★ The fingerprint counts only if the fence still names the generation when the fingerprint has been read. Another
    keeper notes a new fingerprint and ends the generation, which lacks those changes, by one transaction.
    """
    if await broken(connection, tables):
        return True
    return (await connection.execute(_STANDS, key_values(row))).first() is None


def generations_over(database: str, tables: Collection[str]) -> sa.Update:
    """Returns the statement that ends every generation made from any of these tables."""
    each = sa.func.json_each(FENCE.c.tables) if database == "sqlite" else None
    if each is None:
        each = sa.func.json_array_elements_text(sa.cast(FENCE.c.tables, sa.JSON))
    of_tables = each.table_valued(sa.column("value", sa.Text), name="of_tables")
    is_over = sa.exists().where(of_tables.c.value.in_(sorted(tables)))
    return sa.update(FENCE).where(FENCE.c.generation != "", is_over).values(NO_GENERATION)


def _held(found: Holders) -> DatabaseBusyError:
    """Returns the error that names the sessions whose locks kept the triggers from being made."""
    return DatabaseBusyError(
        f"the triggers on {', '.join(found.tables) or 'a table'} can't be made while others hold the table: "
        f"{'; '.join(found.sessions) or 'they have let go meanwhile'}. End what holds it, or try again later"
    )


def _explained(error: DBAPIError, tables: Sequence[CapturedTable]) -> Exception:
    """Returns the error with the table and the mend; the error itself if it is of another kind."""
    state = getattr(error.orig, "sqlstate", None)
    names = ", ".join(captured.name for captured in tables)
    if state == "42501":  # insufficient_privilege
        return SchemaError(
            [
                f"the role of DATABASE_URL may not make the triggers on {names} ({words_of(error)}): run `diptych "
                "migrate` as the owner of the tables, or what `diptych migrate --sql` prints"
            ]
        )
    if state == "42809":  # wrong_object_type
        return SchemaError([f"{words_of(error)}: read models are made from tables, not from views"])
    if state in ("2BP01", "42710"):  # dependent_objects_still_exist, duplicate_object
        return SchemaError(
            [
                f"{words_of(error)}: rows of a partition are captured by the triggers of the partitioned table: make "
                "read models of the one or of the other. If none is made of the captured one any more, drop its "
                "triggers diptych_capture and diptych_capture_truncate"
            ]
        )
    if state in ("42P01", "3F000") or "no such table" in str(error.orig):
        return SchemaError(
            [f"one of the tables {names} is not there: run the application's migrations first"]
        )
    return error
