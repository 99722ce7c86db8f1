"""The acknowledgement of a command: its result is returned once every query sees the changes that it rests on.

A command rests on its own changes, and on every change that was committed before and that the command may have built
on: the process of such a change may have been killed before the change was brought to Redis.
The rules are steps 5 and 6 of docs/concepts/hinge.md. They hold for every process that changes rows through
``ORMService``, whether or not it knows Redis, a read model, or a read model's version: for a fence row that the
process can't serve itself, a command waits for a pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from diptych.errors import DatabaseUnavailableError
from diptych.fence.arrivals import Ending, Listed, NotedSight
from diptych.fence.contract import Applied, FenceId, FenceRow, ReadSide, Target
from diptych.fence.fence import Fence
from diptych.fence.rows import FenceRows
from diptych.fence.waiting import Passes
from diptych.log import Change, Entry
from diptych.statistics import WaitCounter

_log = logging.getLogger("diptych.write")

_PATIENCE_S = 0.25
"""Time in seconds that a change on its way to Redis may take before the command asks for a pass."""

_MAKING_S = 1.0
"""Time in seconds that documents of several rows may take before the command asks for a pass, which has them too."""


class Acknowledger:
    """Holds each committed command back until queries see the changes that the command rests on.

    ``patience_s`` is the time that SQL has to answer, in seconds. ``tracker`` has the read models of this process,
    ``waits`` counts how long commands were held back.
    """

    def __init__(self, fence: Fence, rows: FenceRows, patience_s: float) -> None:
        self.rows = rows
        self._fence = fence
        self._patience_s = patience_s
        self.tracker = rows.tracker
        self._passes = Passes(fence, rows, patience_s)
        self.waits = WaitCounter()
        self._bringing: set[asyncio.Task[bool]] = set()

    @property
    def is_idle(self) -> bool:
        """True if no read model had a lease when the fence was last read: commands probably need not wait.

        A look at the fence can take the place of ``acknowledge`` then, if there is still no lease after the commit.
        """
        rows = self.rows.latest
        if self.tracker.read_side is not None or rows is None:
            return False
        return not any(row.is_leased for row in rows.values())

    async def prepare(self) -> None:
        """Reads the fence, unless this process has done so before. Raises ``DatabaseUnavailableError``."""
        if self.rows.latest is None:
            await self.rows.rows()

    def ending(
        self,
        changes: Sequence[Change],
        touched: Collection[str] | None,
        *,
        looks_late: bool = False,
        is_whole: bool = True,
        targets: Mapping[FenceId, Target] | None = None,
    ) -> Ending:
        """Returns the end of a command with these changes, which may rest on rows of the tables ``touched``.

        ``touched`` is None for a command that may rest on rows of any table. ``looks_late`` if the command may
        rest on any change that was committed before its end: a constraint, or a read model, has shown it more than
        its snapshot. Not ``is_whole`` if triggers may have written further entries in its transaction: it rests on
        all that the sight shows then.

        To be called before the commit, or with the ``targets`` from before it. ★ A change applied to a generation
        that was begun after its commit may go over a later change, which the builder has read from SQL and stamped 0.
        A target that is a little out of date is harmless: its generation is gone then, or the fence read after the
        commit shows another.
        """
        last = changes[-1].position if changes and is_whole and not looks_late else None
        known = self.rows.targets if targets is None else targets
        ending = Ending(changes, touched, known, last, is_whole=is_whole)
        if self.tracker.read_side is not None:
            self.tracker.own.add(ending)
        return ending

    @contextlib.contextmanager
    def committing(self) -> Iterator[None]:
        """Inside the block, a statement commits a change; this process learns its position afterwards.

        Other commands, which may see the change before, wait for that instead of bringing the change in themselves.
        """
        heard = asyncio.get_running_loop().create_future()
        self.tracker.own.committing.add(heard)
        try:
            yield
        finally:
            self.tracker.own.committing.discard(heard)
            heard.set_result(None)

    def failed(self, ending: Ending) -> None:
        """Takes note of a commit without success, or with an unknown outcome.

        Changes that are committed none the less are taken for another process's.
        """
        ending.end()
        self.tracker.own.drop(ending)

    async def catch_up(self, captured: Collection[str]) -> None:
        """Returns when every query from now on sees all that was committed before, by anybody.

        ``captured`` are tables whose changes triggers log. Raises ``DatabaseUnavailableError``.

        ★ Their fingerprints are looked at first, before the sight: a change that was made while the triggers were not
        as they should be is in no log that a sight shows.
        """
        missed = await self.rows.missed(captured) if captured else ()
        ending = self.ending((), None)
        ending.missed = missed
        await self.acknowledge(ending)

    async def acknowledge(self, ending: Ending) -> None:
        """Returns when every query from now on sees the changes that the command rests on, or later states.

        Raises ``DatabaseUnavailableError`` if SQL does not answer in time.
        """
        began = time.monotonic()
        try:
            read_side = self.tracker.read_side
            applying: Mapping[FenceId, asyncio.Future[Applied]] = {}
            # ★ Of rows that triggers or statements of the application may have changed once more, only the sight
            # knows the last state: the state between was never committed alone.
            if read_side is not None and ending.targets and ending.changes and ending.is_whole:
                applying = read_side.apply(ending.changes, ending.targets)
            ending.begin(applying)
            writing = self._begin_anew(ending)
            seen = await self._sight(expects_entries=not ending.is_whole)
            waiting = [
                row
                for row in seen.rows.values()
                # Past its lease no query trusts a read model: while Redis is down for everyone this costs no wait.
                if row.is_leased
                and not (
                    row.tables.isdisjoint(ending.missed) and await self._is_in(row, seen, ending, writing)
                )
            ]
            if waiting:
                await self._passes.wait(waiting)
            self.waits.add(time.monotonic() - began, by_pass=bool(waiting))
        finally:
            ending.end()

    async def close(self) -> None:
        """Ends the tasks in the background, and reads of the fence. No command waits any more when this is called."""
        await self._passes.close()
        await self.rows.close()
        for task in list(self._bringing):
            task.cancel()
            await asyncio.wait([task])

    async def _sight(self, *, expects_entries: bool) -> NotedSight:
        seen = await self.rows.sight_within(self._patience_s, expects_entries=expects_entries)
        if not all(listed.is_whole for listed in seen.lists.values()):
            # It began before this process knew of a lease, or of the generation. The next sight lists all changes.
            seen = await self.rows.sight_within(self._patience_s)
        return seen

    def _begin_anew(self, ending: Ending) -> Mapping[FenceId, asyncio.Future[bool]]:
        """Begins to write documents of several rows, beside the sight, if the command has probably touched some."""
        read_side, rows = self.tracker.read_side, self.rows.latest or {}
        if read_side is None or (ending.is_whole and not ending.changes):
            return {}
        changed = {change.entity.table for change in ending.changes}
        begun = (
            (fence, read_side.write_anew(fence, target))
            for fence, target in ending.targets.items()
            if fence in rows
            # Without a lease nobody waits for them.
            and rows[fence].is_leased
            and not (ending.is_whole and rows[fence].tables.isdisjoint(changed))
        )
        return {fence: writing for fence, writing in begun if writing is not None}

    async def _is_in(
        self, row: FenceRow, seen: NotedSight, ending: Ending, writing: Mapping[FenceId, asyncio.Future[bool]]
    ) -> bool:
        """Returns whether every change that the command may rest on is in the generation of this fence row."""
        listed = seen.lists.get(row.id)
        if listed is None:
            is_in = row.id not in writing and not await self._may_lack(row, ending)
            return is_in or await self._is_made_anew(row, ending, writing)
        if not listed.is_whole:
            return False
        deadline = time.monotonic() + _PATIENCE_S
        own = ending.applying.get(row.id)
        if own is not None and not own.done():
            # Own changes first, since they mostly come last: earlier ones are in the same script, or one before.
            await asyncio.wait([own], timeout=_PATIENCE_S)
        listed.arrivals.hear(ending.heard(row.id, listed.arrivals.target))
        has_brought = False
        while left := listed.left_of(ending):
            pending: set[asyncio.Future[Any]] = {
                known for entry in left if (known := listed.arrivals.pending(entry)) is not None
            }
            if not pending:
                pending = {heard for heard in listed.committing if not heard.done()}
            if not pending:
                if has_brought or self.tracker.read_side is None:
                    return False
                has_brought = True
                pending = {self._bring(self.tracker.read_side, row.id, listed, left)}
            if (left_s := deadline - time.monotonic()) <= 0:
                return False
            await asyncio.wait(pending, timeout=left_s)
        return True

    async def _is_made_anew(
        self, row: FenceRow, ending: Ending, begun: Mapping[FenceId, asyncio.Future[bool]]
    ) -> bool:
        """Returns whether the documents of several rows are in as a snapshot after the commit shows them."""
        # ★ The generation was known before the commit, and counts after it: another one was filled from SQL, perhaps
        # before the commit.
        if self.tracker.read_side is None or ending.targets.get(row.id) != row.target:
            return False
        writing = begun.get(row.id) or self.tracker.read_side.write_anew(row.id, row.target)
        if writing is None:
            return False
        # Past its lease no query trusts the read model.
        await asyncio.wait([writing], timeout=min(_MAKING_S, row.lease_until - row.now))
        return writing.done() and writing.result()

    def _bring(
        self, read_side: ReadSide, fence: FenceId, listed: Listed, left: Sequence[Entry]
    ) -> asyncio.Task[bool]:
        expected = any(listed.arrivals.may_come(entry) for entry in left)
        bringing = read_side.bring_in(fence, listed.arrivals.target, left, listed.snapshot, expected=expected)
        task = asyncio.get_running_loop().create_task(bringing)
        self._bringing.add(task)
        task.add_done_callback(self._bringing.discard)
        listed.arrivals.are_brought(left, task)
        return task

    async def _may_lack(self, row: FenceRow, ending: Ending) -> bool:
        """Returns whether a read model may lack a change that the command rests on.

        For read models in whose documents changes can't be looked for.
        """
        # ★ A lease without a generation: the database was put elsewhere, and somebody may still trust the generation
        # that was there. The log of this history does not tell which changes that generation lacks.
        if row.cursor is None or any(change.entity.table in row.tables for change in ending.changes):
            return True
        # ★ What triggers and foreign keys have done may be in any table: those of a table may set off others'.
        if ending.is_whole and ending.touched is not None and row.tables.isdisjoint(ending.touched):
            return False
        try:
            return await self._fence.has_unseen(row, ending.last)
        except DatabaseUnavailableError:
            return True  # a pass will tell
