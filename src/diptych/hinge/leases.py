"""Leases and claims: the clocks of SQL and Redis compared, and claims on long work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from types import TracebackType

from diptych.aio.tasks import set_within
from diptych.errors import UnavailableError
from diptych.fence.contract import FenceRow
from diptych.fence.fence import Fence

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


CLAIM_LEASES = 2
"""Lifetime of a claim that is not renewed, in leases: afterwards another process takes the work over."""

_RENEWALS = 10
"""Number of renewals of a claim within its lifetime."""


class WorkClaim:
    """A claim on a build, or on a pass over a long backlog, renewed in ``building_until`` while the block runs.

    With ``is_made`` the claim is in the fence already; otherwise the first renewal makes it, so that short work is
    never claimed. At the end of the block the claim is given up and other processes may begin at once, except if the
    block is cancelled: this process is being stopped then, and the claim lapses. Claims save work; no rule of the
    protocol rests on them. The renewing is no ``Looper``: the end waits for a renewal on its way, and does not cancel
    it.
    """

    def __init__(self, fence: Fence, row: FenceRow, claim_s: float, *, is_made: bool) -> None:
        self.is_made = is_made
        self._fence = fence
        self._row = row
        self._claim_s = claim_s
        self._over = asyncio.Event()

    async def __aenter__(self) -> WorkClaim:
        self._renewing = asyncio.get_running_loop().create_task(self._renew())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        try:
            if kind is None or issubclass(kind, Exception):
                # A renewal on its way comes first: after the end it would keep every process, this one too, from a
                # pass.
                self._over.set()
                await asyncio.wait([self._renewing])
                if self.is_made:
                    with contextlib.suppress(UnavailableError):
                        await self._fence.keep_building(self._row, 0.0)
        finally:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])

    async def _renew(self) -> None:
        while not await set_within(self._over, self._claim_s / _RENEWALS):
            self.is_made = True
            with contextlib.suppress(UnavailableError):
                await self._fence.keep_building(self._row, self._claim_s)
