"""A step repeated in the background, with the contract of start and stop for all work beside requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger("diptych")

_PATIENCE_S = 0.1
"""Time between two attempts to cancel a step, in seconds."""


class Looper:
    """A task that awaits ``step`` every ``interval_s`` seconds, and at once when woken, until it is stopped.

    ``stop`` returns when the step is over, and is safe to call twice and before ``start``. An exception of the step
    is logged, and the step is tried again at its next turn.
    """

    def __init__(self, name: str, step: Callable[[], Awaitable[None]], interval_s: float) -> None:
        self._name = name
        self._step = step
        self._interval_s = interval_s
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"diptych {self._name}")

    async def stop(self) -> None:
        task, self._task = self._task, None
        while task is not None and not task.done():
            # Again and again: a coroutine that the step awaits may swallow a cancellation (`asyncio.wait_for` does
            # before Python 3.12, when its own coroutine is done in the same moment).
            task.cancel()
            await asyncio.wait([task], timeout=_PATIENCE_S)

    def wake(self) -> None:
        """Makes the step run now instead of at the end of the interval."""
        self._woken.set()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self._step()
            except Exception:
                _log.exception("%s failed; it is tried again in %g s", self._name, self._interval_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._woken.wait()
