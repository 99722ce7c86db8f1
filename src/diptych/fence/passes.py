"""The wait of commands for a pass of a keeper, or for the end of a lease: step 6 of docs/concepts/hinge.md."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from diptych.errors import DatabaseUnavailableError
from diptych.fence.contract import FenceId, FenceRow, ReadSide, Rows
from diptych.fence.fence import Fence
from diptych.fence.rows import NOT_KNOWN, FenceRows

_log = logging.getLogger("diptych.write")

_POLL_S = 0.05
"""Interval between two reads of the fence while commands wait, in seconds. A pass of this process ends it early."""

_ASK_AGAIN_S = 1.0
"""Age in seconds from which a request to other processes is repeated for a later command: it may have got lost."""


class Passes:
    """Asks keepers for passes, and waits for these. ``patience_s`` is the time for SQL to answer, in seconds."""

    def __init__(self, fence: Fence, rows: FenceRows, patience_s: float) -> None:
        self._fence = fence
        self._rows = rows
        self._patience_s = patience_s
        self._waiters: set[_Waiter] = set()
        self._poller: asyncio.Task[None] | None = None
        self._asked: dict[FenceId, tuple[int, float]] = {}
        self._asking: set[asyncio.Task[None]] = set()

    async def wait(self, rows: Sequence[FenceRow], read_side: ReadSide | None) -> None:
        """Returns when each of these leases is over, or a pass started later than its row was read is completed.

        Keepers of this process, asked through ``read_side``, are preferred to other processes' keepers. Raises
        ``DatabaseUnavailableError`` if SQL is away for too long.
        """
        waiter = _Waiter(rows)
        self._waiters.add(waiter)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.get_running_loop().create_task(self._poll())
        try:
            self._ask({row.id: row.passes_started for row in rows}, read_side)
            await waiter.done
        finally:
            self._waiters.discard(waiter)

    async def close(self) -> None:
        """Ends the poller. No command waits any more when this is called."""
        for task in (self._poller, *self._asking):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])

    def _ask(self, after: Mapping[FenceId, int], read_side: ReadSide | None) -> None:
        own = read_side.ask(after) if read_side is not None else ()
        now = time.monotonic()
        for fence in after.keys() - set(own):
            # Once for each pass: a command that comes before the next pass begins is served by that pass too. But
            # the request may get lost.
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
        """Reads the fence for all waiting commands: the commands themselves hold no connection to SQL meanwhile."""
        answered = time.monotonic()
        while self._waiters:
            try:
                rows = await self._rows.rows()
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
            await self._pause()

    async def _pause(self) -> None:
        self._rows.pass_completed.clear()
        try:
            async with asyncio.timeout(_POLL_S):
                await self._rows.pass_completed.wait()
        except TimeoutError:
            pass


class _Waiter:
    """A command's wait for passes over some read models, or for the end of their leases."""

    def __init__(self, rows: Sequence[FenceRow]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rows = {row.id: row for row in rows}

    def look_at(self, rows: Rows) -> None:
        for fence, row in self._rows.items():
            now = rows.get(fence)
            if now is not None and now.history != row.history:
                # ★ The database was put elsewhere. The lease that was waited for ended by another clock; whoever was
                # promised something has been given some time by the clock that counts now.
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
