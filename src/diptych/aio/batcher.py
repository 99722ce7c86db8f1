"""The look-ups of one turn of the event loop, asked together: one command costs less than one for each of them."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias

_AT_ONCE = 64
"""Keys of one command: with more, what is found first would wait longer than it gains."""

_COMMANDS = 16
"""At once. More look-ups wait here, where one that is cancelled costs Redis nothing."""

_LookUp: TypeAlias = tuple[bytes, asyncio.Future[bytes | None]]


class Batcher:
    """Gathers look-ups into batches.

    ``send`` sends a batch, and ends it later by ``Batch.found`` or ``Batch.resolve_later``.
    """

    def __init__(self, send: Callable[[Batch], None]) -> None:
        self._send = send
        self._waiting: deque[_LookUp] = deque()
        self._under_way: set[Batch] = set()

    def get(self, key: bytes) -> asyncio.Future[bytes | None]:
        """Awaited, it is what was found for the key."""
        if not self._waiting:
            # Asked for once a turn: before Python 3.12 it is a system call.
            self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._let_go)
        found: asyncio.Future[bytes | None] = self._loop.create_future()
        self._waiting.append((key, found))
        return found

    def _let_go(self) -> None:
        while self._waiting and len(self._under_way) < _COMMANDS:
            if asked := self._next():
                batch = Batch(asked, self._ended)
                self._under_way.add(batch)
                self._send(batch)

    def _next(self) -> Sequence[_LookUp]:
        """The next ones, but those that nobody waits for any more."""
        count = min(len(self._waiting), _AT_ONCE)
        taken = [self._waiting.popleft() for _ in range(count)]
        return [look_up for look_up in taken if not look_up[1].done()]

    def _ended(self, batch: Batch) -> None:
        self._under_way.discard(batch)
        if self._waiting:  # but not from here: a lost connection may end many at once
            asyncio.get_running_loop().call_soon(self._let_go)


class Batch:
    """Look-ups that are asked by one command."""

    def __init__(self, look_ups: Sequence[_LookUp], on_ended: Callable[[Batch], None]) -> None:
        self.keys = [key for key, _ in look_ups]
        self._waiting = [found for _, found in look_ups]
        self._on_ended = on_ended
        self._task: asyncio.Task[None] | None = None

    def found(self, values: Sequence[bytes | None]) -> None:
        """Deals out one value for each key, in their order."""
        for found, value in zip(self._waiting, values, strict=True):
            if not found.done():  # else it was cancelled
                found.set_result(value)
        self._on_ended(self)

    def resolve_later(self, values: Coroutine[Any, Any, Sequence[bytes | None]]) -> None:
        """Deals out what is found in time, or what this raises, to all of them."""
        # A context of its own: that of the request which happened to come first has no part in it.
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._wait_for(values), context=contextvars.Context())

    async def _wait_for(self, values: Coroutine[Any, Any, Sequence[bytes | None]]) -> None:
        try:
            self.found(await values)
        except Exception as error:
            for found in self._waiting:
                if not found.done():
                    found.set_exception(error)
            self._on_ended(self)
