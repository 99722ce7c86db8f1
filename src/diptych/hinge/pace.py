"""The pace of long work that nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

_OF_PART = 1 / 4
"""Seconds of a rest for each second of the part before it."""

_OF_WAITING = 5 / 2
"""Seconds of a rest for each second for which the part before it has waited for a core."""

_UNTOLD = 2 / 3
"""Seconds of a rest for each second of the part, where nobody tells of waiting."""

_SHORTEST_PART_S = 0.005
"""A shorter part goes on: a rest is up to a millisecond longer than it is meant to be."""

_LONGEST_S = 1.0

_SCHEDULED = Path("/proc/thread-self/schedstat")
"""Nanoseconds for which this thread has run, and for which it has waited for a core, as Linux tells them.

https://docs.kernel.org/scheduler/sched-stats.html
"""


class Pace:
    """Rests between the parts of long work that nobody waits for.

    At full speed the work takes all that is left of SQL, of Redis and of the event loop, and commands and queries
    wait for each of the three. A rest is ``of_part`` of what the part before it has taken, and ``of_waiting`` of what
    this thread has waited for a core meanwhile: others wait for one too then. So it is at most their sum times the
    part, and at most ``longest_s`` seconds. Where the system does not tell, it is two thirds of the part at least.
    Nothing of the work may go on meanwhile. The first ``after_s`` seconds have no rests.
    """

    def __init__(
        self,
        of_part: float = _OF_PART,
        of_waiting: float = _OF_WAITING,
        *,
        longest_s: float = _LONGEST_S,
        after_s: float = 0.0,
    ) -> None:
        self._of_part = of_part
        self._of_waiting = of_waiting
        self._longest_s = longest_s
        self._rests_from = time.perf_counter() + after_s
        self._begin()

    async def rest(self) -> None:
        """Rests after a part."""
        now = time.perf_counter()
        took = now - self._began
        if now < self._rests_from:
            self._begin()
        elif took >= _SHORTEST_PART_S:
            await asyncio.sleep(min(self._rest_s(took), self._longest_s))
            self._begin()

    def _rest_s(self, took: float) -> float:
        waited_s = _waited_s()
        if waited_s is None or self._waited_s is None:
            return took * max(_UNTOLD, self._of_part)
        return took * self._of_part + self._of_waiting * (waited_s - self._waited_s)

    def _begin(self) -> None:
        self._began, self._waited_s = time.perf_counter(), _waited_s()


def _waited_s() -> float | None:
    """Returns the seconds for which this thread has waited for a core so far; None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(_SCHEDULED.read_text().split()[1]) / 1e9
    return None
