"""Tasks: work repeated in the background, and work protected from the cancellation of its caller."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_log = logging.getLogger("diptych")

_PATIENCE_S = 0.1
"""Time between two attempts to cancel a step, in seconds."""


class Looper:
    """A task that awaits ``step`` again and again, until it is stopped.

    The next step comes after the pause in seconds that the step returns (None: ``interval_s``), and at once when
    woken. ``stop`` returns when the step is over, and is safe to call twice and before ``start``. An exception of the
    step is logged, and the step is tried again at its next turn.
    """

    def __init__(self, name: str, step: Callable[[], Awaitable[float | None]], interval_s: float) -> None:
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
        """Makes the step run now instead of at the end of the pause."""
        self._woken.set()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            pause_s = None
            try:
                pause_s = await self._step()
            except Exception:
                _log.exception("%s failed; it is tried again in %g s", self._name, self._interval_s)
            await set_within(self._woken, self._interval_s if pause_s is None else pause_s)


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Waits for ``event`` for so many seconds at most, and returns whether it is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Awaits ``work`` to its end and returns its result, even if the caller is cancelled meanwhile.

    Raises the cancellation afterwards; a result or an error of ``work`` is then dropped.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # the caller has gone: asyncio need not report that the error was never retrieved
        raise


async def read_ahead(batches: AsyncIterator[T]) -> AsyncIterator[T]:
    """Yields the same batches; while one of them is being used, the next is being read."""
    reading = asyncio.ensure_future(anext(batches, None))
    try:
        while (batch := await reading) is not None:
            reading = asyncio.ensure_future(anext(batches, None))
            yield batch
    finally:
        reading.cancel()
        await asyncio.wait([reading])
