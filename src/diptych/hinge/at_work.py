"""Says in SQL that this process is at a long piece of work, so that the others leave it alone until it dies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from diptych.errors import UnavailableError
from diptych.fence.contract import FenceRow
from diptych.fence.fence import Fence

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
        signs, over = Signs(given=is_said), asyncio.Event()
        task = asyncio.get_running_loop().create_task(self._go_on(row, signs, over))
        try:
            yield signs
        except Exception:
            await self._end(row, signs, over, task)
            raise
        else:
            await self._end(row, signs, over, task)
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _go_on(self, row: FenceRow, signs: Signs, over: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.seconds / _PARTS):
                    await over.wait()
            if over.is_set():
                return
            signs.given = True
            with contextlib.suppress(UnavailableError):
                await self._fence.keep_building(row, self.seconds)

    async def _end(
        self, row: FenceRow, signs: Signs, over: asyncio.Event, going_on: asyncio.Task[None]
    ) -> None:
        # A sign that is on its way comes first: after the end it would keep everybody, this process too, from a pass.
        over.set()
        await asyncio.wait([going_on])
        if signs.given:
            with contextlib.suppress(UnavailableError):
                await self._fence.keep_building(row, 0.0)
