"""Reads of the fence, shared by the commands of a process that wait for one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from diptych.errors import DatabaseUnavailableError
from diptych.fence.contract import Entry, Sight
from diptych.fence.fence import Fence
from diptych.log.snapshot import Snapshot

_GATHER_S = 0.000_05
"""How far apart reads of the fence begin, for each command under way, when they come without a pause: with many
commands that wait in line anyway, more of them share a read."""

_POLL_S = 0.05

S = TypeVar("S")

NOT_KNOWN = "SQL went away before it was known whether queries see what this command rests on"


class Sights(Generic[S]):
    """Of those who wait for a read of the fence, all take the next that starts.

    ``since`` tells, as a read starts, from which snapshot on it is to list the changes in the log, and ``own`` which
    of them this process has made. They are given what ``take`` makes of a sight. ``commands`` is how many are
    under way.
    """

    def __init__(
        self,
        fence: Fence,
        since: Callable[[], Snapshot],
        own: Callable[[], Mapping[int, Sequence[Entry]]],
        take: Callable[[Sight], S],
    ) -> None:
        self.commands = 0
        self._fence = fence
        self._since = since
        self._own = own
        self._take = take
        self._asking: list[asyncio.Future[S]] = []
        self._reader: asyncio.Task[None] | None = None

    async def next(self) -> S:
        """The fence and the log as they are at a moment after this call."""
        # ★ Taken along by the read that has not been sent yet, never by one that has: that may be older than the
        # caller's commit.
        answer: asyncio.Future[S] = asyncio.get_running_loop().create_future()
        self._asking.append(answer)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.get_running_loop().create_task(self._read_while_asked())
        return await answer

    async def next_patiently(self, patience_s: float) -> S:
        """The same. Raises ``DatabaseUnavailableError`` if SQL does not tell in time."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return await self.next()
            except DatabaseUnavailableError as error:
                if time.monotonic() > deadline:
                    raise DatabaseUnavailableError(NOT_KNOWN) from error
                await asyncio.sleep(_POLL_S)

    async def close(self) -> None:
        """Ends the reading; those who wait for it fail."""
        if self._reader is not None and not self._reader.done():
            self._reader.cancel()
            await asyncio.wait([self._reader])

    async def _read_while_asked(self) -> None:
        answers: list[asyncio.Future[S]] = []
        try:
            while self._asking:
                began = time.monotonic()
                answers, self._asking = self._asking, []
                await self._answer(answers)
                if self._asking:
                    await asyncio.sleep(began + _GATHER_S * self.commands - time.monotonic())
        finally:
            for answer in _awaited([*answers, *self._asking]):  # if this was cut off
                answer.set_exception(DatabaseUnavailableError(NOT_KNOWN))

    async def _answer(self, answers: Sequence[asyncio.Future[S]]) -> None:
        try:
            seen = self._take(await self._fence.sight(self._since(), self._own()))
        except Exception as error:
            for answer in _awaited(answers):
                answer.set_exception(error)
        else:
            for answer in _awaited(answers):
                answer.set_result(seen)


def _awaited(answers: Sequence[asyncio.Future[S]]) -> list[asyncio.Future[S]]:
    """Those whose callers were not cancelled meanwhile."""
    return [answer for answer in answers if not answer.done()]
