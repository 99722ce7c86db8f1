"""Claims on long work on a read model, made in the fence: other processes leave the work to the claimant."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType

from diptych.errors import UnavailableError
from diptych.fence.contract import FenceRow
from diptych.fence.fence import Fence

CLAIM_LEASES = 2
"""Lifetime of a claim that is not renewed, in leases: afterwards another process takes the work over."""

_RENEWALS = 10
"""Number of renewals of a claim within its lifetime."""


class WorkClaim:
    """A claim on a build, or on a pass over a long backlog, renewed in ``building_until`` while the block runs.

    With ``is_made`` the claim is in the fence already; otherwise the first renewal makes it, so that short work is
    never claimed. At the end of the block the claim is given up and other processes may begin at once, except if the
    block is cancelled: this process is being stopped then, and the claim lapses. Claims save work; no rule of the
    protocol rests on them.
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
                await self._give_up()
        finally:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])

    async def _renew(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._claim_s / _RENEWALS):
                    await self._over.wait()
            if self._over.is_set():
                return
            self.is_made = True
            with contextlib.suppress(UnavailableError):
                await self._fence.keep_building(self._row, self._claim_s)

    async def _give_up(self) -> None:
        # A renewal on its way comes first: after the end it would keep every process, this one too, from a pass.
        self._over.set()
        await asyncio.wait([self._renewing])
        if self.is_made:
            with contextlib.suppress(UnavailableError):
                await self._fence.keep_building(self._row, 0.0)
