"""A read model built anew from SQL as a generation of its own, while commands go on changing rows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import msgspec

from diptych.errors import RebuildFailedError, UnavailableError
from diptych.fence.contract import FenceRow, Target
from diptych.fence.fence import Fence
from diptych.fence.rows import FenceRows
from diptych.hinge.at_work import AtWork
from diptych.hinge.clocks import MARGIN
from diptych.hinge.replica import Refused, Replica, accepted
from diptych.hinge.status import Progress
from diptych.log.snapshot import NOTHING, Snapshot
from diptych.read.store.state import RedisState
from diptych.read.store.writes import batches
from diptych.sql.description import Row

_log = logging.getLogger("diptych.hinge")

_LITTLE = 500
"""How many changes may be left for after the promise."""

_ROUNDS = 20
_DOCUMENT_OVERHEAD = 200
"""Bytes that a document takes in Redis beside its own: key, object, expiry table; about as much for each list."""


class Builder:
    """Builds one read model; used again for every build of it."""

    def __init__(self, replica: Replica, fence: Fence, rows: FenceRows, lease_s: float) -> None:
        self._replica = replica
        self._store = replica.store
        self._fence = fence
        self._rows = rows
        self._lease_s = lease_s
        self._at_work = AtWork(fence, lease_s)
        self.switching = False

    async def build(
        self, row: FenceRow, state: RedisState, generation: str, progress: Progress
    ) -> FenceRow | None:
        """In the place of a generation that is lost. None if another process was faster.

        ★ ``generation`` is fresh random bits: a name used twice would let old messages into the new generation.
        """
        moved = await self._fence.move(row, state.incarnation, generation, building_s=self._at_work.seconds)
        if moved is None:
            return None
        self._rows.on_row_changed(moved)
        async with self._at_work.on(moved, is_said=True):
            # Those of the look, before the fence moved: of those listed later one may be another builder's, published
            # since.
            await accepted(self._store.delete(state.incarnation, state.generations))
            cursor = moved.cursor or NOTHING
            await self._fill(Target(moved.incarnation, generation), cursor, progress)
            return await self._finish(moved, cursor)

    async def rebuild(
        self, row: FenceRow, state: RedisState, generation: str, progress: Progress
    ) -> FenceRow:
        """Beside a generation that goes on serving, then in its place.

        Raises ``RebuildFailedError`` if another process has replaced that one meanwhile.
        """
        await self._check_memory(state)
        known = Target(state.incarnation, generation)
        beside = await self._fence.begin_rebuild(row, generation, building_s=self._at_work.seconds)
        try:
            async with self._at_work.on(beside, is_said=True):
                cursor = beside.cursor or NOTHING
                await self._fill(known, cursor, progress)
                for _ in range(_ROUNDS):
                    cursor, count = await self._replica.replay_log(beside, cursor, floor=True)
                    if count <= _LITTLE:
                        break
            # Generations of builders that died are among these. None of them can be published after the switch.
            former = (await self._replica.inspect(beside)).generations - {generation.encode()}
            self.switching = True
            moved = await self._switch(row, beside, cursor)
        except BaseException:
            self.switching = False
            with contextlib.suppress(UnavailableError):
                # First: what has no row can't be published any more, and is swept if it is not deleted now.
                await self._fence.end_rebuild(beside)
                await self._store.delete(known.incarnation, [generation.encode()])
            raise
        try:
            async with self._at_work.on(moved, is_said=True):
                built = await self._finish(moved, cursor)
        finally:
            self.switching = False
        if built is None:
            raise RebuildFailedError(f"{self._replica.name}: another process has replaced the new generation")
        await self._store.delete(known.incarnation, former)
        return built

    async def publish(self, promised: FenceRow, state: RedisState, snapshot: Snapshot) -> None:
        """Step 10. Raises ``Refused``, also if what was looked at is not what was promised."""
        if state.known != Target(promised.incarnation, promised.generation):
            raise Refused("ELSEWHERE")
        relied_on = promised.cursor.xmin if promised.cursor is not None else 0
        # ★ The lease runs from t0, which was read before the promise: so the promise outlasts it.
        lease_ms, number = int(self._lease_s * 1000), promised.passes_started
        outcome = await self._store.publish(
            state, promised.history, lease_ms, snapshot.xmin, relied_on, number
        )
        if outcome != "OK":
            raise Refused(outcome)

    async def _fill(self, known: Target, cursor: Snapshot, progress: Progress) -> None:
        """Writes every row at stamp 0, which gives way to everything that commands and passes have applied.

        The floor is the cursor's: with that of a later snapshot a deletion could be taken for one that is in
        already, while the change that it followed is not.

        ★ The cursor is in the fence before the first row is read: from then on the log is kept for it. What retention
        that was under way forgets none the less was committed before, so it is in the rows.
        """
        await accepted(self._store.begin(known))
        _log.info("%s: rebuilding, about %d rows", self._replica.name, progress.total)
        number = 0
        async for rows in _ahead(self._replica.source.scan(self._replica.batch_size)):
            for part in batches([self._store.writes.write_of(row, 0, 0) for row in rows]):
                number += 1
                await accepted(self._store.backfill(known, part, number))
            progress.add(len(rows))
        await accepted(self._store.backfill(known, [], number + 1, floor=cursor.xmin))

    async def _switch(self, row: FenceRow, beside: FenceRow, cursor: Snapshot) -> FenceRow:
        if not await self._fence.keep_building(beside, self._at_work.seconds):
            raise RebuildFailedError(
                f"{self._replica.name}: the rebuild stood still for so long that it was given up: the change log may "
                "have lost what it still had to read. Start it again"
            )
        # First, so that nobody trusts the old generation, and no pass renews its lease, once the fence has moved. If
        # this process dies in between, the next pass finds the data lost.
        await accepted(self._store.drop(Target(row.incarnation, row.generation), row.history))
        moved = await self._fence.move(
            row,
            beside.incarnation,
            beside.generation,
            building_s=self._at_work.seconds,
            cursor=cursor,
        )
        if moved is None:
            raise RebuildFailedError(
                f"{self._replica.name}: another process has replaced the generation meanwhile"
            )
        self._rows.on_row_changed(moved)
        return moved

    async def _finish(self, moved: FenceRow, cursor: Snapshot) -> FenceRow | None:
        """Promises, brings in what was changed since the cursor, and lets readers in."""
        for _ in range(_ROUNDS):
            cursor, count = await self._replica.replay_log(moved, cursor)
            if count <= _LITTLE:
                break
        state = await self._replica.inspect(moved)
        promised = await self._fence.promise(moved, self._lease_s * MARGIN, None, at_work=True)
        if promised is None:
            return None
        # ★ What was committed while the rows were being read: they may have been read before it.
        cursor, _ = await self._replica.replay_log(promised, cursor, floor=True)
        if not await self._fence.complete(promised, cursor, ready=True):
            return None
        await self.publish(promised, state, cursor)
        self._rows.on_pass_completed()
        return msgspec.structs.replace(
            promised, ready=True, cursor=cursor, passes_completed=promised.passes_started
        )

    async def _check_memory(self, state: RedisState) -> None:
        """Raises ``RebuildFailedError`` if Redis has not the room for a second generation."""
        if state.maxmemory == 0:
            return
        sample: list[Row] = await anext(self._replica.source.scan(100), [])
        if not sample:
            return
        writes = [self._store.writes.write_of(row, 0, 0) for row in sample]
        size = sum(len(w.key) * 2 + len(w.body or b"") + 3 * sum(map(len, w.entries)) for w in writes)
        each = size / len(writes) + _DOCUMENT_OVERHEAD * (1 + len(writes[0].entries))
        needed = int(each * await self._replica.source.count())
        if state.used_memory + needed > state.maxmemory:
            raise RebuildFailedError(
                f"{self._replica.name}: Redis has not the memory for a second generation, about {needed >> 20} MB "
                f"beside the {state.used_memory >> 20} MB in use, with a maxmemory of "
                f"{state.maxmemory >> 20} MB: raise it"
            )


async def _ahead(batches: AsyncIterator[list[Row]]) -> AsyncIterator[list[Row]]:
    """The same batches; the next one is being read from SQL while the last one is being written to Redis."""
    loop = asyncio.get_running_loop()
    reading = loop.create_task(_next(batches))
    try:
        while (batch := await reading) is not None:
            reading = loop.create_task(_next(batches))
            yield batch
    finally:
        reading.cancel()
        await asyncio.wait([reading])


async def _next(batches: AsyncIterator[list[Row]]) -> list[Row] | None:
    return await anext(batches, None)
