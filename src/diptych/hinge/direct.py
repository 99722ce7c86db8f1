"""Joined documents, written by commands: a command makes what it has touched anew, in a snapshot after its commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

from diptych.aio.sharing import SerialBatcher
from diptych.errors import DiptychError
from diptych.fence.contract import FenceRow, Sight, Target
from diptych.fence.fence import Fence
from diptych.hinge.replay import LogReplay, accepted
from diptych.log import NOTHING, LogPart, Snapshot
from diptych.read.store.writes import Write
from diptych.redis.service import RedisService
from diptych.sql.view import NotAtOnceError, View

_log = logging.getLogger("diptych.hinge")


class Carried(NamedTuple):
    """All changes seen by the snapshot ``seen`` are in the generation of ``target``."""

    target: Target
    seen: Snapshot


class DirectWriter:
    """Writes the joined documents of a read model for commands, at most ``most`` of them at once.

    Every call makes anew all that was touched since the fence row's cursor, or since the last call whose documents
    are in, whoever has made the changes. ★ With the caller's own changes alone, a row that another command has moved
    away, whose process was killed then, would stay in the document that it has left.
    """

    def __init__(self, replay: LogReplay, fence: Fence, redis: RedisService, *, most: int) -> None:
        self._replay = replay
        self._fence = fence
        self._redis = redis
        self._most = most
        self._carried: Carried | None = None
        self._left: tuple[Target, Snapshot] | None = None  # the cursor since which too much was touched
        # ★ A call joins the next snapshot, never one that has begun: that may be older than the caller's commit.
        self._calls: SerialBatcher[FenceRow, bool] = SerialBatcher(self._write_together)

    def write(self, row: FenceRow) -> asyncio.Future[bool] | None:
        """Begins to bring all that was committed until now into the generation of ``row``, a fence row read before.

        The future's result is whether all of it is in then. Returns None if that would be False without a try.
        """
        # Without Redis not queued: behind a script that Redis has left without an answer this would wait for long.
        return self._calls.get(row) if self._most and row.cursor and self._redis.available else None

    async def _write_together(self, rows: Sequence[FenceRow]) -> Sequence[bool]:
        """Writes for several commands, into each target once."""
        latest = {row.target: row for row in rows}
        written = {target: await self._write(row) for target, row in latest.items()}
        return [written[row.target] for row in rows]

    async def _write(self, row: FenceRow) -> bool:
        name = self._replay.compiled.name
        try:
            carried = await self._carry(row)
        except (DiptychError, KeyError):
            carried = None  # a pass meets the same, and says so
        except Exception:
            _log.exception("%s: documents could not be made anew; a pass will bring them", name)
            carried = None
        if carried is not None:
            # ★ No sooner: what Redis has not confirmed would count as in for all later commands.
            self._carried = carried
        return carried is not None

    async def _carry(self, row: FenceRow) -> Carried | None:
        """Makes the touched documents anew and writes them; None if that has to be left to a pass."""
        target, since = row.target, row.cursor or NOTHING
        if self._carried is not None and self._carried.target == target:
            since = max(since, self._carried.seen, key=lambda snapshot: snapshot.stamp)
        # ★ The log and the rows in one snapshot, whose stamp the documents have: of two documents, the one whose
        # snapshot sees more has the greater stamp.
        try:
            async with self._fence.moment() as view:
                found = await self._read(row, since, view)
        except NotAtOnceError:
            async with self._fence.view() as view:
                found = await self._read(row, since, view)
        if found is None:
            return None
        snapshot, writes = found
        if writes:
            await accepted(self._replay.store.apply(target, writes, carried=snapshot))
        return Carried(target, snapshot)

    async def _read(self, row: FenceRow, since: Snapshot, view: View) -> tuple[Snapshot, list[Write]] | None:
        """Returns a snapshot and the writes of all documents that were touched up to it; None if a pass has to."""
        sight = await self._fence.sight_in(view, since)
        part = None if sight is None else self._part_of(sight, row, since)
        if sight is None or part is None:
            return None
        writes = await self._writes_of(part, view)
        if writes is None:
            # Until a pass has been there it gets more: nobody has to count again.
            self._left = row.target, sight.rows[row.id].cursor or NOTHING
            return None
        return part.snapshot, writes

    def _part_of(self, sight: Sight, known: FenceRow, since: Snapshot) -> LogPart | None:
        """Returns the changes to carry, of this read model; None if they can't be told from the sight."""
        row = sight.rows.get(known.id)
        if sight.snapshot.xmax < since.xmax:
            # ★ SQL was put back to an earlier state: positions may be drawn again, for other changes.
            self._carried = None
            return None
        # ★ The generation was known before the commit, and counts after it. Another one was filled from SQL, perhaps
        # before the commit.
        if row is None or row.target != known.target or row.cursor is None or sight.more:
            return None
        if self._left == (row.target, row.cursor):
            return None
        tables, cursor = self._replay.compiled.tables, row.cursor
        entries = [e for e in sight.entries if e.table in tables and not cursor.sees(e.transaction)]
        return LogPart(sight.snapshot, self._fence.identified(entries), more=False)

    async def _writes_of(self, part: LogPart, view: View) -> list[Write] | None:
        """Returns the writes of the touched documents; None as soon as there are more than ``most``."""
        found: dict[bytes, Write] = {}
        async for writes in self._replay.joined_writes(part, view):
            found |= {write.key: write for write in writes}
            if sum(not write.is_copy for write in found.values()) > self._most:
                return None
        return list(found.values())
