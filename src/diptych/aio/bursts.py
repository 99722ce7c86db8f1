"""Events that come in bursts, for one line of the log for each burst in place of one for each event."""

from __future__ import annotations

import asyncio
import logging
import time


class Burst:
    """Counts events until none has come for ``quiet_s`` seconds, or the first was ``longest_s`` seconds ago.

    Whoever notes an event looks again, when ``left_s`` says that the burst is over, and tells its ``end``.
    """

    def __init__(self, quiet_s: float = 1.0, longest_s: float = 10.0) -> None:
        self._quiet_s = quiet_s
        self._longest_s = longest_s
        self._first = self._last = 0.0
        self._number = 0

    def note(self, number: int = 1) -> bool:
        """Notes so many events. Returns True if they begin a burst."""
        began = not self._number and number > 0
        now = time.monotonic()
        if began:
            self._first = now
        if number:
            self._last = now
        self._number += number
        return began

    @property
    def left_s(self) -> float | None:
        """The seconds until the burst is over if nothing comes; None without a burst."""
        if not self._number:
            return None
        return min(self._last + self._quiet_s, self._first + self._longest_s) - time.monotonic()

    def end(self) -> tuple[int, float]:
        """Ends the burst, and returns the number of its events and its length in seconds."""
        number, self._number = self._number, 0
        return number, self._last - self._first


class LoggedBurst:
    """Events in an event loop, of which one line is logged for each burst: ``line`` with their number and seconds."""

    def __init__(self, log: logging.Logger, level: int, line: str) -> None:
        self._log = log
        self._level = level
        self._line = line
        self._burst = Burst()

    def note(self) -> None:
        """Notes an event."""
        if self._burst.note():
            self._look()

    def tell(self) -> None:
        """Logs the burst as far as it has come, if there is one."""
        if self._burst.left_s is not None:
            self._log.log(self._level, self._line, *self._burst.end())

    def _look(self) -> None:
        left_s = self._burst.left_s
        if left_s is not None and left_s > 0:
            asyncio.get_running_loop().call_later(left_s, self._look)
        else:
            self.tell()
