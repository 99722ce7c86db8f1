"""Capture of the tables of read models: triggers are made at the start, and looked after by every pass."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import SchemaError
from diptych.fence.statements import FENCE, NO_GENERATION
from diptych.log.capture.install import broken, mend
from diptych.log.capture.table import CapturedTable
from diptych.log.table import HISTORY
from diptych.sql.database import Database

_log = logging.getLogger("diptych.write")


async def capture(database: Database, tables: Sequence[CapturedTable], *, hints: bool) -> None:
    """Makes the triggers of these tables where they are not as they were made.

    ★ Every generation that was made from such a table ends with it, and its cursor: rows may have been changed
    without an entry in the log. The triggers come first: what is changed after them is in the log that a build reads.

    Raises ``SchemaError`` for a table that is not there, or where the role of ``DATABASE_URL`` may not make triggers.
    """
    async with database.turn_to_write(first=True), database.begin() as connection:
        await database.lock_schema(connection)
        try:
            [[token]] = await connection.execute(sa.select(HISTORY.c.token))
            mended = await mend(connection, tables, token, hints=hints)
        except DBAPIError as error:
            raise _explained(error, tables) from error
        if mended:
            names = {captured.name for captured in mended}
            ended = await _end_generations_over(connection, names)
            _log.log(
                logging.WARNING if ended else logging.INFO,
                "changes of %s are captured from now on%s",
                ", ".join(sorted(names)),
                "; since some may have been missed, the read models are built anew" if ended else "",
            )


async def are_missed(connection: AsyncConnection, tables: Sequence[CapturedTable]) -> bool:
    """Returns whether changes of these tables may have been made without an entry in the log."""
    return bool(await broken(connection, tables))


async def _end_generations_over(connection: AsyncConnection, tables: Collection[str]) -> int:
    rows = await connection.execute(sa.select(FENCE).where(FENCE.c.generation != ""))
    found = [row for row in rows.mappings() if not set(tables).isdisjoint(msgspec.json.decode(row["tables"]))]
    for row in found:
        is_it = (FENCE.c.read_model == row["read_model"]) & (FENCE.c.declaration == row["declaration"])
        await connection.execute(sa.update(FENCE).where(is_it).values(NO_GENERATION))
    return len(found)


def _explained(error: DBAPIError, tables: Sequence[CapturedTable]) -> Exception:
    """Returns the error with the table and the mend; the error itself if it is of another kind."""
    state = getattr(error.orig, "sqlstate", None)
    names = ", ".join(captured.name for captured in tables)
    if state == "42501":  # insufficient_privilege
        return SchemaError(
            f"the role of DATABASE_URL may not make triggers on {names}: run `diptych migrate`, or what "
            "`diptych migrate --sql` prints, as the owner of the tables"
        )
    if state in ("42P01", "3F000") or "no such table" in str(error.orig):
        return SchemaError(f"one of the tables {names} is not there: run the application's migrations first")
    return error
