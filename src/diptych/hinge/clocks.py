"""Whether the clocks of SQL and Redis go evenly: a lease is promised by one and ends by the other."""

from __future__ import annotations

import time
from collections.abc import Callable

_RATE = 0.1
"""By how much the two may differ in speed."""

MARGIN = 1 + _RATE
"""How much longer a promise is than its lease, which makes up for that."""


class Clocks:
    """Compares both clocks with this process's monotonic one, from pass to pass.

    ``tolerance_s`` is what a clock may be off beside that. It is no proof: a step that is made up for before the next
    pass is not seen.
    """

    def __init__(self, tolerance_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._tolerance_s = tolerance_s
        self._monotonic = monotonic
        self._begun = monotonic()
        self._last: tuple[float, float, dict[str, float]] | None = None

    def begin(self) -> None:
        """The clocks are read from here on; when exactly is not known."""
        self._begun = self._monotonic()

    def stepped(self, redis_s: float, sql_s: float) -> str | None:
        """Takes the readings since ``begin``. Says so if one of the clocks has stepped since those before."""
        begun, ended, read = self._begun, self._monotonic(), {"Redis": redis_s, "SQL": sql_s}
        last, self._last = self._last, (begun, ended, read)
        if last is None:
            return None
        shortest, longest = begun - last[1], ended - last[0]
        for name, now in read.items():
            passed = now - last[2][name]
            if not (
                shortest * (1 - _RATE) - self._tolerance_s
                <= passed
                <= longest * (1 + _RATE) + self._tolerance_s
            ):
                return f"the clock of {name} has stepped by {passed - longest:+.1f} s"
        return None
