"""The end of a command: it is acknowledged once no query can be answered without its changes.

The rules are steps 5 and 6 of the hinge, docs/concepts/hinge.md. They hold for every process that changes rows
through ``ORMService``, whether it knows Redis, this read model, this version of it, or not: a fence row that it can't
serve itself is one that its changes were not applied to.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence

from diptych.errors import DatabaseUnavailableError
from diptych.ports import Change, Fence, FenceId, FenceRow, Known, ReadSide

_log = logging.getLogger("diptych.write")

_POLL_S = 0.05
"""How often those who wait look at the fence. A pass of this process's own keeper is noticed at once."""

_ASK_AGAIN_S = 1.0
"""A request to other processes may have got lost: it is repeated by who comes so much later."""

_GATHER_S = 0.000_05
"""How far apart reads of the fence begin, for each command under way, when they come without a pause: with many
commands that wait in line anyway, more of them share a read."""

_APPLY_PATIENCE_S = 0.25
"""How long an apply may take before the change is left to a pass as well."""

Rows = Mapping[FenceId, FenceRow]

_NOT_KNOWN = "the change is committed, but SQL went away before it was known to be visible to queries"


class Acknowledger:
    """Holds a committed command back until it is visible to every query. ``patience_s`` is for SQL to answer.

    Reads of the fence are shared: of the commands that wait for one, all take the next that starts. ``commands`` is
    how many are under way.
    """

    def __init__(self, fence: Fence, patience_s: float) -> None:
        self.read_side: ReadSide | None = None
        self.commands = 0
        self._fence = fence
        self._patience_s = patience_s
        self._rows: Rows | None = None
        self._known: Mapping[FenceId, Known] = {}
        self._is_idle = False
        self._asking_for_rows: list[asyncio.Future[Rows]] = []
        self._reader: asyncio.Task[None] | None = None
        self._waiters: set[_Waiter] = set()
        self._poller: asyncio.Task[None] | None = None
        self._poked = asyncio.Event()
        self._asked: dict[FenceId, tuple[int, float]] = {}
        self._asking: set[asyncio.Task[None]] = set()

    async def prepare(self) -> None:
        """Has the fence read once, so that ``known`` is. Raises ``DatabaseUnavailableError``."""
        if self._rows is None:
            await self.rows()

    @property
    def known(self) -> Mapping[FenceId, Known]:
        """Which generations there are, as far as this process knows. To be taken before the commit.

        ★ Not after it: a change applied to a generation that was begun after its commit may go over a later change,
        which the builder has read from SQL and stamped 0. What is a little out of date is harmless: that generation
        is gone then, or the fence read after the commit shows another, and the change waits for a pass.
        """
        return self._known

    @property
    def is_idle(self) -> bool:
        """Whether it is likely that there is nothing to wait for: when last seen, no read model had a lease.

        A look at the fence can take the place of ``acknowledge`` then, if there is still none after the commit.
        """
        return self.read_side is None and self._is_idle

    async def acknowledge(
        self, changes: Sequence[Change], known: Mapping[FenceId, Known], relied_on: Collection[str] = ()
    ) -> None:
        """Returns when every query that starts from now on sees these committed changes, or later ones.

        And what was committed before to the tables ``relied_on``. Raises ``DatabaseUnavailableError`` if SQL does not
        tell in time whether they do.
        """
        tables = {change.entity.table for change in changes}.union(relied_on)
        applying: Mapping[FenceId, asyncio.Future[bool]] = {}
        if self.read_side is not None and known and changes:
            applying = self.read_side.apply(changes, known)
        pending = [
            row
            for row in (await self._read_patiently()).values()
            # Past its lease nobody trusts the read model: while Redis is down for everyone this costs no wait.
            if row.now <= row.lease_until and not row.tables.isdisjoint(tables)
        ]
        if pending and applying:
            under_way = [done for done in applying.values() if not done.done()]
            if under_way:
                await asyncio.wait(under_way, timeout=_APPLY_PATIENCE_S)
            pending = [row for row in pending if not _is_in(row, applying, known)]
        if pending:
            await self._wait(pending)

    async def rows(self) -> Rows:
        """The fence as it is at a moment after this call."""
        # ★ Taken along by the read that has not been sent yet, never by one that has: that may be older than the
        # caller's commit.
        answer: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
        self._asking_for_rows.append(answer)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.get_running_loop().create_task(self._read_while_asked())
        return await answer

    def saw(self, row: FenceRow) -> None:
        """Takes note of a fence row that a keeper has changed."""
        self._take({**(self._rows or {}), row.id: row})

    def passed(self) -> None:
        """A keeper of this process has completed a pass: those who wait for it look at once."""
        self._poked.set()

    async def close(self) -> None:
        """Ends the poller. Nobody waits any more when it is called."""
        for task in (self._poller, self._reader, *self._asking):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def _read_while_asked(self) -> None:
        answers: list[asyncio.Future[Rows]] = []
        try:
            while self._asking_for_rows:
                began = time.monotonic()
                answers, self._asking_for_rows = self._asking_for_rows, []
                await self._answer(answers)
                if self._asking_for_rows:
                    await asyncio.sleep(began + _GATHER_S * self.commands - time.monotonic())
        finally:
            for answer in _awaited([*answers, *self._asking_for_rows]):  # if this was cut off
                answer.set_exception(DatabaseUnavailableError(_NOT_KNOWN))

    async def _answer(self, answers: Sequence[asyncio.Future[Rows]]) -> None:
        try:
            rows = {row.id: row for row in await self._fence.rows()}
        except Exception as error:
            for answer in _awaited(answers):
                answer.set_exception(error)
        else:
            self._take(rows)
            for answer in _awaited(answers):
                answer.set_result(rows)

    def _take(self, rows: Rows) -> None:
        self._rows = rows
        self._is_idle = all(row.now > row.lease_until for row in rows.values())
        self._known = {row.id: Known(row.incarnation, row.generation) for row in rows.values()}

    async def _read_patiently(self) -> Rows:
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return await self.rows()
            except DatabaseUnavailableError as error:
                if time.monotonic() > deadline:
                    raise DatabaseUnavailableError(_NOT_KNOWN) from error
                await asyncio.sleep(_POLL_S)

    async def _wait(self, rows: Sequence[FenceRow]) -> None:
        """Until each of these leases is over, or a pass that starts later than now has carried the changes."""
        waiter = _Waiter(rows)
        self._waiters.add(waiter)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.get_running_loop().create_task(self._poll())
        try:
            self._ask({row.id: row.passes_started for row in rows})
            await waiter.done
        finally:
            self._waiters.discard(waiter)

    def _ask(self, after: Mapping[FenceId, int]) -> None:
        own = self.read_side.ask(after) if self.read_side is not None else ()
        now = time.monotonic()
        for fence in after.keys() - set(own):
            # Once: whoever comes before the next pass begins is served by it too. But it may get lost.
            number, asked_at = self._asked.get(fence, (-1, 0.0))
            if number != after[fence] or now > asked_at + _ASK_AGAIN_S:
                self._asked[fence] = after[fence], now
                task = asyncio.get_running_loop().create_task(self._ask_others(fence, after[fence]))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    async def _ask_others(self, fence: FenceId, after: int) -> None:
        try:
            await self._fence.ask(fence, after)
        except Exception as error:
            _log.debug("a request for a pass got lost: %s", error)
            self._asked.pop(fence, None)

    async def _poll(self) -> None:
        """One for the whole process: those who wait hold no connection of SQL."""
        answered = time.monotonic()
        while self._waiters:
            try:
                rows = await self.rows()
            except Exception as error:
                is_transient = isinstance(error, DatabaseUnavailableError)
                if not is_transient or time.monotonic() - answered > self._patience_s:
                    for waiter in self._waiters:
                        waiter.fail(error)
                    return
            else:
                answered = time.monotonic()
                for waiter in self._waiters:
                    waiter.look_at(rows)
            self._poked.clear()
            try:
                async with asyncio.timeout(_POLL_S):
                    await self._poked.wait()
            except TimeoutError:
                pass


def _is_in(
    row: FenceRow, applying: Mapping[FenceId, asyncio.Future[bool]], known: Mapping[FenceId, Known]
) -> bool:
    """Whether the changes are in the generation that this row shows.

    ★ Only what was applied may be acknowledged at once, and ★ only if the fence still shows the incarnation and
    generation that it was applied to: another one was filled from SQL, perhaps before the commit. A later change of
    either is filled from a snapshot that holds this command.
    """
    applied = applying.get(row.id)
    if applied is None or not applied.done() or not applied.result():
        return False
    return known[row.id] == Known(row.incarnation, row.generation)


def _awaited(answers: Sequence[asyncio.Future[Rows]]) -> list[asyncio.Future[Rows]]:
    """Those whose callers were not cancelled meanwhile."""
    return [answer for answer in answers if not answer.done()]


class _Waiter:
    """A command that waits for passes over some read models, or for the end of their leases."""

    def __init__(self, rows: Sequence[FenceRow]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rows = {row.id: row for row in rows}

    def look_at(self, rows: Rows) -> None:
        self._rows = {fence: row for fence, row in self._rows.items() if _is_waited_for(row, rows.get(fence))}
        if not self._rows and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            failure = DatabaseUnavailableError(_NOT_KNOWN)
            failure.__cause__ = error
            self.done.set_exception(failure)


def _is_waited_for(row: FenceRow, now: FenceRow | None) -> bool:
    if now is None or now.now > row.lease_until:
        return False
    # ★ A pass that was under way when the fence was read may have read the log before the commit: a later one counts.
    return now.passes_completed <= row.passes_started
