"""The Redis side of an application, composed: connections, a keeper of each read model, and the hinge over all.

The package ``redis`` is an extra. Everything that needs it is reached through this module, which the rest imports
only when an application uses Redis; the import raises ``MissingExtraError`` where the package is not installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

from diptych.config.settings import Settings
from diptych.errors import RebuildFailedError, UnavailableError
from diptych.fence.acknowledge import Acknowledger
from diptych.fence.contract import Applied, FenceId, FenceRow, Target
from diptych.fence.fence import Fence
from diptych.health import ReadModelHealth, RedisHealth, SetAsideRow
from diptych.hinge.direct import DirectWriter
from diptych.hinge.keeper import LONGEST_PAUSE_S, Keeper
from diptych.hinge.lag import lag_of
from diptych.hinge.replay import Refused
from diptych.hinge.replica import Replica
from diptych.hinge.status import REASONS, Progress
from diptych.hinge.sweeper import Sweeper
from diptych.log import Change, Entry, Snapshot
from diptych.read.panel import ReadPanel
from diptych.read.store.source import RedisSource
from diptych.read.store.state import RedisState
from diptych.read.store.store import RedisStore
from diptych.redis.service import RedisService
from diptych.sql.database import Database
from diptych.statistics import ReadModelStatistics

__all__ = ["RedisService", "RedisSide", "redis_service"]


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


class RedisSide:
    """The read models of an application in Redis, kept true to SQL by keepers and a sweeper. Implements ``ReadSide``.

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
        self.service = redis_service(url, settings)
        self.keepers: dict[type, Keeper] = {}
        for panel in panels:
            store, batch_size = RedisStore(panel.compiled, self.service), settings.rebuild_batch_size
            self.keepers[panel.model] = Keeper(
                Replica(panel.compiled, panel.rows, store, self.service, fence, batch_size=batch_size),
                self.service,
                fence,
                acknowledger.rows,
                lease_s=settings.lease_s,
                probe_interval_s=settings.redis_probe_interval_s,
            )
        self._keeper_of = {keeper.replica.id: keeper for keeper in self.keepers.values()}
        self._direct = {
            fence: DirectWriter(keeper.replica, self._fence, self.service, most=settings.direct_documents)
            for fence, keeper in self._keeper_of.items()
            if keeper.replica.compiled.is_joined
        }
        self._sweeper = Sweeper(self.service, fence, [keeper.replica for keeper in self.keepers.values()])
        fence.on_asked(self._asked)
        for keeper in self.keepers.values():
            fence.on_hint(keeper.hinted)

    async def start(self) -> None:
        """Connects to Redis, and begins to bring the read models up.

        Raises ``RedisUnavailableError`` if Redis is critical and away.
        """
        await self.service.start()
        await self._fence.listen()
        self._acknowledger.tracker.read_side = self
        for keeper in self.keepers.values():
            keeper.start()
        self._sweeper.looper.start()

    async def stop(self) -> None:
        """Ends the background tasks and closes every connection. Safe to call twice, and before ``start``."""
        try:
            await asyncio.gather(
                self._sweeper.looper.stop(), *(keeper.stop() for keeper in self.keepers.values())
            )
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

    async def statistics(self, database: Database) -> dict[type, ReadModelStatistics]:
        """Returns the figures of each read model, but for its answers from SQL."""
        rows: Mapping[FenceId, FenceRow] = {}
        with contextlib.suppress(UnavailableError):
            rows = {row.id: row for row in await self._fence.rows()}
        return {
            model: await self._statistics_of(keeper, database, rows.get(keeper.replica.id))
            for model, keeper in self.keepers.items()
        }

    async def _statistics_of(
        self, keeper: Keeper, database: Database, row: FenceRow | None
    ) -> ReadModelStatistics:
        replica, lag = keeper.replica, None
        if row is not None:
            with contextlib.suppress(UnavailableError):
                store = replica.store if self.service.available else None
                lag = await lag_of(database, self._fence, replica.compiled, store, row)
        return ReadModelStatistics(
            answers_from_redis=keeper.status.answers,
            lag_changes=None if lag is None else lag.changes,
            lag_seconds=None if lag is None else lag.seconds,
            passes=keeper.passes.statistics,
        )

    # For the ends of commands

    def apply(
        self, changes: Sequence[Change], targets: Mapping[FenceId, Target]
    ) -> Mapping[FenceId, asyncio.Future[Applied]]:
        """Begins to write committed changes into the generations ``targets``; see ``ReadSide.apply``."""
        applying = {}
        for fence, keeper in self._keeper_of.items():
            replica = keeper.replica
            own = [change for change in changes if change.entity.table == replica.compiled.entity.table]
            if own and not replica.compiled.is_joined and fence in targets and targets[fence].generation:
                applying[fence] = replica.apply(own, targets[fence])
        return applying

    def write_anew(self, fence: FenceId, target: Target) -> asyncio.Future[bool] | None:
        """Begins to write the documents made from several rows; see ``ReadSide.write_anew``."""
        direct, row = self._direct.get(fence), (self._acknowledger.rows.latest or {}).get(fence)
        return direct.write(row) if direct is not None and row is not None and row.target == target else None

    def can_look(self, fence: FenceId) -> bool:
        """Returns True if changes can be looked for in the documents of this read model now."""
        keeper = self._keeper_of.get(fence)
        # Joined documents are stamped with snapshots: a position says nothing of them.
        return keeper is not None and not keeper.replica.compiled.is_joined and self.service.available

    def bring_in(
        self, fence: FenceId, target: Target, entries: Sequence[Entry], snapshot: Snapshot, *, expected: bool
    ) -> Coroutine[Any, Any, bool]:
        """Makes sure of the presence of changes in a generation; see ``ReadSide.bring_in``."""
        return self._keeper_of[fence].replica.bring_in(target, entries, snapshot, expected=expected)

    def ask(self, after: Mapping[FenceId, int]) -> Collection[FenceId]:
        """Asks the keepers for passes later than the numbered ones. Returns the read models that can have one now."""
        own = self._keeper_of.keys() & after.keys()
        return [fence for fence in own if self._keeper_of[fence].ask(after[fence])]

    def _asked(self, fence: FenceId, after: int) -> None:
        keeper = self._keeper_of.get(fence)
        if keeper is not None:
            keeper.asked_by_another(after)


def redis_service(url: str, settings: Settings) -> RedisService:
    """Returns the service for a Redis, not yet connected. Raises ``ConfigurationError`` for a malformed URL."""
    return RedisService(
        url,
        critical=settings.redis_critical,
        namespace=settings.redis_namespace,
        query_timeout_ms=round(settings.redis_query_timeout_s * 1000),
        command_timeout_ms=round(settings.redis_command_timeout_s * 1000),
    )
