"""Commands that wait for a pass of a keeper, or for the end of a lease: step 6 of the hinge."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from diptych.errors import DatabaseUnavailableError
from diptych.fence.contract import FenceId, FenceRow, ReadSide
from diptych.fence.fence import Fence
from diptych.fence.sights import NOT_KNOWN

_log = logging.getLogger("diptych.write")

_POLL_S = 0.05
"""How often those who wait look at the fence. A pass of this process's own keeper is noticed at once."""

_ASK_AGAIN_S = 1.0
"""A request to other processes may have got lost: it is repeated by who comes so much later."""

Rows = Mapping[FenceId, FenceRow]


class Passes:
    """Waits for passes, and asks for them. ``rows`` reads the fence; ``patience_s`` is for SQL to answer."""

    def __init__(self, fence: Fence, rows: Callable[[], Awaitable[Rows]], patience_s: float) -> None:
        self.read_side: ReadSide | None = None
        self._fence = fence
        self._rows = rows
        self._patience_s = patience_s
        self._waiters: set[_Waiter] = set()
        self._poller: asyncio.Task[None] | None = None
        self._poked = asyncio.Event()
        self._asked: dict[FenceId, tuple[int, float]] = {}
        self._asking: set[asyncio.Task[None]] = set()

    async def wait(self, rows: Sequence[FenceRow]) -> None:
        """Until each of these leases is over, or a pass that starts later than now has carried the log."""
        waiter = _Waiter(rows)
        self._waiters.add(waiter)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.get_running_loop().create_task(self._poll())
        try:
            self._ask({row.id: row.passes_started for row in rows})
            await waiter.done
        finally:
            self._waiters.discard(waiter)

    def poke(self) -> None:
        """A keeper of this process has completed a pass: those who wait look at once."""
        self._poked.set()

    async def close(self) -> None:
        """Ends the poller. Nobody waits any more when it is called."""
        for task in (self._poller, *self._asking):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])

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
                rows = await self._rows()
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


class _Waiter:
    """A command that waits for passes over some read models, or for the end of their leases."""

    def __init__(self, rows: Sequence[FenceRow]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rows = {row.id: row for row in rows}

    def look_at(self, rows: Rows) -> None:
        for fence, row in self._rows.items():
            now = rows.get(fence)
            if now is not None and now.history != row.history:
                # ★ The database was put elsewhere: the end of the lease that was waited for was by another clock, and
                # whoever was promised something has been given some time by this one.
                self._rows[fence] = now
        self._rows = {fence: row for fence, row in self._rows.items() if _is_waited_for(row, rows.get(fence))}
        if not self._rows and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            failure = DatabaseUnavailableError(NOT_KNOWN)
            failure.__cause__ = error
            self.done.set_exception(failure)


def _is_waited_for(row: FenceRow, now: FenceRow | None) -> bool:
    if now is None or now.now > row.lease_until:
        return False
    # ★ A pass that was under way when the fence was read may have read the log before the commit: a later one counts.
    return now.passes_completed <= row.passes_started
