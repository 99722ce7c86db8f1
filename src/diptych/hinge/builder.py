"""Builds of a read model from SQL as a generation of its own, while commands go on changing rows: step 12."""

from __future__ import annotations

import contextlib
import logging
import secrets

from diptych.aio.tasks import read_ahead
from diptych.errors import RebuildFailedError, UnavailableError
from diptych.fence.contract import FenceRow, Target
from diptych.fence.fence import Fence
from diptych.fence.rows import FenceRows
from diptych.hinge.leases import CLAIM_LEASES, MARGIN, WorkClaim
from diptych.hinge.pace import Pace
from diptych.hinge.replay import Refused, accepted
from diptych.hinge.replica import Replica
from diptych.hinge.status import Progress
from diptych.log import NOTHING, Snapshot
from diptych.read.store.state import RedisState
from diptych.read.store.writes import MAX_IN_PASSING, batches
from diptych.sql.description import Row

_log = logging.getLogger("diptych.hinge")

_LITTLE = 500
"""Number of changes that may be left to be read after the promise."""

_PACED_ROUNDS = 5
"""Number of the first of these readings that may rest: changes can come faster than they are written with rests."""

_ROUNDS = 20
"""Greatest number of readings of the log before the promise, if each finds more than a little."""

_DOCUMENT_OVERHEAD = 200
"""Bytes that a document takes in Redis beside its own: key, object, expiry table; about as much for each list."""


class Builder:
    """The builder of a read model, used again for every build.

    ``switching`` is True while a planned rebuild puts its generation in the place of the serving one.
    """

    def __init__(self, replica: Replica, fence: Fence, rows: FenceRows, lease_s: float) -> None:
        self._replica = replica
        self._store = replica.store
        self._fence = fence
        self._rows = rows
        self._lease_s = lease_s
        self._claim_s = CLAIM_LEASES * lease_s
        self._is_joined = replica.compiled.is_joined
        self.switching = False

    async def build(self, row: FenceRow, state: RedisState, progress: Progress) -> bool:
        """Builds a generation in the place of a lost generation.

        Returns False if another process was faster. Raises ``Refused``, ``RedisUnavailableError``,
        ``DatabaseUnavailableError``.
        """
        generation = _new_name()
        moved = await self._fence.move(row, state.incarnation, generation, building_s=self._claim_s)
        if moved is None:
            return False
        self._rows.on_row_changed(moved)
        async with WorkClaim(self._fence, moved, self._claim_s, is_made=True):
            # The generations of the look, before the fence moved: of those listed later one may be another builder's,
            # published since.
            await accepted(self._store.delete(state.incarnation, state.generations))
            cursor = moved.cursor or NOTHING
            await self._fill(moved.target, cursor, progress)
            is_built = await self._finish(moved, cursor)
        if is_built:
            progress.finish()
        return is_built

    async def rebuild(self, row: FenceRow, state: RedisState, progress: Progress) -> None:
        """Builds a generation beside the serving generation, then puts the new one in its place.

        Documents of several rows are made with rests: Redis answers meanwhile, and others are to notice little.
        Raises ``RebuildFailedError`` if another process has replaced the serving generation meanwhile, and the errors
        of ``build``.
        """
        await self._check_memory(state)
        generation = _new_name()
        target = Target(state.incarnation, generation)
        beside = await self._fence.begin_rebuild(row, generation, building_s=self._claim_s)
        try:
            async with WorkClaim(self._fence, beside, self._claim_s, is_made=True):
                cursor = beside.cursor or NOTHING
                pace = Pace() if self._is_joined else None
                await self._fill(target, cursor, progress, pace)
                try:
                    cursor = await self._catch_up(beside, cursor, floor=True, pace=pace)
                except Refused:
                    await self._check_kept(beside)
                    raise
            # Generations of builders that died are among these. None of them can be published after the switch.
            former = (await self._replica.inspect(beside)).generations - {generation.encode()}
            self.switching = True
            moved = await self._switch(row, beside, cursor)
        except BaseException:
            self.switching = False
            with contextlib.suppress(UnavailableError):
                # The row first: a generation without a row can't be published any more, and is swept if it is not
                # deleted now.
                await self._fence.end_rebuild(beside)
                await self._store.delete(target.incarnation, [generation.encode()])
            raise
        try:
            async with WorkClaim(self._fence, moved, self._claim_s, is_made=True):
                is_built = await self._finish(moved, cursor)
        finally:
            self.switching = False
        if not is_built:
            raise RebuildFailedError(f"{self._replica.name}: another process has replaced the new generation")
        # With rests for every read model: no query waits for it, and a million keys take Redis many seconds of work.
        await self._store.delete(target.incarnation, former, Pace().rest)
        progress.finish()

    # Filling

    async def _fill(
        self, target: Target, cursor: Snapshot, progress: Progress, pace: Pace | None = None
    ) -> None:
        """Writes every row at stamp 0, so that all changes by commands and passes go over it.

        The floor is the cursor's: with the floor of a later snapshot a deletion could be taken for one that is in
        already, while the change that it followed is not.
        """
        await accepted(self._store.begin(target))
        _log.info("%s: rebuilding, about %d rows", self._replica.name, progress.total)
        # ★ The cursor is in the fence before the first row is read: from then on the log is kept for it. A change
        # that retention, under way at that moment, forgets none the less was committed before: it is in the rows.
        number = 0
        scanned = self._replica.source.scan(self._replica.batch_size)
        # Reading while it rests, a rebuild would take as much of SQL and of the cores as one that does not rest.
        async for rows in read_ahead(scanned) if pace is None else scanned:
            writes = [write for row in rows for write in self._store.writes.writes_at_all(row, 0, 0)]
            for part in batches(writes, MAX_IN_PASSING):
                number += 1
                await accepted(self._store.backfill(target, part, number))
                if pace is not None:
                    await pace.rest()
            progress.add(len(rows))
        await accepted(self._store.backfill(target, [], number + 1, floor=cursor.xmin))

    async def _catch_up(
        self, row: FenceRow, cursor: Snapshot, *, floor: bool = False, pace: Pace | None = None
    ) -> Snapshot:
        """Replays the log until little is left for after the promise. Returns the cursor that is reached."""
        for number in range(_ROUNDS):
            if number == _PACED_ROUNDS:
                pace = None
            cursor, count = await self._replica.replay_log(row, cursor, floor=floor, pace=pace)
            if count <= _LITTLE:
                break
        return cursor

    # Switching and finishing

    async def _switch(self, row: FenceRow, beside: FenceRow, cursor: Snapshot) -> FenceRow:
        """Ends the serving generation in Redis and names the new generation in the fence. Returns the fence row."""
        await self._check_kept(beside)
        # First, so that no query trusts the old generation, and no pass renews its lease, once the fence has moved.
        # If this process dies in between, the next pass finds the data lost.
        await accepted(self._store.drop(row.target, row.history, replaced=True))
        moved = await self._fence.move(
            row,
            beside.incarnation,
            beside.generation,
            building_s=self._claim_s,
            cursor=cursor,
        )
        if moved is None:
            raise RebuildFailedError(
                f"{self._replica.name}: another process has replaced the generation meanwhile"
            )
        self._rows.on_row_changed(moved)
        return moved

    async def _check_kept(self, beside: FenceRow) -> None:
        """Raises ``RebuildFailedError`` if the row of the rebuild has been closed."""
        if not await self._fence.keep_building(beside, self._claim_s):
            raise RebuildFailedError(
                f"{self._replica.name}: the rebuild was given up: it stood still for so long that the change log may "
                "have lost what it still had to read, or triggers of its tables were made anew. Start it again"
            )

    async def _finish(self, moved: FenceRow, cursor: Snapshot) -> bool:
        """Catches up, promises, replays the rest, sets ``ready`` and publishes.

        Returns False if another process has replaced the generation.
        """
        cursor = await self._catch_up(moved, cursor)
        state = await self._replica.inspect(moved)
        promised = await self._fence.promise(moved, self._lease_s * MARGIN, None, at_work=True)
        if promised is None:
            return False
        # ★ Changes that were committed while the rows were being read: the rows may have been read before them.
        cursor, _ = await self._replica.replay_log(promised, cursor, floor=True)
        if not await self._fence.complete(promised, cursor, ready=True):
            return False
        await self._replica.publish(promised, state, cursor, lease_s=self._lease_s)
        self._rows.on_pass_completed()
        return True

    async def _check_memory(self, state: RedisState) -> None:
        """Raises ``RebuildFailedError`` if Redis has not the room for a second generation."""
        if state.maxmemory == 0:
            return
        sample: list[Row] = await anext(self._replica.source.scan(100), [])
        if not sample:
            return
        writes = [write for row in sample for write in self._store.writes.writes_at_all(row, 0, 0)]
        size = sum(len(w.key) * 2 + len(w.body or b"") + 3 * sum(map(len, w.entries)) for w in writes)
        kept = sum(1 + self._store.entry_count(write) for write in writes)
        each = (size + _DOCUMENT_OVERHEAD * kept) / len(sample)
        needed = int(each * await self._replica.source.count())
        if state.used_memory + needed > state.maxmemory:
            raise RebuildFailedError(
                f"{self._replica.name}: Redis has not the memory for a second generation, about {needed >> 20} MB "
                f"beside the {state.used_memory >> 20} MB in use, with a maxmemory of "
                f"{state.maxmemory >> 20} MB: raise it"
            )


def _new_name() -> str:
    # ★ Random bits: a name used twice would let old messages into the new generation.
    return secrets.token_hex(8)
