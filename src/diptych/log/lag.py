"""The lag of a follower of the change log: the committed entries that its cursor has not seen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from diptych.log import Entry, Snapshot
from diptych.log.reading import LOG_STATEMENTS, entry_of
from diptych.sql.database import Database, Values
from diptych.sql.failures import translated_reading

MOST_LISTED = 1000
"""Greatest number of entries that are listed one by one."""

MOST_COUNTED = 100_000
"""Greatest number of entries that are counted: no look at a lag reads more of the log."""


class Unseen(NamedTuple):
    """The entries that a cursor has not seen: their number (``MOST_COUNTED`` at most), and the age of the oldest.

    ``entries`` are all of them, each with its age in seconds; empty if there are more than ``MOST_LISTED``. A look
    costs one statement, and a second one where there are so many.
    """

    number: int
    age_s: float
    entries: Sequence[tuple[Entry, float]]


async def unseen_by(database: Database, tables: Collection[str], cursor: Snapshot) -> Unseen:
    """Returns the committed changes of these tables that the cursor has not seen.

    Raises ``DatabaseUnavailableError``.
    """
    log = LOG_STATEMENTS[database.name]
    values = {"p_tables": sorted(tables), **log.cursor_values(cursor)}

    async def found(statement: sa.Select[Any], limit: int) -> Sequence[Values]:
        with translated_reading(database):
            async with database.keeper.connect() as connection:
                result = await connection.execute(statement, {**values, "p_limit": limit})
                return [dict(row) for row in result.mappings()]

    listed = await found(log.lagging, MOST_LISTED + 1)
    if len(listed) <= MOST_LISTED:
        entries = [(entry_of(row), age_of(row["age"])) for row in listed]
        return Unseen(len(entries), max((age for _, age in entries), default=0.0), entries)
    [counted] = await found(log.lag, MOST_COUNTED)
    return Unseen(counted["number"], age_of(counted["age"]), ())


def age_of(seconds: float | None) -> float:
    """Returns the age of an entry; 0 of one whose writer's clock is ahead, and where there is no clock."""
    return max(0.0, seconds or 0.0)
