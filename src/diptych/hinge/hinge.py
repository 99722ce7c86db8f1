"""The hinge of one process: the keepers of its read models, and what commands and health ask of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from diptych.errors import UnavailableError
from diptych.hinge.keeper import Keeper
from diptych.hinge.status import Progress
from diptych.looper import Looper
from diptych.ports import Change, Entry, Fence, FenceId, Known, Snapshot
from diptych.read.redis import RedisService
from diptych.read.store import delete_abandoned

_log = logging.getLogger("diptych.hinge")

_SWEEP_S = 3600.0


class Hinge:
    """Keeps the read models of one process true to SQL. Implements ``ReadSide``."""

    def __init__(self, redis: RedisService, fence: Fence, keepers: Sequence[Keeper]) -> None:
        self._redis = redis
        self._fence = fence
        self._keepers = {keeper.replica.id: keeper for keeper in keepers}
        self._sweeper = Looper("sweeper", self._sweep, _SWEEP_S)
        fence.on_asked(self._asked)

    def start(self) -> None:
        """Begins to look after the read models."""
        for keeper in self._keepers.values():
            keeper.start()
        self._sweeper.start()

    async def stop(self) -> None:
        """Ends it. Safe to call twice."""
        await asyncio.gather(self._sweeper.stop(), *(keeper.stop() for keeper in self._keepers.values()))

    def apply(
        self, changes: Sequence[Change], known: Mapping[FenceId, Known]
    ) -> Mapping[FenceId, asyncio.Future[bool]]:
        applying = {}
        for fence, keeper in self._keepers.items():
            replica = keeper.replica
            own = [change for change in changes if change.entity.table == replica.projection.entity.table]
            # Joined documents are left to passes: see Replica.
            if own and not replica.projection.is_joined and fence in known and known[fence].generation:
                applying[fence] = replica.apply(own, known[fence])
        return applying

    def can_look(self, fence: FenceId) -> bool:
        keeper = self._keepers.get(fence)
        # Joined documents are stamped with snapshots: a position says nothing of them.
        return keeper is not None and not keeper.replica.projection.is_joined and self._redis.available

    async def bring_in(
        self, fence: FenceId, known: Known, entries: Sequence[Entry], snapshot: Snapshot
    ) -> bool:
        return await self._keepers[fence].replica.bring_in(known, entries, snapshot)

    def ask(self, after: Mapping[FenceId, int]) -> Collection[FenceId]:
        own = self._keepers.keys() & after.keys()
        return [fence for fence in own if self._keepers[fence].ask(after[fence])]

    async def rebuild(self, fence: FenceId, tell: Callable[[Progress], None] | None) -> Progress:
        """Builds one read model anew beside the one that serves."""
        return await self._keepers[fence].rebuild(tell)

    def _asked(self, fence: FenceId, after: int) -> None:
        keeper = self._keepers.get(fence)
        if keeper is not None:
            keeper.asked_by_another(after)

    async def _sweep(self) -> None:
        """Removes what declarations have left that no process of this application has any more."""
        names = {fence.read_model for fence in self._keepers}
        with contextlib.suppress(UnavailableError):
            for row in await self._fence.rows():
                is_other = row.id.read_model in names and row.id not in self._keepers
                kept_until = max(row.lease_until, row.building_until)
                # One that was registered a moment ago has never been kept, and nothing to delete.
                if is_other and kept_until > 0 and row.now > kept_until + _SWEEP_S:
                    await delete_abandoned(self._redis, row.id)
                    if await self._fence.forget(row):
                        _log.info(
                            "%s: the documents of an earlier declaration are deleted", row.id.read_model
                        )
