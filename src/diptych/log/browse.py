"""Reading of the change log by people: the newest entries, the entries to come, and an entry with its values."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import SchemaError
from diptych.log import GAP, Snapshot
from diptych.log.reading import LOG_STATEMENTS, with_snapshot
from diptych.log.table import EXPRESSIONS, LOG, OF_THIS_HISTORY, TRANSACTION, Value
from diptych.sql.database import Database, Values
from diptych.sql.failures import translated_reading

NO_TABLES = "diptych's own tables are missing or outdated: start the application, or run `diptych migrate`"

_AT_ONCE = 500
"""Number of entries that are read by one statement while the log is followed."""

_SEARCHED = 100_000
"""Number of positions among which the entry before of the same row is looked for: no index helps there."""


class LogEntry(msgspec.Struct, frozen=True):
    """An entry of the change log. ``row`` is the primary key as text, ``old_row`` the one before if it has changed.

    ``transaction`` is None on SQLite. The names are those of the columns in docs/reference/change-log.md.
    """

    position: int
    recorded_at: datetime.datetime
    transaction: int | None
    kind: str
    entity: str
    table: str | None
    row: str | None
    old_row: str | None
    command_id: str | None
    correlation_id: str | None
    actor: str | None


class EntryValues(msgspec.Struct, frozen=True):
    """The values of an entry's row before and after the change, as far as the log knows them.

    ``old`` is None for a created row, ``new`` for a deleted one. Of an entry without an image, and of a row whose
    entry before is not there or has no image, no more is known than the columns that identify or link the row.
    """

    old: dict[str, Any] | None
    new: dict[str, Any] | None


@contextlib.asynccontextmanager
async def looking(database: Database) -> AsyncIterator[AsyncConnection]:
    """Lends a connection for reading diptych's own tables, from outside of an application.

    Raises ``SchemaError`` without these tables, ``DatabaseUnavailableError``.
    """
    try:
        with translated_reading(database):
            async with database.reader.connect() as connection:
                yield connection
    except DBAPIError as error:
        if database.failure_of(error) != "schema":
            raise
        raise SchemaError([NO_TABLES]) from error


class LogBrowser:
    """Reads the entries of a log. Methods raise ``SchemaError``, ``DatabaseUnavailableError``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._log = LOG_STATEMENTS[database.name]
        is_numbered = database.name == "postgresql"
        number: Value = TRANSACTION if is_numbered else sa.cast(sa.null(), sa.BigInteger)
        self._entry = sa.select(*LOG.c, number.label("number"))
        self._snapshot = EXPRESSIONS[database.name].snapshot

    async def newest(self, number: int) -> tuple[Sequence[LogEntry], Snapshot]:
        """Returns so many entries at most, the newest last, and the snapshot of the log that has them."""
        newest = self._entry.order_by(LOG.c.position.desc()).limit(number)
        found = await self._read(with_snapshot(self._snapshot, newest))
        return _entries(found), Snapshot.parse(found[0]["snapshot"])

    async def since(self, seen: Snapshot) -> AsyncIterator[tuple[Sequence[LogEntry], Snapshot]]:
        """Yields the entries that were committed since the snapshot, part by part, with their own snapshot.

        ★ By snapshots, not by positions: transactions commit in another order than that in which they draw positions.
        """
        unseen = self._entry.where(OF_THIS_HISTORY, self._log.is_unseen).limit(_AT_ONCE)
        first = with_snapshot(self._snapshot, unseen.order_by(self._log.order))
        values = dict(self._log.cursor_values(seen))
        found = await self._read(first, values)
        snapshot = Snapshot.parse(found[0]["snapshot"])
        yield _entries(found), snapshot
        following = unseen.where(self._log.seen, LOG.c.position > sa.bindparam("p_last", type_=sa.BigInteger))
        while len(found) == _AT_ONCE:
            values |= {**self._log.snapshot_values(snapshot), "p_last": found[-1]["position"]}
            found = await self._read(following.order_by(LOG.c.position), values)
            yield _entries(found), snapshot

    async def at(self, position: int) -> tuple[LogEntry, EntryValues] | None:
        """Returns the entry at a position, with its values; None if there is none."""
        found = await self._read(self._entry.where(LOG.c.position == position))
        if not found:
            return None
        return _entry(found[0]), _values(found[0], await self._image_before(found[0]))

    async def _image_before(self, row: Values) -> str | None:
        """Returns the image in the entry before of the same row, if there is such an entry and it has one."""
        at, row_id = row["position"], row["old_row_id"] or row["row_id"]
        if row["kind"] in ("created", "deleted") or row_id is None:
            return None
        before = (
            sa.select(LOG.c.image, LOG.c.kind)
            .where(LOG.c.position < at, LOG.c.position >= at - _SEARCHED)
            .where(LOG.c.table_name == row["table_name"])
            .where(sa.or_(LOG.c.row_id == row_id, LOG.c.old_row_id == row_id, LOG.c.kind == GAP))
            .order_by(LOG.c.position.desc())
            .limit(1)
        )
        found = await self._read(before)
        return found[0]["image"] if found and found[0]["kind"] in ("created", "updated") else None

    async def _read(self, statement: sa.Select[Any], values: Values | None = None) -> list[Values]:
        async with looking(self._database) as connection:
            return [dict(row) for row in (await connection.execute(statement, values)).mappings()]


def _entries(found: Sequence[Values]) -> Sequence[LogEntry]:
    return [_entry(row) for row in found if row["position"] is not None]


def _entry(row: Values) -> LogEntry:
    recorded_at: datetime.datetime = row["recorded_at"]
    if recorded_at.tzinfo is None:  # SQLite has no zones: it is UTC
        recorded_at = recorded_at.replace(tzinfo=datetime.UTC)
    return LogEntry(
        row["position"],
        recorded_at.astimezone(datetime.UTC),
        row["number"],
        row["kind"],
        row["entity"],
        row["table_name"],
        row["row_id"],
        row["old_row_id"],
        row["command_id"] or None,
        row["correlation_id"],
        row["actor"],
    )


def _values(row: Values, image_before: str | None) -> EntryValues:
    new: dict[str, Any] = msgspec.json.decode(row["image"] or row["key"])
    old: dict[str, Any] = msgspec.json.decode(row["old_key"] or "{}")
    if row["kind"] == "deleted":
        return EntryValues(old | new, None)
    if row["kind"] == "created":
        return EntryValues(None, new)
    if image_before is not None:
        old = {**msgspec.json.decode(image_before), **old}
    return EntryValues(old, new)
