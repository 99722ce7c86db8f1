"""The Redis side of an application, composed: connections, a keeper of each read model, and the hinge over all.

The package ``redis`` is an extra. Everything that needs it is reached through this module, which the rest imports
only when an application uses Redis; the import raises ``MissingExtraError`` where the package is not installed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from diptych.config.settings import Settings
from diptych.fence.acknowledge import Acknowledger
from diptych.fence.contract import Applied, FenceId, Target
from diptych.fence.fence import Fence
from diptych.health import ReadModelHealth, RedisHealth, SetAsideRow
from diptych.hinge.keeper import Keeper
from diptych.hinge.planned import PlannedRebuild
from diptych.hinge.replica import Replica
from diptych.hinge.status import Progress
from diptych.hinge.sweeper import Sweeper
from diptych.log import Change, Entry, Snapshot
from diptych.read.panel import ReadPanel
from diptych.read.store.source import RedisSource
from diptych.read.store.store import RedisStore
from diptych.redis.service import RedisService

__all__ = ["RedisService", "RedisSide"]


class RedisSide:
    """The read models of an application in Redis, kept true to SQL.

    Raises ``ConfigurationError`` for a malformed ``REDIS_URL``.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        panels: Sequence[ReadPanel],
        fence: Fence,
        acknowledger: Acknowledger,
    ) -> None:
        self._fence = fence
        self._acknowledger = acknowledger
        self.service = _service(url, settings)
        self.keepers = {
            panel.model: _keeper(settings, panel, self.service, fence, acknowledger) for panel in panels
        }
        self._hinge = Hinge(self.service, fence, list(self.keepers.values()))

    async def start(self) -> None:
        """Connects to Redis, and begins to bring the read models up.

        Raises ``RedisUnavailableError`` if Redis is critical and away.
        """
        await self.service.start()
        await self._fence.listen()
        self._acknowledger.tracker.read_side = self._hinge
        self._hinge.start()

    async def stop(self) -> None:
        """Ends the background tasks and closes every connection. Safe to call twice, and before ``start``."""
        try:
            await self._hinge.stop()
        finally:
            await self.service.close()

    def source(self, model: type) -> RedisSource:
        """Returns the route to this read model's answers over Redis."""
        return self.keepers[model].source

    async def rebuild(self, model: type, tell: Callable[[Progress], None] | None = None) -> Progress:
        """Builds a read model anew beside the generation that serves. ``Diptych.rebuild`` says what is raised."""
        return await PlannedRebuild(self.keepers[model], tell).run()

    async def look(self) -> None:
        """Brings ``health`` and ``health_of`` up to date."""
        await asyncio.gather(*(keeper.check() for keeper in self.keepers.values()))

    def health(self) -> RedisHealth:
        """Returns the state of Redis."""
        if self.service.available:
            return RedisHealth("up")
        return RedisHealth("refused" if self.service.refused else "away", self.service.problem)

    def health_of(self, model: type) -> ReadModelHealth:
        """Returns the state of a read model."""
        keeper = self.keepers[model]
        status, progress, set_aside = keeper.status, keeper.status.progress, keeper.set_aside
        table = keeper.replica.compiled.entity.table
        return ReadModelHealth(
            served_by="redis" if status.fresh else "sql",
            detail=None if status.fresh else status.reason,
            since=status.since,
            progress=None if progress is None else str(progress),
            time_left_s=None if progress is None else progress.time_left_s,
            set_aside=None if set_aside is None else set_aside.number,
            set_aside_rows=tuple(SetAsideRow(table, *row) for row in set_aside.rows) if set_aside else (),
        )


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
        self, changes: Sequence[Change], targets: Mapping[FenceId, Target]
    ) -> Mapping[FenceId, asyncio.Future[Applied]]:
        """Begins to write committed changes into the generations ``targets``; see ``ReadSide.apply``."""
        applying = {}
        for fence, keeper in self._keepers.items():
            replica = keeper.replica
            own = [change for change in changes if change.entity.table == replica.compiled.entity.table]
            # Joined documents are left to passes: see JoinedDocuments.
            if own and not replica.compiled.is_joined and fence in targets and targets[fence].generation:
                applying[fence] = replica.apply(own, targets[fence])
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


def _service(url: str, settings: Settings) -> RedisService:
    return RedisService(
        url,
        critical=settings.redis_critical,
        namespace=settings.redis_namespace,
        query_timeout_ms=round(settings.redis_query_timeout_s * 1000),
        command_timeout_ms=round(settings.redis_command_timeout_s * 1000),
    )


def _keeper(
    settings: Settings, panel: ReadPanel, redis: RedisService, fence: Fence, acknowledger: Acknowledger
) -> Keeper:
    store = RedisStore(panel.compiled, redis)
    batch_size = settings.rebuild_batch_size
    return Keeper(
        Replica(panel.compiled, panel.rows, store, redis, fence, batch_size=batch_size),
        redis,
        fence,
        acknowledger.rows,
        lease_s=settings.lease_s,
        probe_interval_s=settings.redis_probe_interval_s,
    )
