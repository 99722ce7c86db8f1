"""The sweeper of a process: deletes leftovers in Redis and in the fence, at its start and then regularly."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

from diptych.aio.tasks import Looper
from diptych.errors import UnavailableError
from diptych.fence.contract import FenceRow
from diptych.fence.fence import Fence
from diptych.hinge.pace import Pace
from diptych.hinge.replica import Replica
from diptych.read.store.deletion import delete_abandoned
from diptych.redis.service import RedisService

_log = logging.getLogger("diptych.hinge")

_INTERVAL_S = 600.0
_HOUR_S = 3600.0
_DAY_S = 86_400.0


class Sweeper:
    """The sweeper of an application's read models in this process; ``looper`` sweeps. Ages are by SQL's clock."""

    def __init__(self, redis: RedisService, fence: Fence, replicas: Sequence[Replica]) -> None:
        self._redis = redis
        self._fence = fence
        self._replicas = {replica.id: replica for replica in replicas}
        self._names = {replica.id.read_model for replica in replicas}
        self.looper = Looper("sweeper", self._sweep, _INTERVAL_S)

    async def _sweep(self) -> None:
        with contextlib.suppress(UnavailableError):
            self._redis.check_available()  # the keepers look whether it is back
            for row in await self._fence.rows():
                if self._is_abandoned(row):
                    await self._remove(row)
            for replica in self._replicas.values():
                await self._sweep_generations(replica)

    def _is_abandoned(self, row: FenceRow) -> bool:
        """Returns True if no process has kept the row for long, as far as this process can tell.

        Long is an hour for another declaration of a read model of this application, and for the row of a planned
        rebuild. It is a day for a read model that the application does not have: it may be another application's, or
        its class be renamed and back tomorrow.
        """
        kept_until = max(row.lease_until, row.building_until)
        # A row that was registered a moment ago has never been kept, and there is nothing to delete.
        if row.id in self._replicas or kept_until == 0:
            return False
        # Keys of another namespace may be in another Redis, and would be left there without the row that tells of
        # them.
        if row.id.read_model.rpartition(":")[0] != self._redis.namespace:
            return False
        is_known = row.id.read_model in self._names or row.id != row.id.served
        return row.now > kept_until + (_HOUR_S if is_known else _DAY_S)

    async def _remove(self, row: FenceRow) -> None:
        """Removes a row and its keys, the keys first: while Redis is away the row stays, as a record of the keys."""
        if row.id != row.id.served:
            await self._fence.forget(row)  # without it the rebuild is refused, and its keys have no row
        elif await delete_abandoned(self._redis, row.id, Pace().rest) and await self._fence.forget(row):
            _log.info("%s: the documents that nobody has kept for long are deleted", row.id.read_model)

    async def _sweep_generations(self, replica: Replica) -> None:
        """Deletes the generations without a row in the fence, left by interrupted rebuilds and switches."""
        # ★ Redis is looked at before SQL: a builder names its generation in the fence before it writes a key of it.
        # So a generation that is there already, and is not named afterwards, can't be published any more.
        state = await replica.store.inspect("")
        named = {row.generation.encode() for row in await self._fence.rows() if row.id.served == replica.id}
        is_another_databases = state.leased is not None and state.leased.generation not in named
        if not is_another_databases:
            await replica.store.delete(state.incarnation, state.generations - named, Pace().rest)
