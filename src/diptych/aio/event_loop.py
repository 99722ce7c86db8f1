"""The event loop: the loop an object belongs to, and a limit on how long work keeps everything else waiting."""

from __future__ import annotations

import asyncio
import time
from threading import get_ident

from diptych.errors import DifferentLoopError


class HomeLoop:
    """The event loop in which an object was opened, and where its locks, connections and tasks are.

    A future of this loop never wakes a task of another loop, which would wait for ever. ``what`` names the opened
    object in the error. The loop is the one that runs when the ``HomeLoop`` is made.
    """

    __slots__ = ("_loop", "_thread", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()

    def check(self) -> None:
        """Raises ``DifferentLoopError`` unless this loop is running now."""
        # A thread runs one loop at a time. Before Python 3.12 to ask for the running loop is a system call.
        if get_ident() == self._thread and self._loop.is_running():
            return
        if asyncio.get_running_loop() is not self._loop:
            raise DifferentLoopError(self._what, is_closed=self._loop.is_closed())


class LoopBudget:
    """A budget of ``share_s`` seconds in each turn of the event loop, shared by all work waiting for the budget.

    A turn lasts from one look at sockets and timers to the next. Reads that never wait, and rows that become
    documents, would all be done in the turn in which they are asked for, be it one or a thousand, and everything else
    would wait for the last of them.
    """

    def __init__(self, share_s: float = 0.002) -> None:
        self._share_s = share_s
        self._began = 0.0
        self._turn_of: asyncio.AbstractEventLoop | None = None

    async def wait(self) -> None:
        """Returns at once while this turn has time left, else in a later turn."""
        while self._is_spent():  # noqa: ASYNC110 - the next turn of the loop is all there is to wait for
            await asyncio.sleep(0)

    def _is_spent(self) -> bool:
        """Says if the share of this turn is used up; the first call in a turn begins to count."""
        loop = asyncio.get_running_loop()
        if self._turn_of is not loop:
            self._turn_of = loop
            self._began = time.perf_counter()
            loop.call_soon(self._end)
            return False
        return time.perf_counter() - self._began >= self._share_s

    def _end(self) -> None:
        self._turn_of = None
