"""The generation that is compared: found by its lease, and waited for until passes have brought it up to a moment."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from diptych.errors import DiptychError, UnavailableError
from diptych.fence.contract import FenceRow, Target
from diptych.fence.fence import Fence
from diptych.hinge.replica import Replica
from diptych.hinge.status import REASONS
from diptych.read.store.state import RedisState

_POLL_S = 0.03
_PAUSE_S = 2.0
_PATIENCE_LEASES = 5
_PATIENCE_S = 10.0
"""Time that passes are given beside some leases, in seconds: one of them may carry much."""


class NotComparableError(DiptychError):
    """Raised for a read model that can't be compared; the text says why, and what to do. Never public."""


class ReplacedError(DiptychError):
    """Raised when the generation is not there any more: it has been built anew. Never public."""


class Generation:
    """The generation of a read model that queries are answered from. Each method may raise ``UnavailableError``."""

    def __init__(self, replica: Replica, fence: Fence, lease_s: float) -> None:
        self._replica = replica
        self._fence = fence
        self._patience_s = _PATIENCE_LEASES * lease_s + _PATIENCE_S
        self._lease_s = lease_s

    async def leased(self) -> FenceRow:
        """Returns the fence row of the leased generation. Raises ``NotComparableError`` if there is none for a lease.

        A pause between two leases, at the switch of a rebuild say, is waited for.
        """
        deadline = time.monotonic() + self._lease_s + _PAUSE_S
        while (problem := await self._problem()) is not None:
            if time.monotonic() > deadline:
                raise NotComparableError(f"{self._replica.name} can't be compared: {problem}")
            await asyncio.sleep(_POLL_S)
        return self._row

    async def _problem(self) -> str | None:
        rows = {row.id: row for row in await self._fence.rows()}
        row = rows.get(self._replica.id)
        if row is None or not row.generation:
            others = [each for each in rows if each.read_model == self._replica.id.read_model]
            other = ", and what it had was of another declaration" if row is None and others else ""
            return f"no process keeps it in Redis{other}. Start the application with these settings first"
        state = await self._replica.store.inspect(row.generation)
        leased = state.leased
        if leased is not None and leased.is_of_another(row.history):
            return REASONS["other-database"]
        if row.incarnation != state.incarnation:
            return "its data are in another Redis than the one that REDIS_URL leads to, or Redis was started anew"
        if not row.ready:
            return "it is being built; SQL answers meanwhile. Try again when it is done"
        if leased is None or leased.generation != row.generation.encode() or state.floor is None:
            return "it has no lease: no process of the application makes passes, and SQL answers. /health tells why"
        self._row = row
        return None

    async def passed(self, target: Target) -> None:
        """Returns when the generation has every change that was committed before the call.

        Raises ``ReplacedError``, and ``NotComparableError`` if passes have ceased.
        """
        row = await self._current(target)
        # ★ A pass with a greater number has been promised since, and has read the log after that.
        number = row.passes_started
        with contextlib.suppress(UnavailableError):
            await self._fence.ask(row.id, number)
        await self._reaches(target, lambda state: state.passed > number)

    async def floor_reached(self, target: Target, floor: int) -> None:
        """Returns when the generation has this floor. Raises as ``passed``."""
        await self._reaches(target, lambda state: (state.floor or 0) >= floor)

    async def check(self, target: Target) -> None:
        """Raises ``ReplacedError`` if the generation is not the one that counts any more."""
        await self._current(target)

    async def _current(self, target: Target) -> FenceRow:
        rows = {row.id: row for row in await self._fence.rows()}
        row = rows.get(self._replica.id)
        if row is None or row.target != target:
            raise ReplacedError(f"{self._replica.name}: the generation has been replaced")
        return row

    async def _reaches(self, target: Target, has_reached: Callable[[RedisState], bool]) -> None:
        deadline = time.monotonic() + self._patience_s
        while True:
            state = await self._replica.store.inspect(target.generation)
            if state.incarnation != target.incarnation or state.floor is None:
                raise ReplacedError(f"{self._replica.name}: the generation has been replaced")
            if has_reached(state):
                return
            if time.monotonic() > deadline:
                raise NotComparableError(
                    f"{self._replica.name} can't be compared any more: for {self._patience_s:.0f} s no pass has "
                    "brought it up to date. Does the application run, or is a transaction of SQL open for long?"
                )
            await asyncio.sleep(_POLL_S)
