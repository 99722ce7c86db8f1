"""The pace of a planned rebuild."""

from __future__ import annotations

import asyncio
import time

_SHARE = 2 / 3
_LONGEST_S = 0.2


class Pace:
    """Rests between the parts of long work that nobody waits for, each two thirds as long as the part has taken.

    At full speed the work takes all that is left of SQL, of Redis and of the event loop, and commands and queries
    wait for each of the three. Where they are in demand a part takes longer, and so does the rest. Nothing of the
    work may go on meanwhile. Passes don't rest: until they end, the lease is not renewed.
    """

    def __init__(self) -> None:
        self._began = time.perf_counter()

    async def rest(self) -> None:
        """Rests after a part."""
        took = time.perf_counter() - self._began
        await asyncio.sleep(min(_SHARE * took, _LONGEST_S))
        self._began = time.perf_counter()
