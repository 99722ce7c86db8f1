"""A lock with two queues, for tasks that hold up all others while they wait and for the rest."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator


class PriorityLock:
    """A lock whose turns go to waiting tasks in the order of asking, ``first`` tasks before the rest.

    A task gives up with ``TimeoutError`` if its turn does not come within ``timeout_s`` seconds.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._taken = False  # while the lock is free, both queues are empty
        self._first: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()

    @property
    def is_wanted_first(self) -> bool:
        """True while a ``first`` task waits."""
        return bool(self._first)

    @contextlib.asynccontextmanager
    async def take(self, first: bool = False) -> AsyncIterator[None]:
        """Waits for the turn and holds the lock during the block. Raises ``TimeoutError``."""
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
                self._pass_on()  # the turn came in the moment in which the task gave up
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
