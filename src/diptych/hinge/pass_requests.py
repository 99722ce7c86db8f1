"""Requests for passes: by commands of this process at once, by other processes a few times a second at most."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from diptych.fence.contract import FenceRow

SOON_S = 0.025
"""Delay of the first request of another process, in seconds: requests that come meanwhile share its pass."""

APART_S = 0.2
"""Minimum interval between two requests of other processes that are served, in seconds.

A process that writes a lot while it is cut off from Redis would otherwise have the other keepers make nothing but
passes.
"""


class PassRequests:
    """Requests of commands for a pass later than a numbered pass.

    ``latest`` is the highest number asked for. Requests of this process count at once, with ``add``. Requests of
    other processes wait for their turn, with ``add_delayed``; ``serve`` is then called with the number.
    """

    def __init__(self, serve: Callable[[int], object]) -> None:
        self.latest = -1
        self._serve = serve
        self._served_at = 0.0
        self._next = -1
        self._timer: asyncio.TimerHandle | None = None

    def add(self, after: int) -> None:
        """Adds a request for a pass to begin after pass number ``after``."""
        self.latest = max(self.latest, after)

    def are_open(self, row: FenceRow) -> bool:
        """Returns True if the last pass to have ended, as far as ``row`` knows, has left a request unserved."""
        return row.passes_completed <= self.latest

    def pause_before(self, row: FenceRow, pause_s: float) -> float:
        """Returns ``pause_s``, or 0 while a request is open.

        A keeper whose read model is not fresh is not woken by requests, and would sleep over them.
        """
        return 0.0 if self.are_open(row) else max(0.0, pause_s)

    def add_delayed(self, after: int, *, leads: bool) -> None:
        """Adds a request of a different process, to be served in a moment.

        A keeper that ``leads`` serves first; the other keepers find then that its pass has been made.
        """
        if self._timer is not None:
            # Kept for the turn after: a keeper that does not lead would otherwise always be given a number that
            # no keeper has had the time to serve, and would make the pass.
            self._next = max(self._next, after)
            return
        pause_s = max(SOON_S, self._served_at + APART_S - time.monotonic())
        if not leads:
            pause_s += APART_S * random.uniform(1, 2)  # noqa: S311 - to spread the keepers
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._serve_delayed, after, leads)

    def stop(self) -> None:
        """Forgets the delayed requests. Safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._next = None, -1

    def _serve_delayed(self, after: int, leads: bool) -> None:
        self._timer = None
        self._served_at = time.monotonic()
        self._serve(after)
        following, self._next = self._next, -1
        if following > after:
            self.add_delayed(following, leads=leads)
