"""Equal questions that wait for their turn share one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Lets as many executions run at once as there are ``turns``. The others wait, and equal ones are one."""

    def __init__(self, turns: asyncio.Semaphore) -> None:
        self._turns = turns
        self._unsent: dict[Hashable, _Execution[T]] = {}

    async def answer(self, question: Hashable, execute: Callable[[], Awaitable[T]]) -> T:
        """What ``execute`` gives, or that of an equal question that waits. Whatever it raises reaches all of them.

        Who is cancelled leaves the others their answer. What nobody waits for any more is not executed.
        """
        if not self._turns.locked():
            async with self._turns:
                return await execute()
        execution = self._unsent.get(question)
        if execution is None:
            execution = self._unsent[question] = _Execution(self._run(question, execute))
        execution.waiting += 1
        try:
            return await asyncio.shield(execution.task)
        finally:
            execution.waiting -= 1
            if not execution.waiting and not execution.task.done():
                # Forgotten at once: who asks next must not wait for one that is being cancelled.
                if self._unsent.get(question) is execution:
                    del self._unsent[question]
                execution.task.cancel()

    async def _run(self, question: Hashable, execute: Callable[[], Awaitable[T]]) -> T:
        async with self._turns:
            # ★ From here on nobody joins. An execution that has been sent may have read its rows already: who asks
            # now may ask after a command was acknowledged whose change is not among them.
            del self._unsent[question]
            return await execute()


class _Execution(Generic[T]):
    """An execution in a task of its own, since those who wait for it come and go."""

    def __init__(self, run: Coroutine[Any, Any, T]) -> None:
        self.task = asyncio.get_running_loop().create_task(run)
        self.waiting = 0
