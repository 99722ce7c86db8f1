"""One read model of this process in Redis: how the changes of the log, or of a command, get into a generation."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Collection, Sequence
from typing import Any, NamedTuple

from diptych.errors import DiptychError, RedisUnavailableError, UnavailableError
from diptych.fence.contract import Applied, Entry, FenceRow, Target
from diptych.fence.fence import Fence
from diptych.log.change import Change, LogPart
from diptych.log.snapshot import Snapshot
from diptych.read.compiled import CompiledReadModel, key_bytes
from diptych.read.sql.rows import SqlRows
from diptych.read.store.state import RedisState
from diptych.read.store.store import RedisStore
from diptych.read.store.writes import MAX_DOCUMENTS, Write
from diptych.redis.service import RedisService
from diptych.sql.description import Row
from diptych.sql.view import View

_log = logging.getLogger("diptych.hinge")

_LOG_ROWS = 2000
"""How many rows of the log a pass reads at a time."""

_MOST_APPLIED = 16_384
"""Number of positions that are remembered of changes which commands' scripts told to be in."""

_PAUSES_S = (0.002, 0.008)
"""For so long a change of another process that is not in Redis yet may be on its way."""


class Refused(DiptychError):
    """Redis is not, or not any more, what a pass or a builder writes to. ``outcome`` is what the script said."""

    def __init__(self, outcome: str) -> None:
        super().__init__(f"Redis refused: {outcome}")
        self.outcome = outcome


async def accepted(writing: Awaitable[str]) -> None:
    """Awaits a script. Raises ``Refused`` for any outcome but ``OK``."""
    outcome = await writing
    if outcome != "OK":
        raise Refused(outcome)


class Replica:
    """A read model's documents in Redis, written from SQL."""

    def __init__(
        self,
        compiled: CompiledReadModel,
        source: SqlRows,
        store: RedisStore,
        redis: RedisService,
        fence: Fence,
        *,
        batch_size: int,
    ) -> None:
        self.name = compiled.name
        self.id = store.id
        self.store = store
        self.source = source
        self.compiled = compiled
        self.batch_size = batch_size
        self._fence = fence
        self._redis = redis
        self._queue: deque[_Entry] = deque()
        self._applying: asyncio.Task[None] | None = None
        self._applied_to: Target | None = None
        self._applied: set[int] = set()

    # Commands

    def apply(self, changes: Sequence[Change], known: Target) -> asyncio.Future[Applied]:
        """Begins to write a command's committed changes.

        What the future tells is as ``ReadSide.apply`` has it. Of the commands that come while a script is on its way,
        all share the next one.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Applied] = loop.create_future()
        if not self._redis.available:
            # Not queued: behind one that Redis has left without an answer it would wait as long as that.
            done.set_result(None)
            return done
        try:
            writes = [write for change in changes for write in self.store.writes.writes_of(change)]
        except Exception:
            # Not a row that does not fit, which is set aside. What is committed is not to fail here, whatever it is.
            _log.exception("%s: changes could not be made into documents; a pass will bring them", self.name)
            done.set_result(None)
            return done
        self._queue.append(_Entry(known, writes, done))
        if self._applying is None or self._applying.done():
            self._applying = loop.create_task(self._apply_queued())
        return done

    async def _apply_queued(self) -> None:
        while self._queue:
            known = self._queue[0].known
            writes: list[Write] = []
            entries: list[_Entry] = []
            while self._queue and self._queue[0].known == known and len(writes) < MAX_DOCUMENTS:
                entry = self._queue.popleft()
                writes += entry.writes
                entries.append(entry)
            applied: Applied = None
            try:
                if self._redis.available:
                    told = {write.stamp for write in writes}
                    if await self.store.apply(known, writes, told=told) == "OK":
                        applied = frozenset(told)
                        self._note_applied(known, told)
            except RedisUnavailableError:
                pass
            except Exception:
                _log.exception("%s: changes could not be applied; a pass will bring them", self.name)
            finally:
                for entry in entries:
                    if not entry.done.done():
                        entry.done.set_result(applied)

    def _note_applied(self, known: Target, positions: set[int]) -> None:
        """Takes note of changes that are in this generation, so that no pass writes them again."""
        if self._applied_to != known or len(self._applied) > _MOST_APPLIED:
            self._applied_to, self._applied = known, set()
        self._applied |= positions

    def _applied_in(self, known: Target) -> Collection[int]:
        return self._applied if self._applied_to == known else ()

    # What commands rest on

    async def bring_in(self, known: Target, entries: Sequence[Entry], snapshot: Snapshot) -> bool:
        """Sees to it that these changes, which ``snapshot`` saw, are in the generation. Returns whether they are.

        They are other processes' and most likely on their way. What does not come was left by one that was killed or
        is cut off: it is written as a pass would. ★ The fence row that names the generation has a cursor that did not
        see them: so they were committed after it, and none goes over what a builder has read of a later change.
        """
        try:
            if all(entry.key for entry in entries):
                changes = self._fence.identified(entries)
            else:
                changes = await self._fence.logged(entries)  # own ones, which have not come
                if len(changes) < len(entries):
                    return False
            missing = await self._awaited(known, changes)
            if missing:
                positions = {change.position for change in missing}
                return await self._bring(known, [e for e in entries if e.position in positions], snapshot)
        except (Refused, UnavailableError, KeyError):
            return False
        except Exception:
            _log.exception("%s: changes of others could not be brought in; a pass will bring them", self.name)
            return False
        return missing is not None

    async def _awaited(self, known: Target, changes: list[Change]) -> list[Change] | None:
        """Those that have not come after some milliseconds; None if this generation is not there."""
        missing = await self.store.missing(known, changes)
        for pause_s in _PAUSES_S:
            if not missing:
                break
            await asyncio.sleep(pause_s)
            missing = await self.store.missing(known, missing)
        return missing

    async def _bring(self, known: Target, entries: Sequence[Entry], snapshot: Snapshot) -> bool:
        changes = await self._fence.logged(entries)
        if len(changes) < len(entries):
            return False  # the log has forgotten some
        part = LogPart(snapshot, changes, more=False)
        if all(map(self._is_readable, changes)):
            return await self.store.apply(known, await self._writes_of(part, None)) == "OK"
        async with self._fence.view() as view:
            writes = await self._writes_of(part, view)
        # A row that is no longer at its address has got another one by a change that only a pass would bring with it.
        ended = {write.key for write in writes if write.body is None}
        has_moved = any(
            key_bytes(c.after[self.compiled.key]) in ended for c in changes if c.after is not None
        )
        return not has_moved and await self.store.apply(known, writes) == "OK"

    # Passes

    async def inspect(self, row: FenceRow) -> RedisState:
        """The state of the row's generation, in the Redis it is in. Raises ``Refused`` if that is another now."""
        state = await self.store.inspect(row.generation)
        if state.incarnation != row.incarnation:
            raise Refused("ELSEWHERE")
        return state

    async def replay_log(
        self, row: FenceRow, cursor: Snapshot, *, floor: bool = False
    ) -> tuple[Snapshot, int]:
        """Brings every change that ``cursor`` did not see into the row's generation.

        Returns the snapshot up to which they are in, and how many there were. With ``floor`` the generation's floor
        is raised to it. Raises ``Refused``, ``RedisUnavailableError``, ``DatabaseUnavailableError``.
        """
        known = Target(row.incarnation, row.generation)
        if self.compiled.is_joined:
            snapshot, count = await self._carry_in_a_view(known, cursor)
        else:
            snapshot, count = await self._carry(known, cursor, None)
        if floor:
            await accepted(self.store.apply(known, [], floor=snapshot.xmin))
        return snapshot, count

    async def _carry_in_a_view(self, known: Target, cursor: Snapshot) -> tuple[Snapshot, int]:
        # ★ Rows are read in the snapshot in which the log was read. Read later, a row may have been deleted, been
        # joined to another one or been given another address by a change that this reading of the log does not
        # hold: its document would be missing, or show a joined row as it was, after the change of that was
        # acknowledged. To read the log once more for these is a race that a steady load wins.
        async with self._fence.view() as view:
            return await self._carry(known, cursor, view)

    async def _carry(self, known: Target, cursor: Snapshot, view: View | None) -> tuple[Snapshot, int]:
        """Without a ``view`` for as long as the log tells all."""
        count, part = 0, None
        while part is None or part.more:
            tables, skip = self.compiled.tables, self._applied_in(known)
            part = await self._fence.changes(tables, cursor, _LOG_ROWS, part, view, skip=skip)
            if part.snapshot.xmax < cursor.xmax:
                # SQL was put back to a state from before the one that Redis was brought to.
                raise Refused("AHEAD")
            count += len(part.changes) + part.skipped
            if view is None and not all(map(self._is_readable, part.changes)):
                return await self._carry_in_a_view(known, cursor)
            if view is not None and self.compiled.is_joined:
                await self._write_joined(known, part, view)
            elif part.changes:
                await accepted(self.store.apply(known, await self._writes_of(part, view)))
        return part.snapshot, count

    async def _writes_of(self, part: LogPart, view: View | None) -> list[Write]:
        """What these changes write. Without a ``view`` all of them are readable."""
        unreadable = [change for change in part.changes if not self._is_readable(change)]
        rows = await self._read_again(unreadable, view) if view is not None else {}
        writes = []
        for change in part.changes:
            if not self._is_readable(change):
                writes += self._writes_from(change, rows, part.snapshot)
            else:
                try:
                    writes += self.store.writes.writes_of(change, part.snapshot.xmax)
                except KeyError:
                    # Its personal data are blanked, or another version of the application has other columns.
                    raise Refused("UNREADABLE") from None
        return writes

    def _is_readable(self, change: Change) -> bool:
        return change.after is None or self.compiled.readable(change.after)

    async def _read_again(self, changes: Sequence[Change], view: View) -> dict[bytes, Any]:
        """The rows of changes whose image in the log does not have every column: another version wrote it.

        They are as the log's snapshot holds them, which is no older than the change.
        """
        keys = [change.image.get(self.compiled.key) for change in changes]
        if any(key is None for key in keys):
            raise Refused("UNREADABLE")
        return {self.compiled.key_of(row): row for row in await self._rows_at(keys, view)}

    async def _rows_at(self, keys: Sequence[Any], view: View) -> list[Row]:
        found = self.source.rows_by(view, self.compiled.key, keys, self.batch_size)
        return [row async for rows in found for row in rows]

    def _writes_from(self, change: Change, rows: dict[bytes, Any], snapshot: Snapshot) -> list[Write]:
        stamp, transaction = change.position, change.transaction
        key = key_bytes(change.image[self.compiled.key])
        writes = []
        if change.before is not None and self.compiled.key_of(change.before) != key:
            old = self.compiled.key_of(change.before)
            writes.append(self.store.writes.tombstone(old, stamp, transaction, snapshot.xmax))
        if key in rows:
            writes.append(self.store.writes.write_of(rows[key], stamp, transaction))
        else:
            writes.append(self.store.writes.tombstone(key, stamp, transaction, snapshot.xmax))
        return writes

    async def _write_joined(self, known: Target, part: LogPart, view: View) -> None:
        """Makes the documents anew that these changes touch, each as the log's snapshot sees it.

        Commands never do: two of them could each write a document that lacks the other's change.
        """
        keys: dict[bytes, Any] = {}
        others: dict[str, dict[Any, None]] = {}
        for change in part.changes:
            try:
                keys |= self._addresses(change)
                touched = self.compiled.touched(change)
            except KeyError:
                raise Refused("UNREADABLE") from None
            for column, values in touched:
                others.setdefault(column, {}).update(dict.fromkeys(values))
        for at in range(0, len(keys), self.batch_size):
            await self._write_joined_at(known, list(keys.items())[at : at + self.batch_size], part, view)
        for column, altered in others.items():
            async for rows in self.source.rows_by(view, column, list(altered), self.batch_size):
                await accepted(
                    self.store.apply(
                        known, [self.store.writes.joined_write(row, part.snapshot) for row in rows]
                    )
                )

    def _addresses(self, change: Change) -> dict[bytes, Any]:
        """The keys of an own row, before and after its change. Raises ``KeyError`` if one is not in the log."""
        if change.entity.table != self.compiled.entity.table:
            return {}
        keys = [row[self.compiled.key] for row in (change.before, change.after) if row is not None]
        return {key_bytes(key): key for key in keys}

    async def _write_joined_at(
        self, known: Target, keys: Sequence[tuple[bytes, Any]], part: LogPart, view: View
    ) -> None:
        rows = await self._rows_at([value for _, value in keys], view)
        writes = [self.store.writes.joined_write(row, part.snapshot) for row in rows]
        missing = dict(keys).keys() - {write.key for write in writes}
        writes += [self.store.writes.joined_tombstone(key, part.snapshot) for key in missing]
        await accepted(self.store.apply(known, writes))


class _Entry(NamedTuple):
    known: Target
    writes: list[Write]
    done: asyncio.Future[Applied]
