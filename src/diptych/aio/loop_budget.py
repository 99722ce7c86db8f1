"""How long queries that SQL answers keep the event loop busy at a stretch."""

from __future__ import annotations

import asyncio
import time


class LoopBudget:
    """Spreads work that is done in the event loop over its turns: about ``share_s`` seconds in one, then the next.

    A turn is what the loop does between two looks at its sockets and timers. Reads that never wait, and rows that
    become documents, would all be done in the turn in which they are asked for, be it one or a thousand, and
    everything else would wait for the last of them.
    """

    def __init__(self, share_s: float = 0.002) -> None:
        self._share_s = share_s
        self._began = 0.0
        self._turn_of: asyncio.AbstractEventLoop | None = None

    async def keep(self) -> None:
        """Returns at once while there is time left in this turn, else in a later one."""
        while self._is_over():  # noqa: ASYNC110 - the next turn of the loop is all there is to wait for
            await asyncio.sleep(0)

    def _is_over(self) -> bool:
        """Whether the turn has had its share, which is counted from the first time that this is asked in it."""
        loop = asyncio.get_running_loop()
        if self._turn_of is not loop:
            self._turn_of = loop
            self._began = time.perf_counter()
            loop.call_soon(self._end)
            return False
        return time.perf_counter() - self._began >= self._share_s

    def _end(self) -> None:
        self._turn_of = None
