"""The hinge of a process: the keepers of its read models, for commands and the application."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from diptych.fence.contract import Applied, Entry, FenceId, Target
from diptych.fence.fence import Fence
from diptych.hinge.keeper import Keeper
from diptych.hinge.sweeper import Sweeper
from diptych.log.change import Change
from diptych.log.snapshot import Snapshot
from diptych.redis.service import RedisService


class Hinge:
    """The keepers and the sweeper of a process, which keep its read models true to SQL. Implements ``ReadSide``."""

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
        """Stops keepers and sweeper. Safe to call twice."""
        await asyncio.gather(self._sweeper.stop(), *(keeper.stop() for keeper in self._keepers.values()))

    def apply(
        self, changes: Sequence[Change], target: Mapping[FenceId, Target]
    ) -> Mapping[FenceId, asyncio.Future[Applied]]:
        """Begins to write committed changes into the generations ``target``; see ``ReadSide.apply``."""
        applying = {}
        for fence, keeper in self._keepers.items():
            replica = keeper.replica
            own = [change for change in changes if change.entity.table == replica.compiled.entity.table]
            # Joined documents are left to passes: see JoinedDocuments.
            if own and not replica.compiled.is_joined and fence in target and target[fence].generation:
                applying[fence] = replica.apply(own, target[fence])
        return applying

    def can_look(self, fence: FenceId) -> bool:
        """Returns True if changes can be looked for in the documents of this read model now."""
        keeper = self._keepers.get(fence)
        # Joined documents are stamped with snapshots: a position says nothing of them.
        return keeper is not None and not keeper.replica.compiled.is_joined and self._redis.available

    async def bring_in(
        self, fence: FenceId, target: Target, entries: Sequence[Entry], snapshot: Snapshot
    ) -> bool:
        """Makes sure of the presence of other processes' changes in a generation; see ``ReadSide.bring_in``."""
        return await self._keepers[fence].replica.bring_in(target, entries, snapshot)

    def ask(self, after: Mapping[FenceId, int]) -> Collection[FenceId]:
        """Asks the keepers for passes later than the numbered ones. Returns the read models that can have one now."""
        own = self._keepers.keys() & after.keys()
        return [fence for fence in own if self._keepers[fence].ask(after[fence])]

    def _asked(self, fence: FenceId, after: int) -> None:
        keeper = self._keepers.get(fence)
        if keeper is not None:
            keeper.asked_by_another(after)
