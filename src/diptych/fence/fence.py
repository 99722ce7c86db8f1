"""The SQL side of the hinge: the fence rows, and the change log as passes read it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Container, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import DatabaseUnavailableError, WiringError
from diptych.fence.adoption import adopt
from diptych.fence.contract import Entry, FenceId, FenceRow, Sight
from diptych.fence.notify import PassNotifications
from diptych.fence.statements import FENCE_STATEMENTS
from diptych.fence.witness import Passes, Witness
from diptych.log.change import Change, LogPart
from diptych.log.history import is_same_database
from diptych.log.reading import LOG_STATEMENTS, MOST_ENTRIES
from diptych.log.snapshot import EVERYTHING, NOTHING, Snapshot
from diptych.redis.identity import RedisIdentity
from diptych.sql.database import Database, Step, Values
from diptych.sql.failures import translated_reading
from diptych.sql.mapped.entity import MappedEntity
from diptych.sql.statements.prepared import PreparedSelect
from diptych.sql.view import View, view_of

_TRIES = 3

_SIGHTS_WITH_OTHERS = 16
"""Number of sights that read the log's entries with the fence after one that found changes of other processes."""

_NONE_OWN: Mapping[int, Sequence[Entry]] = MappingProxyType({})


class Fence:
    """A ``Fence``. ``entity_of`` tells the mapped class of a table's name, None for a table that has none here.

    The hinge's connections are its own, and on SQLite its writes go first: a keeper that waits behind commands and
    queries would lose its lease under load.
    """

    def __init__(self, database: Database, entity_of: Callable[[str], MappedEntity | None]) -> None:
        self._database = database
        self._entity_of = entity_of
        self._statements = FENCE_STATEMENTS[database.name]
        self._log = LOG_STATEMENTS[database.name]
        self._rows = PreparedSelect(self._statements.rows)
        self._entries = PreparedSelect(self._log.entries)
        sight = self._statements.sight
        self._sight = None if sight is None else PreparedSelect(sight)
        self._expects_others = 0
        self._notifications = PassNotifications(database)
        self._witness = Witness()

    async def rows(self) -> list[FenceRow]:
        """Every fence row, as committed when the statement starts."""
        return list((await self.sight(EVERYTHING)).rows.values())

    async def sight(self, since: Snapshot, own: Mapping[int, Sequence[Entry]] = _NONE_OWN) -> Sight:
        """The same, with the changes in the log that ``since`` did not see, as of the same moment.

        ``own`` are those that the caller has made, by their transactions: of them it need not be told.
        """
        for _ in range(_TRIES):
            remembered = self._witness.remembered()
            # Who has lately found changes of others asks for them with the rows, who has not for the rows alone.
            read = self._sight if self._sight and self._expects_others and since != EVERYTHING else self._rows
            found = await self._read(read, self._cursor_values(since))
            rows = await self._verified(found, remembered)
            if rows:
                told = found[0]["snapshot"]
                snapshot = Snapshot.parse(told) if isinstance(told, str) else Snapshot(told, told)
                entries = self._own_entries(since, snapshot, own) if read is self._rows else None
                if entries is None and read is self._rows:
                    logged = await self._read(self._entries, self._cursor_values(since))
                    entries = [_entry(row) for row in logged]
                elif entries is None:
                    entries = _decode_entries(found[0]["entries"] or "[]")
                # ★ Counted before any is left out: of more than the limit the rest was not read at all.
                more = len(entries) > MOST_ENTRIES
                entries = [entry for entry in entries if snapshot.sees(entry.transaction)]
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

    @staticmethod
    def _own_entries(
        since: Snapshot, snapshot: Snapshot, own: Mapping[int, Sequence[Entry]]
    ) -> Sequence[Entry] | None:
        """What the snapshot saw and ``since`` did not, if all of it is the caller's own; None if it may not be."""
        transactions = snapshot.seen_since(since, MOST_ENTRIES)
        if transactions is None or not all(number in own for number in transactions):
            return None
        return [entry for number in transactions for entry in own[number]]

    def _note_others(self, entries: Sequence[Entry], own: Mapping[int, Sequence[Entry]]) -> None:
        is_alone = all(entry.transaction in own for entry in entries)
        self._expects_others = max(0, self._expects_others - 1) if is_alone else _SIGHTS_WITH_OTHERS

    async def _read(self, select: PreparedSelect, values: Values) -> list[Mapping[str, Any]]:
        with translated_reading(self._database):
            found = await self._database.read_for_hinge(select, values)
        return [dict(zip(select.names, row, strict=True)) for row in found]

    async def has_unseen(self, row: FenceRow, position: int | None) -> bool:
        """Whether there is a change of the row's tables, up to this position, that its cursor did not see."""
        if row.cursor is None:
            return True
        values = {"p_tables": sorted(row.tables), "p_position": position or EVERYTHING.xmax}
        async with self._reading() as connection:
            found = await connection.execute(self._log.unseen, values | self._cursor_values(row.cursor))
            return found.first() is not None

    def identified(self, entries: Sequence[Entry]) -> list[Change]:
        """These changes with no more of their rows than the columns by which they are known."""
        logged = (
            {"table_name": e.table, "kind": e.kind, "old_key": e.old_key, "image": e.key, **_numbered(e)}
            for e in entries
        )
        return self._decoded(list(logged), self._entities({entry.table or "" for entry in entries}))

    async def logged(self, entries: Sequence[Entry]) -> list[Change]:
        """These changes whole, in the order of their positions. Some may be missing: the log has forgotten them."""
        entities = self._entities({entry.table or "" for entry in entries})
        positions = {"p_positions": [entry.position for entry in entries]}
        async with self._reading() as connection:
            found = (await connection.execute(self._log.logged, positions)).mappings().all()
        return self._decoded(found, entities)

    async def _verified(
        self, found: Sequence[Values | RowMapping], remembered: Passes
    ) -> list[FenceRow] | None:
        """These rows, if they are of the database that this process is connected to; if not, it is adopted now.

        ★ Nobody goes by rows of another one: their generations hold what was read there, and their times are of its
        clock.
        """
        identity = self._database.read_from  # each connection has looked before it read
        put_back = None
        if all(is_same_database(row["of_database"], identity) and row["now"] is not None for row in found):
            rows = [_fence_row(row) for row in found]
            put_back = self._witness.put_back(rows, remembered)
            if put_back is None:
                self._witness.on_row_changed(rows)
                self._database.was_adopted()
                return rows
        await adopt(self._database, put_back=put_back)
        return None

    async def register(self, fence: FenceId, tables: Collection[str]) -> None:
        """Adds the row if it is not there, with no generation and a lease that is over."""
        none_yet = {"run_id": "", "replication_id": "", "generation": "", "ready": False, "database": ""}
        zeros = ("lease_until", "building_until", "cursor_stamp", "passes_started", "passes_completed")
        values = {
            "read_model": fence.read_model,
            "declaration": fence.fingerprint,
            "tables": _listed(tables),
            **none_yet,
            **dict.fromkeys(zeros, 0),
            "cursor": None,
        }
        await self._write((self._statements.register, values))

    async def promise(
        self, row: FenceRow, lease_s: float, due_s: float | None, *, at_work: bool = False
    ) -> FenceRow | None:
        # ★ This is committed before the log is read. The other way round, a command could commit after the log was
        # read and find no lease that anybody promised: it would be acknowledged, and the lease be published
        # without it.
        """Starts a pass: ``lease_until`` becomes at least now and ``lease_s``, ``passes_started`` grows by one.

        Only if incarnation, generation and ``ready`` are still those of ``row``, and less than ``due_s`` seconds of
        the lease are left, or (``due_s`` is None) ``passes_started`` is still that of ``row``; and nobody is at
        work on it, unless it is the caller, ``at_work``. Returns the row as it is then, with ``passes_started`` the
        pass's own number; None if another was faster or the row differs.
        """
        values = {**_named(row), **_incarnation(row), "p_ready": row.ready, "p_lease_s": lease_s}
        values["p_at_work"] = at_work
        if due_s is not None:
            return await self._change((self._statements.promise_if_due, values | {"p_due_s": due_s}))
        values["p_passes_started"] = row.passes_started
        return await self._change((self._statements.promise_if_none_began, values))

    def view(self) -> contextlib.AbstractAsyncContextManager[View]:
        """A view of the moment of its first statement; to be left soon, since PostgreSQL's VACUUM minds it."""
        return view_of(self._database)

    async def changes(
        self,
        tables: Collection[str],
        cursor: Snapshot,
        limit: int,
        part: LogPart | None = None,
        view: View | None = None,
        *,
        skip: Container[int] = (),
    ) -> LogPart:
        """The changes of these tables that ``cursor`` did not see, at most ``limit``, and the snapshot they are from.

        With the ``part`` before: those after it, of the same snapshot. With a ``view``: the snapshot is that of the
        view. Changes at the positions ``skip`` are left out, unless a row has left
        its address.
        """
        entities = self._entities(tables)
        values = {"p_tables": sorted(entities), "p_limit": limit + 1, **self._cursor_values(cursor)}
        statement = self._log.first
        if part is not None:
            statement = self._log.following
            values |= {"p_last": part.last}
            values |= self._snapshot_values(part.snapshot)
        found = await self._found(statement, values, view)
        snapshot = Snapshot.parse(found[0]["snapshot"]) if part is None else part.snapshot
        logged = [row for row in found if row["position"] is not None]
        read = logged[:limit]
        told = [row for row in read if row["position"] not in skip or _ends_an_address(row)]
        last = read[-1]["position"] if read else 0
        changes = self._decoded(told, entities)
        return LogPart(snapshot, changes, len(logged) > limit, last, len(read) - len(told))

    async def _found(self, statement: sa.Select[Any], values: Values, view: View | None) -> list[RowMapping]:
        if view is not None:
            with translated_reading(self._database):
                return [row._mapping for row in await view.fetch(statement, values)]
        async with self._reading() as connection:
            return list((await connection.execute(statement, values)).mappings())

    async def complete(self, row: FenceRow, cursor: Snapshot, *, ready: bool = False) -> bool:
        """Ends the pass that ``promise`` returned: ``passes_completed`` and ``cursor`` go forward, never back.

        With ``ready`` the generation may be read from now on. False if incarnation or generation is another.
        """
        values = {
            **_named(row),
            **_incarnation(row),
            "p_passes_completed": row.passes_started,
            "p_cursor": str(cursor),
            "p_cursor_stamp": cursor.stamp,
            "p_is_ready": ready,
        }
        return await self._write((self._statements.complete, values)) is not None

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

        Only if the generation is still that of ``row``, its lease is over, and no other builder is at it. With a
        ``cursor`` (a planned rebuild, which has taken the lease out of Redis before) the lease need not be over, and
        the cursor is that one; the row of the rebuild, which must still have its own, goes. Returns the new row, or
        None.
        """
        values = {
            **_named(row),
            "p_new_run_id": incarnation.run_id,
            "p_new_replication_id": incarnation.replication_id,
            "p_new_generation": generation,
            "p_building_s": building_s,
        }
        if cursor is None:
            return await self._change((self._statements.move_when_lapsed, values))
        planned = {"p_ready": row.ready, "p_cursor": str(cursor), "p_cursor_stamp": cursor.stamp}
        # ★ In one transaction: from one moment to the next the log is kept for this cursor, no longer for the row of
        # the rebuild. Where retention has closed that, the log may have forgotten what the cursor has not seen.
        return await self._change(
            (self._statements.use_rebuild, _named(_rebuild_of(row, generation))),
            (self._statements.move_as_planned, values | _incarnation(row) | planned),
        )

    async def begin_rebuild(self, row: FenceRow, generation: str, *, building_s: float) -> FenceRow:
        """Adds the row of a planned rebuild beside ``row``, with the cursor of this moment. To be kept by
        ``keep_building``.
        """
        beside = _rebuild_of(row, generation)
        values = {**_named(beside), **_incarnation(row), "p_tables": _listed(row.tables)}
        found = await self._change((self._statements.begin_rebuild, values | {"p_building_s": building_s}))
        if found is None:
            raise DatabaseUnavailableError(
                "the SQL database was put elsewhere meanwhile: start the rebuild again"
            )
        return found

    async def end_rebuild(self, row: FenceRow) -> None:
        """Removes it: the rebuild can't take the place of the generation that serves any more."""
        await self._write((self._statements.end_rebuild, _named(row)))

    async def keep_building(self, row: FenceRow, building_s: float) -> bool:
        """Says that whoever is at work is still at it. False if the generation is another."""
        values = {**_named(row), "p_building_s": building_s}
        return await self._write((self._statements.keep_building, values)) is not None

    async def claim(self, row: FenceRow, building_s: float) -> FenceRow | None:
        """Says that a keeper is at work on a generation whose lease is over: it brings in what there is.

        None if another was faster, has promised something, or the generation is another.
        """
        values = {**_named(row), **_incarnation(row), "p_ready": True, "p_building_s": building_s}
        return await self._change((self._statements.claim, values))

    async def snapshot(self) -> Snapshot:
        """Of this moment."""
        async with self._reading() as connection:
            return Snapshot.parse((await connection.execute(self._statements.snapshot)).scalar_one())

    async def ask(self, fence: FenceId, after: int) -> None:
        """Tells the keepers of other processes that a pass is waited for that begins after pass ``after``.

        It may get lost.
        """
        await self._notifications.send(fence, after)

    def on_asked(self, callback: Callable[[FenceId, int], None]) -> None:
        """Has ``callback`` called with the same, in the event loop, when another process asks."""
        self._notifications.callbacks.append(callback)

    async def listen(self) -> None:
        """From now on what other processes ask is heard; once it is being listened, or that failed for now."""
        await self._notifications.start()

    async def close(self) -> None:
        """Stops listening. Safe to call twice, or before ``listen``."""
        await self._notifications.stop()

    async def forget(self, row: FenceRow) -> bool:
        """Removes the row of a declaration that nobody keeps any more; False if its lease has been renewed."""
        values = {**_named(row), "p_lease_until": row.lease_until}
        return await self._write((self._statements.forget, values)) is not None

    async def _change(self, *steps: Step) -> FenceRow | None:
        remembered = self._witness.remembered()
        found = await self._write(*steps)
        rows = None if found is None else await self._verified([found], remembered)
        return None if rows is None else rows[0]

    async def _write(self, *steps: Step) -> RowMapping | None:
        with translated_reading(self._database):
            return await self._database.write_for_hinge(steps)

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        with translated_reading(self._database):
            async with self._database.keeper.connect() as connection:
                yield connection

    def _cursor_values(self, cursor: Snapshot) -> dict[str, Any]:
        if self._database.name == "sqlite":
            return {"p_xmax": cursor.xmax}
        return {"p_xmax": str(cursor.xmax), "p_running": "{" + ",".join(map(str, cursor.running)) + "}"}

    def _snapshot_values(self, snapshot: Snapshot) -> dict[str, Any]:
        if self._database.name == "sqlite":
            return {"p_snapshot_xmax": snapshot.xmax}
        return {"p_snapshot": str(snapshot)}

    def _entities(self, tables: Collection[str]) -> dict[str, MappedEntity]:
        """Raises ``WiringError`` for a table without one: its changes, left out once, would never be read."""
        found = {table: self._entity_of(table) for table in tables}
        unknown = sorted(table for table, entity in found.items() if entity is None)
        if unknown:
            raise WiringError([f"no mapped class of this process has the table {table}" for table in unknown])
        return {table: entity for table, entity in found.items() if entity is not None}

    def _decoded(
        self, logged: Collection[RowMapping | Values], entities: Mapping[str, MappedEntity]
    ) -> list[Change]:
        dialect = self._database.keeper.dialect
        return [_decode(row, entities[row["table_name"]], dialect) for row in logged]


def _numbered(entry: Entry) -> dict[str, int]:
    return {"position": entry.position, "number": entry.transaction}


def _ends_an_address(row: Values | RowMapping) -> bool:
    """Whether the row of the log, or what is known of it, may tell of a row that is no longer where it was."""
    return bool(row["kind"] == "deleted" or (row["kind"] != "created" and row["old_key"] != row["key"]))


_decode_entries = msgspec.json.Decoder(list[Entry]).decode


def _entry(row: Values) -> Entry:
    keys = row["old_key"], row["key"]
    return Entry(row["position"], row["number"], row["table_name"], row["kind"], *keys)


def _decode(row: RowMapping | Values, entity: MappedEntity, dialect: sa.Dialect) -> Change:
    """Of a row that retention has blanked, kind and position are all that is left."""
    key = _image(entity, row["old_key"] or "{}")
    image = _image(entity, row["image"] or "{}")
    before, after = {
        "created": (None, image),
        "deleted": (key | image, None),
    }.get(row["kind"], (key, image))
    return Change(entity.describe(dialect), before, after, row["position"], row["number"])


def _image(entity: MappedEntity, text: str) -> dict[str, Any]:
    return entity.from_log(msgspec.json.decode(text))


def _fence_row(row: Values | RowMapping) -> FenceRow:
    return FenceRow(
        id=FenceId(row["read_model"], row["declaration"]),
        tables=frozenset(msgspec.json.decode(row["tables"])),
        incarnation=RedisIdentity(row["run_id"], row["replication_id"]),
        generation=row["generation"],
        ready=row["ready"],
        lease_until=row["lease_until"],
        building_until=row["building_until"],
        cursor=None if row["cursor"] is None else Snapshot.parse(row["cursor"]),
        passes_started=row["passes_started"],
        passes_completed=row["passes_completed"],
        history=row["history"],
        now=row["now"],
    )


def _named(row: FenceRow) -> dict[str, Any]:
    return {
        "p_read_model": row.id.read_model,
        "p_declaration": row.id.fingerprint,
        "p_generation": row.generation,
    }


def _incarnation(row: FenceRow) -> dict[str, Any]:
    return {"p_run_id": row.incarnation.run_id, "p_replication_id": row.incarnation.replication_id}


def _rebuild_of(row: FenceRow, generation: str) -> FenceRow:
    return msgspec.structs.replace(row, id=row.id.beside(generation), generation=generation)


def _listed(tables: Collection[str]) -> str:
    return msgspec.json.encode(sorted(set(tables))).decode()
