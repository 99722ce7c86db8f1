"""Look-ups gathered into batches: the keys asked for in a turn of the event loop are sent together."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
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
            self._loop.call_soon(self._send_queued)
        value: asyncio.Future[V] = self._loop.create_future()
        self._queue.append((key, value))
        return value

    def _send_queued(self) -> None:
        while self._queue and len(self._under_way) < self._max_batches:
            if look_ups := self._take():
                batch = Batch(look_ups, self._ended)
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
            asyncio.get_running_loop().call_soon(self._send_queued)


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
            for future in self._values:
                if not future.done():
                    future.set_exception(error)
            self._on_ended(self)
