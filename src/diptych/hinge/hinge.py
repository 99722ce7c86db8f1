"""The hinge of one process: the keepers of its read models, and what commands and health ask of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from diptych.fence.contract import Applied, Entry, FenceId, Target
from diptych.fence.fence import Fence
from diptych.hinge.keeper import Keeper
from diptych.hinge.status import Progress
from diptych.hinge.sweeper import Sweeper
from diptych.log.change import Change
from diptych.log.snapshot import Snapshot
from diptych.redis.service import RedisService


class Hinge:
    """Keeps the read models of one process true to SQL. Implements ``ReadSide``."""

    def __init__(self, redis: RedisService, fence: Fence, keepers: Sequence[Keeper]) -> None:
        self._redis = redis
        self._keepers = {keeper.replica.id: keeper for keeper in keepers}
        self._sweeper = Sweeper(redis, fence, [keeper.replica for keeper in keepers])
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
        self, changes: Sequence[Change], known: Mapping[FenceId, Target]
    ) -> Mapping[FenceId, asyncio.Future[Applied]]:
        applying = {}
        for fence, keeper in self._keepers.items():
            replica = keeper.replica
            own = [change for change in changes if change.entity.table == replica.compiled.entity.table]
            # Joined documents are left to passes: see Replica.
            if own and not replica.compiled.is_joined and fence in known and known[fence].generation:
                applying[fence] = replica.apply(own, known[fence])
        return applying

    def can_look(self, fence: FenceId) -> bool:
        keeper = self._keepers.get(fence)
        # Joined documents are stamped with snapshots: a position says nothing of them.
        return keeper is not None and not keeper.replica.compiled.is_joined and self._redis.available

    async def bring_in(
        self, fence: FenceId, known: Target, entries: Sequence[Entry], snapshot: Snapshot
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
