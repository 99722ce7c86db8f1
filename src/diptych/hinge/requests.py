"""What other processes ask of a keeper, told to it a few times a second at most."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

SOON_S = 0.025
"""So much after the first request the keeper is told: others that come meanwhile share the pass."""

APART_S = 0.2
"""It is told so far apart. A process that writes a lot while it is cut off from Redis would have the others make
nothing but passes."""


class Requests:
    """Requests for a pass that begins after the pass of a number; ``serve`` is called with the number."""

    def __init__(self, serve: Callable[[int], object]) -> None:
        self._serve = serve
        self._served_at = 0.0
        self._next = -1
        self._timer: asyncio.TimerHandle | None = None

    def add(self, after: int, *, leads: bool) -> None:
        """Takes one. A keeper that ``leads`` is told first; the others find then that its pass has been made."""
        if self._timer is not None:
            # Kept for the turn after: a keeper that does not lead would otherwise always be told a number that
            # nobody has had the time to serve, and make the pass.
            self._next = max(self._next, after)
            return
        pause = max(SOON_S, self._served_at + APART_S - time.monotonic())
        if not leads:
            pause += APART_S * random.uniform(1, 2)  # noqa: S311 - to spread them
        self._timer = asyncio.get_running_loop().call_later(pause, self._tell, after, leads)

    def stop(self) -> None:
        """Forgets those that wait. Safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._next = None, -1

    def _tell(self, after: int, leads: bool) -> None:
        self._timer = None
        self._served_at = time.monotonic()
        self._serve(after)
        following, self._next = self._next, -1
        if following > after:
            self.add(following, leads=leads)
