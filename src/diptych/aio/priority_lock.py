"""One queue for what takes turns, with those first who hold up everybody else while they wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator


class PriorityLock:
    """Lets one in at a time: in the order of asking, but those who ask to be ``first`` before all others.

    A turn that does not come within ``timeout_s`` is given up with ``TimeoutError``.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._taken = False  # while it is not, nobody waits
        self._first: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()

    @property
    def is_wanted_first(self) -> bool:
        """Whether somebody who asked to be ``first`` waits."""
        return bool(self._first)

    @contextlib.asynccontextmanager
    async def take(self, first: bool = False) -> AsyncIterator[None]:
        """Waits for the turn, which lasts as long as the block. Raises ``TimeoutError``."""
        if self._taken:
            await self._wait(self._first if first else self._others)
        self._taken = True
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, queue: deque[asyncio.Future[None]]) -> None:
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            async with asyncio.timeout(self._timeout_s):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._pass_on()  # it came in the moment in which the wait was given up
            elif turn in queue:
                queue.remove(turn)
            raise

    def _pass_on(self) -> None:
        for queue in (self._first, self._others):
            while queue:
                turn = queue.popleft()
                if not turn.done():  # else its task is being cancelled
                    turn.set_result(None)
                    return
        self._taken = False
