"""The pace of work on very many documents."""

from __future__ import annotations

import asyncio
import time

_SHARE = 0.5
_LONGEST_S = 0.02


class Pace:
    """Rests between the parts of work on very many documents, each half as long as the part before it has taken.

    At full speed the work takes all that is left of SQL, of Redis and of the event loop, and commands and queries
    wait for each of the three. The first ``at_full_speed`` documents are without a rest.
    """

    def __init__(self, at_full_speed: int = 0) -> None:
        self._left = at_full_speed
        self._began = time.perf_counter()

    async def rest_after(self, documents: int) -> None:
        """Rests after a part with so many documents."""
        self._left -= documents
        if self._left < 0:
            took = time.perf_counter() - self._began
            await asyncio.sleep(min(took * _SHARE, _LONGEST_S))
        self._began = time.perf_counter()
