"""A read model in Redis, written from SQL: changes of commands, the log as passes replay it, and the lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from diptych.aio.sharing import SerialBatcher
from diptych.errors import RedisUnavailableError, UnavailableError
from diptych.fence.contract import Applied, FenceRow, Target
from diptych.fence.fence import Fence
from diptych.hinge.replay import LogReplay, Refused, accepted
from diptych.log import Change, Entry, LogPart, Snapshot
from diptych.read.compiled import CompiledReadModel
from diptych.read.sql.rows import SqlRows
from diptych.read.store.state import RedisState
from diptych.read.store.store import RedisStore
from diptych.read.store.writes import MAX_DOCUMENTS, Write
from diptych.redis.service import RedisService
from diptych.sql.view import SecondStatementError

_log = logging.getLogger("diptych.hinge")

_PAUSES_S = (0.002, 0.008)
"""Pauses in seconds before each further look for a change of another process that is not in Redis yet."""


class Replica(LogReplay):
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
        super().__init__(compiled, source, store, fence, batch_size=batch_size)
        self.name = compiled.name
        self.id = store.id
        self._redis = redis
        self._changes: SerialBatcher[tuple[Target, list[Write]], Applied] = SerialBatcher(
            self._apply_together, max_keys=MAX_DOCUMENTS
        )

    # Changes of this process's commands

    def apply(self, changes: Sequence[Change], target: Target) -> asyncio.Future[Applied]:
        """Begins to write a command's committed changes into a generation.

        The future's result is described at ``ReadSide.apply``. All commands that come while a script is on its way
        share the next script.
        """
        if self._redis.available:
            try:
                writes = [write for change in changes for write in self.store.writes.writes_of(change)]
                return self._changes.get((target, writes))
            except Exception:
                # Not a row that does not fit, which is set aside. A committed change must not fail here, whatever it
                # is.
                _log.exception(
                    "%s: changes could not be made into documents; a pass will bring them", self.name
                )
        # Not queued: behind a script that Redis has left without an answer this would wait as long as that.
        failed: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()
        failed.set_result(None)
        return failed

    async def _apply_together(self, changes: Sequence[tuple[Target, list[Write]]]) -> Sequence[Applied]:
        """Writes the documents of several commands, with a script for each target."""
        by_target: dict[Target, list[Write]] = {}
        for target, writes in changes:
            by_target.setdefault(target, []).extend(writes)
        applied: dict[Target, Applied] = dict.fromkeys(by_target)
        for target, writes in by_target.items():
            told = {write.stamp for write in writes}
            try:
                if self._redis.available and await self.store.apply(target, writes, told=told) == "OK":
                    applied[target] = frozenset(told)
                    self.note_applied(target, told)
            except RedisUnavailableError:
                pass
            except Exception:
                _log.exception("%s: changes could not be applied; a pass will bring them", self.name)
        return [applied[target] for target, _ in changes]

    # Changes of other processes, on which commands of this process rest

    async def bring_in(
        self, target: Target, entries: Sequence[Entry], snapshot: Snapshot, *, expected: bool
    ) -> bool:
        """Makes sure of the presence of ``entries`` in a generation, and returns True if all are there.

        The entries are changes that ``snapshot`` saw. If they are ``expected``, other processes are most likely
        bringing them in. A change that does not come was left by a process that was killed or is cut off, and is
        written as a pass would.
        ★ The fence row that names the generation has a cursor that did not see the entries: so they were committed
        after it, and none goes over a later change that a builder has read.
        """
        try:
            if all(entry.key for entry in entries):
                changes = self._fence.identified(entries)
            else:
                changes = await self._fence.logged(entries)  # own changes, which have not come
                if len(changes) < len(entries):
                    return False
            missing: list[Change] | None = list(changes)
            if expected:
                missing = await self._await_arrival(target, changes, _PAUSES_S)
            if missing:
                positions = {change.position for change in missing}
                return await self._write_logged(
                    target, [entry for entry in entries if entry.position in positions], snapshot
                )
        except (Refused, UnavailableError, KeyError):
            return False
        except Exception:
            _log.exception("%s: changes of others could not be brought in; a pass will bring them", self.name)
            return False
        return missing is not None

    async def _await_arrival(
        self, target: Target, changes: list[Change], pauses_s: Sequence[float]
    ) -> list[Change] | None:
        """Returns the changes still missing after these pauses; None if the generation is not there."""
        missing = await self.store.missing(target, changes)
        for pause_s in pauses_s:
            if not missing:
                break
            await asyncio.sleep(pause_s)
            missing = await self.store.missing(target, missing)
        return missing

    async def _write_logged(self, target: Target, entries: Sequence[Entry], snapshot: Snapshot) -> bool:
        """Writes these changes from the log, and returns True if all are in the generation then."""
        if all(entry.is_captured for entry in entries):
            changes = self._fence.identified(entries)  # the log knows no more of them
        else:
            changes = await self._fence.logged(entries)
            if len(changes) < len(entries):
                return False  # the log has forgotten some
        part = LogPart(snapshot, changes, more=False)
        if self.is_readable(changes):
            return await self.store.apply(target, await self.writes_of(part, None)) == "OK"
        writes = await self._writes_now(part)
        # A row that is no longer at its address has got another one by a change that only a pass would bring with it.
        ended = {write.key for write in writes if write.body is None and not write.is_left_out}
        last = {key: change for change in changes for key in self._located(change)}
        has_moved = any(
            key in ended and change.after is not None and key in self.compiled.addresses_of(change.after)
            for key, change in last.items()
        )
        return not has_moved and await self.store.apply(target, writes) == "OK"

    async def _writes_now(self, part: LogPart) -> list[Write]:
        """Returns the writes of these changes with the rows of this moment, by one statement if that is enough."""
        try:
            async with self._fence.single_view() as view:
                return await self.writes_of(part, view)
        except SecondStatementError:
            async with self._fence.view() as view:
                return await self.writes_of(part, view)

    # Passes and builds

    async def inspect(self, row: FenceRow) -> RedisState:
        """Returns the state of Redis and of the row's generation.

        Raises ``Refused`` if this is another Redis than the row's.
        """
        state = await self.store.inspect(row.generation)
        if state.incarnation != row.incarnation:
            raise Refused("ELSEWHERE")
        return state

    async def publish(
        self, promised: FenceRow, state: RedisState, snapshot: Snapshot, *, lease_s: float
    ) -> None:
        """Publishes the lease, and raises the floor to ``snapshot``: step 10 of the protocol.

        ``state`` is the look from before the promise. Raises ``Refused``, also if the look was at another generation
        than the promised one.
        """
        if state.target != promised.target:
            raise Refused("ELSEWHERE")
        relied_on = promised.cursor.xmin if promised.cursor is not None else 0
        # ★ The lease runs from t0, which was read before the promise: so the promise outlasts it.
        lease_ms, number = int(lease_s * 1000), promised.passes_started
        await accepted(
            self.store.publish(state, promised.history, lease_ms, snapshot.xmin, relied_on, number)
        )
