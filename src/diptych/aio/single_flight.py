"""Shared executions: equal calls waiting for their turn are executed once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """A limit of concurrent executions, with a shared execution for equal calls in the queue.

    ``turns`` is the limit: as many executions run at once as the semaphore admits, and several instances may share
    it. A call joins an execution only before it has begun, so no result is older than the call that gets it.
    """

    def __init__(self, turns: asyncio.Semaphore) -> None:
        self._turns = turns
        self._queued: dict[Hashable, _Execution[T]] = {}

    async def run(self, key: Hashable, execute: Callable[[], Awaitable[T]]) -> T:
        """Returns the result of ``execute``, or of the queued execution with an equal ``key``.

        An exception of the execution is raised to all its callers. A cancelled caller leaves the others their result;
        an execution without callers is cancelled, and not begun if it was queued.
        """
        if not self._turns.locked():
            async with self._turns:
                return await execute()
        execution = self._queued.get(key)
        if execution is None:
            execution = self._queued[key] = _Execution(self._run_in_turn(key, execute))
        execution.callers += 1
        try:
            return await asyncio.shield(execution.task)
        finally:
            execution.callers -= 1
            if not execution.callers and not execution.task.done():
                # Forgotten at once: the next caller must not wait for an execution that is being cancelled.
                if self._queued.get(key) is execution:
                    del self._queued[key]
                execution.task.cancel()

    async def _run_in_turn(self, key: Hashable, execute: Callable[[], Awaitable[T]]) -> T:
        async with self._turns:
            # ★ From here on nobody joins. An execution that has begun may have read its rows already: a caller that
            # comes now may come after a command was acknowledged whose change is not among them.
            del self._queued[key]
            return await execute()


class _Execution(Generic[T]):
    """An execution in a task of its own, since its callers come and go."""

    def __init__(self, run: Coroutine[Any, Any, T]) -> None:
        self.task = asyncio.get_running_loop().create_task(run)
        self.callers = 0
