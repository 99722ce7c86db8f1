"""Comparison of the clocks of SQL and Redis: a lease is promised by SQL's clock and ends by the clock of Redis."""

from __future__ import annotations

import time
from collections.abc import Callable

_RATE = 0.1
"""Greatest difference in speed between the two clocks, as a share."""

MARGIN = 1 + _RATE
"""Length of a promise in leases: the surplus makes up for clocks of different speeds."""


class Clocks:
    """The clocks of SQL and Redis, compared with this process's monotonic clock from pass to pass.

    ``tolerance_s`` is the deviation of a clock, beside its speed, that counts as no step. This is no proof: a step
    that is made up for before the next pass is not seen.
    """

    def __init__(self, tolerance_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._tolerance_s = tolerance_s
        self._monotonic = monotonic
        self._begun = monotonic()
        self._last: tuple[float, float, dict[str, float]] | None = None
        self._steady_from = 0.0

    def begin(self) -> None:
        """Notes the start of the readings: the clocks are read between now and the call of ``stepped``."""
        self._begun = self._monotonic()

    def stepped(self, redis_s: float, sql_s: float) -> str | None:
        """Takes the readings since ``begin``, and describes a step since the readings before; None without a step."""
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

    def distrust(self, for_s: float) -> None:
        """Has the clocks count as unsteady for so many seconds."""
        self._steady_from = self._monotonic() + for_s

    @property
    def unsteady_s(self) -> float:
        """Seconds until the clocks count as steady again; 0 if steady."""
        return max(0.0, self._steady_from - self._monotonic())
