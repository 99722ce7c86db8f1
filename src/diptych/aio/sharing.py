"""Shared work: calls gathered into batches, and single executions of equal calls."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Batcher(Generic[K, V]):
    """A queue of look-ups, sent in batches of at most ``max_keys`` keys, ``max_batches`` at once.

    ``send`` begins to look a batch up and returns; the batch ends by ``Batch.resolve`` or ``Batch.resolve_later``.
    Look-ups beyond these limits wait in the queue, where a cancelled one is dropped before it is sent.
    """

    def __init__(self, send: Callable[[Batch[K, V]], None], *, max_keys: int, max_batches: int) -> None:
        self._send = send
        self._max_keys = max_keys
        self._max_batches = max_batches
        self._queue: deque[tuple[K, asyncio.Future[V]]] = deque()
        self._under_way: set[Batch[K, V]] = set()

    def get(self, key: K) -> asyncio.Future[V]:
        """Returns a future of the value of ``key``, to be awaited in this event loop."""
        if not self._queue:
            # Asked for once a turn: before Python 3.12 it is a system call.
            self._loop = asyncio.get_running_loop()
            self._begin()
        value: asyncio.Future[V] = self._loop.create_future()
        self._queue.append((key, value))
        return value

    def _begin(self) -> None:
        self._loop.call_soon(self._send_queued)

    def _send_queued(self) -> None:
        while self._queue and len(self._under_way) < self._max_batches:
            if calls := self._take():
                batch = Batch(calls, self._ended)
                self._under_way.add(batch)
                self._send(batch)

    def _take(self) -> Sequence[tuple[K, asyncio.Future[V]]]:
        """Takes the look-ups of a batch out of the queue. Returns all but the cancelled."""
        count = min(len(self._queue), self._max_keys)
        taken = [self._queue.popleft() for _ in range(count)]
        return [look_up for look_up in taken if not look_up[1].done()]

    def _ended(self, batch: Batch[K, V]) -> None:
        self._under_way.discard(batch)
        if self._queue:  # but not from here: a lost connection may end many at once
            self._begin()


class SerialBatcher(Batcher[K, V]):
    """A queue of calls whose batches are executed one after the other. A call joins the next batch, never one begun.

    ``execute`` returns a value for each key of a batch. ``pause_s`` returns the pause before the next batch, in
    seconds, if calls for it have come already. Batches in a row share one task, where a ``Batcher`` sends in the turn
    of the loop without a task. ``cut_off`` is raised to the callers that are left if the task is cancelled.
    """

    def __init__(
        self,
        execute: Callable[[Sequence[K]], Awaitable[Sequence[V]]],
        pause_s: Callable[[], float] | None = None,
        *,
        max_keys: int = sys.maxsize,
        cut_off: Exception | None = None,
    ) -> None:
        super().__init__(lambda _: None, max_keys=max_keys, max_batches=1)
        self._execute = execute
        self._pause_s = pause_s
        self._cut_off = cut_off
        self._runner: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Ends the batch under way. Safe to call twice."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
        self._fail_the_rest()

    def _begin(self) -> None:
        if self._runner is None or self._runner.done():
            self._runner = self._loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._queue:
                if calls := self._take():
                    batch = Batch(calls, self._under_way.discard)
                    self._under_way.add(batch)
                    try:
                        batch.resolve(await self._execute(batch.keys))
                    except Exception as error:
                        batch.fail(error)
                if self._queue and self._pause_s is not None:
                    await asyncio.sleep(self._pause_s())
        finally:
            self._fail_the_rest()  # there is a rest if this was cancelled

    def _fail_the_rest(self) -> None:
        rest = [*self._under_way, Batch(self._queue, self._under_way.discard)]
        self._queue.clear()
        if self._cut_off is not None:
            for batch in rest:
                batch.fail(self._cut_off)


class Batch(Generic[K, V]):
    """The ``keys`` of look-ups sent together."""

    def __init__(
        self, look_ups: Sequence[tuple[K, asyncio.Future[V]]], on_ended: Callable[[Batch[K, V]], None]
    ) -> None:
        self.keys = [key for key, _ in look_ups]
        self._values = [value for _, value in look_ups]
        self._on_ended = on_ended
        self._task: asyncio.Task[None] | None = None

    def resolve(self, values: Sequence[V]) -> None:
        """Ends the batch with a value for each of ``keys``, in their order."""
        for future, value in zip(self._values, values, strict=True):
            if not future.done():  # else it was cancelled
                future.set_result(value)
        self._on_ended(self)

    def resolve_later(self, values: Coroutine[Any, Any, Sequence[V]]) -> None:
        """Runs ``values`` in a task and ends the batch with its result; an exception is raised to every caller."""
        # A context of its own: that of the request which happened to come first has no part in it.
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._wait_for(values), context=contextvars.Context())

    async def _wait_for(self, values: Coroutine[Any, Any, Sequence[V]]) -> None:
        try:
            self.resolve(await values)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Ends the batch with an exception for every caller."""
        for future in self._values:
            if not future.done():
                future.set_exception(error)
        self._on_ended(self)


class SingleFlight(Generic[V]):
    """A limit of concurrent executions, with a shared execution for equal calls in the queue.

    ``turns`` is the limit: as many executions run at once as the semaphore admits, and several instances may share
    it. A call joins an execution only before it has begun, so no result is older than the call that gets it.
    """

    def __init__(self, turns: asyncio.Semaphore) -> None:
        self._turns = turns
        self._queued: dict[Hashable, _Execution[V]] = {}

    async def run(self, key: Hashable, execute: Callable[[], Awaitable[V]]) -> V:
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

    async def _run_in_turn(self, key: Hashable, execute: Callable[[], Awaitable[V]]) -> V:
        async with self._turns:
            # ★ From here on nobody joins. An execution that has begun may have read its rows already: a caller that
            # comes now may come after a command was acknowledged whose change is not among them.
            del self._queued[key]
            return await execute()


class _Execution(Generic[V]):
    """An execution in a task of its own, since its callers come and go."""

    def __init__(self, run: Coroutine[Any, Any, V]) -> None:
        self.task = asyncio.get_running_loop().create_task(run)
        self.callers = 0
