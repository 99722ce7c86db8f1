"""Says in SQL that this process is at a long piece of work, so that the others leave it alone until it dies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from diptych.errors import UnavailableError
from diptych.ports import Fence, FenceRow

_LEASES = 2
"""So many leases after the last sign of life others take over."""

_PARTS = 10
"""How often it is given in that time."""


class Signs:
    """``given``: whether a sign of life has been given, so that the others leave the work alone."""

    def __init__(self, *, given: bool) -> None:
        self.given = given


class AtWork:
    """What builders and keepers say of themselves, in ``building_until``. Nothing of the promise rests on it."""

    def __init__(self, fence: Fence, lease_s: float) -> None:
        self._fence = fence
        self.seconds = _LEASES * lease_s
        """For how long one sign of life counts."""

    @contextlib.asynccontextmanager
    async def on(self, row: FenceRow, *, is_said: bool) -> AsyncIterator[Signs]:
        """Says so while the block takes; with ``is_said`` it has been already. Afterwards others may begin at once.

        Not if the block is cancelled: this process is being stopped, and they find out.
        """
        signs = Signs(given=is_said)
        task = asyncio.get_running_loop().create_task(self._go_on(row, signs))
        try:
            yield signs
        except Exception:
            await self._end(row, signs)
            raise
        else:
            await self._end(row, signs)
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _go_on(self, row: FenceRow, signs: Signs) -> None:
        while True:
            await asyncio.sleep(self.seconds / _PARTS)
            signs.given = True
            with contextlib.suppress(UnavailableError):
                await self._fence.keep_building(row, self.seconds)

    async def _end(self, row: FenceRow, signs: Signs) -> None:
        if signs.given:
            with contextlib.suppress(UnavailableError):
                await self._fence.keep_building(row, 0.0)
