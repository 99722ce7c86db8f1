"""The end of a command: it is answered once no query can be answered without what it rests on.

That is its own changes, and every change that was committed before it and that it may have built on: the process that
made one may have been killed before it brought it to Redis. The rules are steps 5 and 6 of the hinge,
docs/concepts/hinge.md. They hold for every process that changes rows through ``ORMService``, whether it knows Redis,
this read model, this version of it, or not: a fence row that it can't serve itself waits for a pass.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from diptych.errors import DatabaseUnavailableError
from diptych.fence.arrivals import Arrivals, Ending, Listed, Own
from diptych.fence.contract import Applied, Entry, FenceId, FenceRow, ReadSide, Sight, Target
from diptych.fence.fence import Fence
from diptych.fence.passes import Passes, Rows
from diptych.fence.sights import Sights
from diptych.log.change import Change
from diptych.log.snapshot import EVERYTHING, Snapshot

_PATIENCE_S = 0.25
"""How long what is on its way to Redis may take before it is left to a pass."""


class _Seen(NamedTuple):
    """A sight, and what it lists of each read model that changes can be looked for in."""

    sight: Sight
    lists: Mapping[FenceId, Listed]


class Acknowledger:
    """Holds a committed command back until queries see what it rests on. ``patience_s`` is for SQL to answer."""

    def __init__(self, fence: Fence, patience_s: float) -> None:
        self._fence = fence
        self._patience_s = patience_s
        self._sights: Sights[_Seen] = Sights(fence, self._since, lambda: self._own.entries, self._take)
        self._passes = Passes(fence, self.rows, patience_s)
        self._rows: Rows | None = None
        self._known: Mapping[FenceId, Target] = {}
        self._own = Own()
        self._xmax = 0
        self._arrivals: dict[FenceId, Arrivals] = {}
        self._bringing: set[asyncio.Task[bool]] = set()

    @property
    def read_side(self) -> ReadSide | None:
        """The read models of this process in Redis; None where there are none."""
        return self._passes.read_side

    @read_side.setter
    def read_side(self, read_side: ReadSide | None) -> None:
        self._passes.read_side = read_side

    @property
    def commands(self) -> int:
        """How many commands are under way."""
        return self._sights.commands

    @commands.setter
    def commands(self, number: int) -> None:
        self._sights.commands = number

    async def prepare(self) -> None:
        """Has the fence read once, so that it is known. Raises ``DatabaseUnavailableError``."""
        if self._rows is None:
            await self.rows()

    @property
    def known(self) -> Mapping[FenceId, Target]:
        """Which generations there are, as far as this process knows."""
        return self._known

    @property
    def is_idle(self) -> bool:
        """Whether it is likely that there is nothing to wait for: when last seen, no read model had a lease.

        A look at the fence can take the place of ``acknowledge`` then, if there is still none after the commit.
        """
        rows = self._rows or {}
        return self.read_side is None and self._rows is not None and not any(map(_is_leased, rows.values()))

    def ending(
        self, changes: Sequence[Change], touched: Collection[str], *, is_checked_late: bool = False
    ) -> Ending:
        """The end of a command that has made these changes, and may rest on rows of the tables ``touched``.

        ``is_checked_late`` if on what was committed after its last change too: a constraint is checked at its commit.

        To be made before the commit. ★ Not after it: a change applied to a generation that was begun after its commit
        may go over a later change, which the builder has read from SQL and stamped 0. What is a little out of date is
        harmless: that generation is gone then, or the fence read after the commit shows another.
        """
        last = changes[-1].position if changes and not is_checked_late else None
        ending = Ending(changes, touched, self.known, last)
        if self.read_side is not None:
            self._own.add(ending)
        return ending

    def failed(self, ending: Ending) -> None:
        """The commit has failed, or its outcome is not known: if it is there, it is like another process's."""
        ending.end()
        self._own.drop(ending)

    async def acknowledge(self, ending: Ending) -> None:
        """Returns when every query that starts from now on sees what the committed command rests on, or later states.

        Raises ``DatabaseUnavailableError`` if SQL does not tell in time whether they do.
        """
        try:
            applying: Mapping[FenceId, asyncio.Future[Applied]] = {}
            if self.read_side is not None and ending.known and ending.changes:
                applying = self.read_side.apply(ending.changes, ending.known)
            ending.begin(applying)
            seen = await self._seen()
            waiting = [
                row
                for row in seen.sight.rows.values()
                # Past its lease nobody trusts the read model: while Redis is down for everyone this costs no wait.
                if _is_leased(row) and not await self._is_in(row, seen, ending)
            ]
            if waiting:
                await self._passes.wait(waiting)
        finally:
            ending.end()

    async def rows(self) -> Rows:
        """The fence as it is at a moment after this call."""
        return (await self._sights.next()).sight.rows

    def on_row_changed(self, row: FenceRow) -> None:
        """Takes note of a fence row that a keeper has changed."""
        self._note({**(self._rows or {}), row.id: row})

    def on_pass_completed(self) -> None:
        """A keeper of this process has completed a pass: those who wait for it look at once."""
        self._passes.poke()

    async def close(self) -> None:
        """Ends what goes on in the background. Nobody waits any more when it is called."""
        await self._passes.close()
        await self._sights.close()
        for task in list(self._bringing):
            task.cancel()
            await asyncio.wait([task])

    # What is read

    def _since(self) -> Snapshot:
        """From where on a sight has to list changes: from what is known to be in every read model."""
        since = EVERYTHING
        for row in (self._rows or {}).values():
            arrivals = self._arrivals.get(row.id)
            if arrivals is not None and self._can_look(row):
                arrivals.advance(row)
                since = min(since, arrivals.seen, key=lambda snapshot: snapshot.stamp)
        self._own.forget(since)
        return since

    def _take(self, sight: Sight) -> _Seen:
        self._note(sight.rows)
        if sight.snapshot.xmax < self._xmax:
            # ★ SQL was put back to an earlier state: positions may be drawn again, for other changes.
            self._own, self._arrivals = Own(), {}
        self._xmax = sight.snapshot.xmax
        looked = filter(self._can_look, sight.rows.values())
        return _Seen(sight, {row.id: self._arrivals_of(row).took(sight, row) for row in looked})

    def _note(self, rows: Rows) -> None:
        self._rows = rows
        self._known = {row.id: Target(row.incarnation, row.generation) for row in rows.values()}

    def _can_look(self, row: FenceRow) -> bool:
        is_there = _is_leased(row) and row.cursor is not None
        return is_there and self.read_side is not None and self.read_side.can_look(row.id)

    def _arrivals_of(self, row: FenceRow) -> Arrivals:
        known = Target(row.incarnation, row.generation)
        arrivals = self._arrivals.get(row.id)
        if arrivals is None or arrivals.known != known:
            arrivals = self._arrivals[row.id] = Arrivals(row.id, known, self._own)
        return arrivals

    async def _seen(self) -> _Seen:
        seen = await self._sights.next_patiently(self._patience_s)
        if not all(listed.is_whole for listed in seen.lists.values()):
            # It was sent before this process knew of a lease, or of the generation: the next one lists all.
            seen = await self._sights.next_patiently(self._patience_s)
        return seen

    # What is in

    async def _is_in(self, row: FenceRow, seen: _Seen, ending: Ending) -> bool:
        """Whether all that the command may rest on is in the generation that this row shows."""
        listed = seen.lists.get(row.id)
        if listed is None:
            return not await self._concerns(row, ending)
        if not listed.is_whole:
            return False
        deadline = time.monotonic() + _PATIENCE_S
        own = ending.applying.get(row.id)
        if own is not None and not own.done():
            # First, and mostly the last to come: what was committed before it is in the same script, or before.
            await asyncio.wait([own], timeout=_PATIENCE_S)
        listed.arrivals.hear(ending.heard(row.id, listed.arrivals.known))
        has_brought = False
        while left := listed.left_of(ending):
            pending: set[asyncio.Future[Any]] = {
                future for entry in left if (future := listed.arrivals.pending(entry)) is not None
            }
            if not pending:
                if has_brought or self.read_side is None:
                    return False
                has_brought = True
                pending = {self._bring(self.read_side, row.id, listed, left)}
            if (left_s := deadline - time.monotonic()) <= 0:
                return False
            await asyncio.wait(pending, timeout=left_s)
        return True

    def _bring(
        self, read_side: ReadSide, fence: FenceId, listed: Listed, left: Sequence[Entry]
    ) -> asyncio.Task[bool]:
        known, snapshot = listed.arrivals.known, listed.snapshot
        task = asyncio.get_running_loop().create_task(read_side.bring_in(fence, known, left, snapshot))
        self._bringing.add(task)
        task.add_done_callback(self._bringing.discard)
        listed.arrivals.are_brought(left, task)
        return task

    async def _concerns(self, row: FenceRow, ending: Ending) -> bool:
        """Whether a read model that changes can't be looked for in may lack something that the command rests on."""
        # ★ A lease without a generation: the database was put elsewhere, and somebody may still trust what was there.
        # The log of this history does not tell what that lacks.
        if row.cursor is None or any(change.entity.table in row.tables for change in ending.changes):
            return True
        if row.tables.isdisjoint(ending.touched):
            return False
        try:
            return await self._fence.has_unseen(row, ending.last)
        except DatabaseUnavailableError:
            return True  # a pass will tell


def _is_leased(row: FenceRow) -> bool:
    return row.now <= row.lease_until
