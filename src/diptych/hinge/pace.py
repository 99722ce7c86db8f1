"""The pace of a planned rebuild."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

_OF_PART = 1 / 4
_OF_WAITING = 5 / 2
"""Seconds of a rest for each second of the part before it, and of waiting for a core in that part."""

_UNTOLD = 2 / 3
"""Seconds of a rest for each second of the part, where nobody tells of waiting."""

_LONGEST_S = 0.2

_SCHEDULED = Path("/proc/thread-self/schedstat")
"""Nanoseconds for which this thread has run, and for which it has waited for a core, as Linux tells them.

https://docs.kernel.org/scheduler/sched-stats.html
"""


class Pace:
    """Rests between the parts of long work that nobody waits for.

    At full speed the work takes all that is left of SQL, of Redis and of the event loop, and commands and queries
    wait for each of the three. A rest is a quarter of what the part before it has taken, and two and a half times
    what this thread has waited for a core meanwhile: others wait for one too then. At most it is as long as the part:
    what takes longer has more changes to catch up with. Where the system does not tell, it is two thirds of the part.
    Nothing of the work may go on meanwhile. Passes don't rest: until they end, the lease is not renewed.
    """

    def __init__(self) -> None:
        self._begin()

    async def rest(self) -> None:
        """Rests after a part."""
        took, waited_s = time.perf_counter() - self._began, _waited_s()
        if waited_s is None or self._waited_s is None:
            rest_s = took * _UNTOLD
        else:
            rest_s = took * _OF_PART + _OF_WAITING * (waited_s - self._waited_s)
        await asyncio.sleep(min(rest_s, took, _LONGEST_S))
        self._begin()

    def _begin(self) -> None:
        self._began, self._waited_s = time.perf_counter(), _waited_s()


def _waited_s() -> float | None:
    """Returns the seconds for which this thread has waited for a core so far; None where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(_SCHEDULED.read_text().split()[1]) / 1e9
    return None
