"""A planned rebuild, by ``Diptych.rebuild``: at once if the read model serves, else by the keepers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from diptych.errors import RebuildFailedError
from diptych.fence.contract import FenceRow
from diptych.hinge.keeper import LONGEST_PAUSE_S, Keeper
from diptych.hinge.refused import Refused
from diptych.hinge.status import REASONS, Progress
from diptych.read.store.state import RedisState


class PlannedRebuild:
    """A rebuild of a read model beside its serving generation.

    While none serves, the keepers are about to build the read model, or one of them is at it; this waits for them. A
    build that was under way before may have read rows before they were changed: it is waited for, and is not enough.
    """

    def __init__(self, keeper: Keeper, tell: Callable[[Progress], None] | None = None) -> None:
        self._keeper = keeper
        self._replica = keeper.replica
        self._tell = tell
        self._moved_at = 0.0

    async def run(self) -> Progress:
        """Rebuilds the read model, and returns the progress at the end. Raises as ``Diptych.rebuild``."""
        row, state = await self._look()
        progress = Progress(self._replica.name, await self._replica.source.count(), self._tell)
        first, self._moved_at = row, time.monotonic()
        while problem := self._keeper.status.problem_of(row, state):
            self._keeper.wake()
            await asyncio.sleep(self._keeper.probe_interval_s)
            self._keeper.redis.check_available()
            before = row
            row, state = await self._look()
            if row.ready and row.generation != first.generation:
                progress.add(await self._replica.source.count())
                return progress
            self._check_moves(problem, before, row)
        await self._build(row, state, progress)
        return progress

    async def _look(self) -> tuple[FenceRow, RedisState]:
        row = await self._keeper.read_row()
        return row, await self._replica.store.inspect(row.generation)

    def _check_moves(self, problem: str, before: FenceRow, row: FenceRow) -> None:
        """Raises ``RebuildFailedError`` if the keepers' build does not come about."""
        name, lease_s = self._replica.name, self._keeper.lease_s
        if row.building_until > row.now or row.generation != before.generation:
            self._moved_at = time.monotonic()
        elif problem == "other-database":
            raise RebuildFailedError(f"{name}: {REASONS[problem]}")
        elif problem == "other-server" and time.monotonic() - self._moved_at > 3 * lease_s:
            raise RebuildFailedError(
                f"{name}: other processes keep it in another Redis than {self._keeper.redis.address}"
            )
        elif time.monotonic() - self._moved_at > 3 * lease_s + LONGEST_PAUSE_S:
            raise RebuildFailedError(
                f"{name}: no process succeeds in building it; their logs, and /health, tell why"
            )

    async def _build(self, row: FenceRow, state: RedisState, progress: Progress) -> None:
        status = self._keeper.status
        status.progress = progress
        try:
            await self._keeper.builder.rebuild(row, state, progress)
        except Refused as refused:
            raise RebuildFailedError(
                f"{self._replica.name}: another process has replaced the generation meanwhile, or Redis has lost the "
                f"new one ({refused.outcome})"
            ) from None
        finally:
            status.progress = None
            self._keeper.resign()
            self._keeper.wake()
