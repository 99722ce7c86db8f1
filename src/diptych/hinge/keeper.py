"""The keeper: watches Redis in the background and has lost read models rebuilt; and the way of changes to them."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from diptych.errors import RedisUnavailableError
from diptych.hinge.gate import Gate
from diptych.hinge.rebuild import Rebuild
from diptych.hinge.replica import Replica
from diptych.looper import Looper
from diptych.ports import Change, RowSource
from diptych.read.redis import RedisService

_log = logging.getLogger("diptych.hinge")

_CHECK_S = 1.0
"""How often the leases are looked at while nothing asks for them."""


class Hinge:
    """Keeps the read models of one application true to SQL. Implements ``ChangePublisher``."""

    def __init__(
        self,
        redis: RedisService,
        replicas: Sequence[tuple[Replica, RowSource]],
        *,
        batch_size: int,
        probe_interval_s: float,
    ) -> None:
        self._redis = redis
        self._gate = Gate()
        self._replicas = [replica for replica, _ in replicas]
        self._rebuilds = [Rebuild(replica, source, self._gate, batch_size) for replica, source in replicas]
        self._looper = Looper("keeper", self._look_after, probe_interval_s)
        self._checked = 0.0
        redis.on_server_changed = self._server_changed

    def start(self) -> None:
        """Begins to look after the read models; they are rebuilt in the background."""
        self._looper.start()

    async def stop(self) -> None:
        """Ends it. Safe to call twice."""
        await self._looper.stop()

    def committing(self) -> AbstractAsyncContextManager[None]:
        return self._gate.passing()

    async def publish(self, changes: Sequence[Change]) -> None:
        for replica in self._replicas:
            await replica.take(changes)
        self._wake_if_due()

    def doubt(self, changes: Sequence[Change]) -> None:
        touched = {change.entity.model for change in changes}
        for replica in self._replicas:
            if replica.model in touched:
                replica.doubt()
        self._wake_if_due()

    async def _look_after(self) -> None:
        if not self._redis.available and not await self._redis.probe():
            return
        for replica, rebuild in zip(self._replicas, self._rebuilds, strict=True):
            if replica.is_due():
                await rebuild.run()
        if time.monotonic() - self._checked >= _CHECK_S:
            self._checked = time.monotonic()
            await self._check_leases()

    async def _check_leases(self) -> None:
        # After a failure the breaker may be open; the next turn probes.
        with contextlib.suppress(RedisUnavailableError):
            await self._redis.look_again()
            for replica in self._replicas:
                replica.look_at(await replica.store.lease())

    def _server_changed(self) -> None:
        for replica in self._replicas:
            if replica.fresh or replica.target is not None:
                replica.lost("Redis was restarted")

    def _wake_if_due(self) -> None:
        # While Redis is away the probe has its own pace: a busy writer must not quicken it.
        if self._redis.available and any(replica.is_due() for replica in self._replicas):
            self._looper.wake()
