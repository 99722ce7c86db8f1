"""The SQL side of the hinge: fence rows read, promised, completed and moved."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from diptych.aio.tasks import shielded
from diptych.errors import DatabaseUnavailableError
from diptych.fence.adoption import PassesSeen, Witness, adopt, is_same_database
from diptych.fence.capture import are_missed, capture
from diptych.fence.contract import FenceId, FenceRow, Sight
from diptych.fence.notify import PassNotifications
from diptych.fence.statements import (
    FENCE_STATEMENTS,
    fence_row_of,
    incarnation_values,
    key_values,
    new_row,
    tables_as_json,
)
from diptych.log import EVERYTHING, GAP, NOTHING, Entry, Snapshot
from diptych.log.capture.effects import table_effects
from diptych.log.capture.install import broken
from diptych.log.capture.table import CapturedTable, captured_table
from diptych.log.reading import MOST_ENTRIES, LogReader, entries_from_json, entry_of
from diptych.redis import RedisIdentity
from diptych.sql.database import Database, Step, Values
from diptych.sql.description import TableEffects
from diptych.sql.entity import MappedEntity
from diptych.sql.failures import translated, translated_reading
from diptych.sql.statements import PreparedSelect
from diptych.sql.view import View

_TRIES = 3

_SIGHTS_WITH_OTHERS = 16
"""Number of sights that read the log's entries with the fence after one that found changes of other processes."""

_NONE_OWN: Mapping[int, Sequence[Entry]] = MappingProxyType({})


class Fence(LogReader, PassNotifications):
    """The fence and the change log of a database, for keepers, builders and the ends of commands.

    The hinge's connections are its own, and on SQLite its writes go first: a keeper that waited behind commands and
    queries would lose its lease under load. Every method that uses SQL raises ``DatabaseUnavailableError``.
    ``hints`` says whether triggers are to tell of changes by others at once.
    """

    def __init__(
        self, database: Database, entity_of: Callable[[str], MappedEntity | None], *, hints: bool = True
    ) -> None:
        LogReader.__init__(self, database, entity_of)
        PassNotifications.__init__(self, database)
        self._statements = FENCE_STATEMENTS[database.name]
        self._rows = PreparedSelect(self._statements.rows)
        self._leased = PreparedSelect(self._statements.leased)
        self._entries = PreparedSelect(self._log.entries)
        sight = self._statements.sight
        self._sight = None if sight is None else PreparedSelect(sight)
        self._expects_others = 0
        self._witness = Witness()
        self._hints = hints

    # Reading

    async def rows(self) -> list[FenceRow]:
        """Returns every fence row, as committed when the statement starts."""
        return list((await self.sight(EVERYTHING)).rows.values())

    async def is_leased(self) -> bool:
        """Returns whether any read model has a lease. Raises ``DatabaseUnavailableError``."""
        with translated(self._database):
            return bool(await self._database.read_for_hinge(self._leased, {}))

    async def sight(
        self,
        since: Snapshot,
        own: Mapping[int, Sequence[Entry]] = _NONE_OWN,
        *,
        expects_entries: bool = False,
    ) -> Sight:
        """Returns every fence row, and the changes in the log since ``since``, as of the same moment.

        ``own`` are the caller's own entries by transaction number. Where all changes are among them, they are not
        read from the log. With ``expects_entries``, after a command with entries that only triggers know of, they are
        read with the fence rows at once.
        """
        values = self._log.cursor_values(since)
        for _ in range(_TRIES):
            remembered = self._witness.remembered()
            # A process that has lately found changes of others reads the entries with the rows, else the rows alone.
            expects = expects_entries or self._expects_others
            with_entries = self._sight if expects and since != EVERYTHING else None
            found = await self._read(with_entries or self._rows, values)
            rows = await self._verified(found, remembered)
            if rows:
                snapshot = _snapshot_of(found[0]["snapshot"])
                entries: Sequence[Entry] | None
                if with_entries is not None:
                    entries = entries_from_json(found[0]["entries"] or "[]")
                else:
                    entries = _own_entries(since, snapshot, own)
                if entries is None:
                    entries = [entry_of(row) for row in await self._read(self._entries, values)]
                # ★ Counted before any entry is left out: beyond the limit the log was not read at all.
                more = len(entries) > MOST_ENTRIES
                entries = [e for e in entries if snapshot.sees(e.transaction) and e.kind != GAP]
                self._note_others(entries, own)
                return Sight(
                    {row.id: row for row in rows}, since, snapshot, entries[:MOST_ENTRIES], more=more
                )
            if rows is not None:
                return Sight({}, since, NOTHING, ())
        raise DatabaseUnavailableError(
            "the SQL database is another one again and again: do processes of two machines share its file, or does "
            "its address lead to two servers?"
        )

    async def sight_in(self, view: View, since: Snapshot) -> Sight | None:
        """Returns what ``sight`` does, as of the moment of this view, which has read nothing yet.

        None if the fence is of another database, or of an earlier state than was seen: the next ``sight`` adopts it.
        """
        values, remembered = self._log.cursor_values(since), self._witness.remembered()
        with_entries = self._sight
        select = with_entries or self._rows
        with translated_reading(self._database):
            found = await _named(view, select, values)
            rows = self._rows_here(found)
            if not rows or self._witness.put_back(rows, remembered) is not None:
                return None
            if with_entries is not None:
                entries = entries_from_json(found[0]["entries"] or "[]")
            else:
                entries = [entry_of(row) for row in await _named(view, self._entries, values)]
        more = len(entries) > MOST_ENTRIES
        listed = [entry for entry in entries[:MOST_ENTRIES] if entry.kind != GAP]
        snapshot = _snapshot_of(found[0]["snapshot"])
        return Sight({row.id: row for row in rows}, since, snapshot, listed, more=more)

    async def has_unseen(self, row: FenceRow, position: int | None) -> bool:
        """Returns whether the row's cursor lacks a change of the row's tables, up to this position."""
        if row.cursor is None:
            return True
        values = {"p_tables": sorted(row.tables), "p_position": position or EVERYTHING.xmax}
        async with self._reading() as connection:
            found = await connection.execute(
                self._log.unseen, {**values, **self._log.cursor_values(row.cursor)}
            )
            return found.first() is not None

    # Capture

    async def are_missed(self, tables: Collection[str], row: FenceRow) -> bool:
        """Returns whether changes of these tables may be missing in the row's generation and in the log."""
        async with self._reading() as connection:
            return await are_missed(connection, self._captured(tables), row)

    async def missed(self, tables: Collection[str]) -> frozenset[str]:
        """Returns those of the tables whose changes may have been made without an entry in the log."""
        async with self._reading() as connection:
            return frozenset(captured.name for captured in await broken(connection, self._captured(tables)))

    async def capture(self, tables: Collection[str]) -> None:
        """Makes missing and altered triggers of these tables anew.

        Raises ``SchemaError``, ``DatabaseUnavailableError``.
        """
        with translated_reading(self._database):
            await shielded(capture(self._database, self._captured(tables), hints=self._hints))

    async def table_effects(self, tables: Collection[sa.Table]) -> TableEffects:
        """Returns what changes of these tables may do, or notice, besides."""
        async with self._reading() as connection:
            return await table_effects(connection, tables)

    def _captured(self, tables: Collection[str]) -> list[CapturedTable]:
        return [captured_table(entity) for _, entity in sorted(self._entities(tables).items())]

    def _note_others(self, entries: Sequence[Entry], own: Mapping[int, Sequence[Entry]]) -> None:
        is_alone = all(entry.transaction in own for entry in entries)
        self._expects_others = max(0, self._expects_others - 1) if is_alone else _SIGHTS_WITH_OTHERS

    async def _read(self, select: PreparedSelect, values: Values) -> list[Mapping[str, Any]]:
        with translated_reading(self._database):
            found = await self._database.read_for_hinge(select, values)
        return [dict(zip(select.names, row, strict=True)) for row in found]

    async def _verified(
        self, found: Sequence[Values | RowMapping], remembered: PassesSeen
    ) -> list[FenceRow] | None:
        """Returns these rows, if their history is of the connected database. If not, adopts the database.

        ★ Rows of another database are handed out to nobody: their generations hold what was read there, and their
        times are of its clock.
        """
        put_back = None
        if (rows := self._rows_here(found)) is not None:
            put_back = self._witness.put_back(rows, remembered)
            if put_back is None:
                self._witness.on_rows_read(rows)
                self._database.was_adopted()
                return rows
        await adopt(self._database, put_back=put_back)
        return None

    def _rows_here(self, found: Sequence[Values | RowMapping]) -> list[FenceRow] | None:
        """Returns these rows if their history, and their clock, are of the connected database."""
        identity = self._database.read_from  # each connection has asked before it read
        is_here = all(
            is_same_database(row["of_database"], identity) and row["now"] is not None for row in found
        )
        return [fence_row_of(row) for row in found] if is_here else None

    # Passes

    async def promise(
        self, row: FenceRow, lease_s: float, due_s: float | None, *, at_work: bool = False
    ) -> FenceRow | None:
        """Starts a pass: ``lease_until`` becomes at least now and ``lease_s``, ``passes_started`` grows by one.

        Only if incarnation, generation and ``ready`` are still those of ``row``; less than ``due_s`` seconds of the
        lease are left, or (``due_s`` is None) ``passes_started`` is still that of ``row``; and nobody is at work on
        the generation, unless the caller is, ``at_work``. Returns the row as it is then, with the number of this pass
        as ``passes_started``; None if another keeper was faster or the row differs.
        """
        # ★ This is committed before the log is read. The other way round, a command could commit after the log was
        # read, find no promise, and be acknowledged; and the lease would be published without its change.
        values = {**key_values(row), **incarnation_values(row), "p_ready": row.ready, "p_lease_s": lease_s}
        values["p_at_work"] = at_work
        if due_s is not None:
            return await self._change((self._statements.promise_if_due, values | {"p_due_s": due_s}))
        values["p_passes_started"] = row.passes_started
        return await self._change((self._statements.promise_if_none_began, values))

    async def complete(self, row: FenceRow, cursor: Snapshot, *, ready: bool = False) -> bool:
        """Ends the pass of a row returned by ``promise``: ``passes_completed`` and ``cursor`` go forward.

        With ``ready`` the generation may be read from now on. Returns False if incarnation or generation is another.
        """
        values = {
            **key_values(row),
            **incarnation_values(row),
            "p_passes_completed": row.passes_started,
            "p_cursor": str(cursor),
            "p_cursor_stamp": cursor.stamp,
            "p_is_ready": ready,
        }
        return await self._write((self._statements.complete, values)) is not None

    async def claim(self, row: FenceRow, building_s: float) -> FenceRow | None:
        """Claims, for ``building_s`` seconds, a generation whose lease is over: the caller brings the log into it.

        Returns None if another keeper was faster, has promised something, or the generation is another.
        """
        values = {**key_values(row), **incarnation_values(row), "p_ready": True, "p_building_s": building_s}
        return await self._change((self._statements.claim, values))

    async def keep_building(self, row: FenceRow, building_s: float) -> bool:
        """Announces ``building_s`` seconds more of the caller's work.

        Returns False if the generation is another.
        """
        values = {**key_values(row), "p_building_s": building_s}
        return await self._write((self._statements.keep_building, values)) is not None

    async def register(self, fence: FenceId, tables: Collection[str]) -> None:
        """Adds a row with no generation and a lease in the past, unless the row is there."""
        await self._write((self._statements.register, new_row(fence, tables)))

    async def forget(self, row: FenceRow) -> bool:
        """Removes the row of a read model without a keeper. Returns False if its lease was renewed."""
        values = {**key_values(row), "p_lease_until": row.lease_until}
        return await self._write((self._statements.forget, values)) is not None

    # Generations

    async def move(
        self,
        row: FenceRow,
        incarnation: RedisIdentity,
        generation: str,
        *,
        building_s: float,
        cursor: Snapshot | None = None,
    ) -> FenceRow | None:
        """Replaces the generation: not ready, with the cursor of this moment, and a builder for ``building_s``.

        Only if the generation is still that of ``row``, its lease is over, and no other builder is at work. With a
        ``cursor`` (a planned rebuild, which has taken the lease out of Redis before) the lease need not be over, and
        that cursor is taken; the row of the rebuild, which must still have a cursor of its own, goes. Returns the new
        row, or None.
        """
        values = {
            **key_values(row),
            "p_new_run_id": incarnation.run_id,
            "p_new_replication_id": incarnation.replication_id,
            "p_new_generation": generation,
            "p_building_s": building_s,
        }
        if cursor is None:
            return await self._change((self._statements.move_when_lapsed, values))
        planned = {"p_ready": row.ready, "p_cursor": str(cursor), "p_cursor_stamp": cursor.stamp}
        # ★ In one transaction: from one moment to the next the log is kept for this cursor, no longer for the row of
        # the rebuild. Where retention has closed that row, the log may have forgotten what the cursor has not seen.
        return await self._change(
            (self._statements.use_rebuild, key_values(_rebuild_of(row, generation))),
            (self._statements.move_as_planned, values | incarnation_values(row) | planned),
        )

    async def begin_rebuild(self, row: FenceRow, generation: str, *, building_s: float) -> FenceRow:
        """Adds the row of a planned rebuild beside ``row``, with the cursor of this moment. Returns the new row.

        To be kept by ``keep_building``.
        """
        beside = _rebuild_of(row, generation)
        values = {**key_values(beside), **incarnation_values(row), "p_tables": tables_as_json(row.tables)}
        found = await self._change((self._statements.begin_rebuild, values | {"p_building_s": building_s}))
        if found is None:
            raise DatabaseUnavailableError(
                "the SQL database was put elsewhere meanwhile: start the rebuild again"
            )
        return found

    async def end_rebuild(self, row: FenceRow) -> None:
        """Removes the row of a planned rebuild: its generation can't replace the serving generation any more."""
        await self._write((self._statements.end_rebuild, key_values(row)))

    # Writing

    async def _change(self, *steps: Step) -> FenceRow | None:
        remembered = self._witness.remembered()
        found = await self._write(*steps)
        rows = None if found is None else await self._verified([found], remembered)
        return None if rows is None else rows[0]

    async def _write(self, *steps: Step) -> RowMapping | None:
        with translated_reading(self._database):
            return await self._database.write_for_hinge(steps)


async def _named(view: View, select: PreparedSelect, values: Values) -> list[Mapping[str, Any]]:
    return [dict(zip(select.names, row, strict=True)) for row in await view.fetch_prepared(select, values)]


def _rebuild_of(row: FenceRow, generation: str) -> FenceRow:
    return msgspec.structs.replace(row, id=row.id.beside(generation), generation=generation)


def _snapshot_of(told: str | int) -> Snapshot:
    return Snapshot.parse(told) if isinstance(told, str) else Snapshot(told, told)


def _own_entries(
    since: Snapshot, snapshot: Snapshot, own: Mapping[int, Sequence[Entry]]
) -> Sequence[Entry] | None:
    """Returns the changes of ``snapshot`` since ``since``, if all are ``own``; else None."""
    transactions = snapshot.seen_since(since, MOST_ENTRIES)
    if transactions is None or not all(number in own for number in transactions):
        return None
    return [entry for number in transactions for entry in own[number]]
