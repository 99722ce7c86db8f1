"""The state of the read models in Redis, for ``diptych status``: by a look from outside that changes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from msgspec import structs

from diptych.config.settings import Settings
from diptych.errors import RedisUnavailableError
from diptych.fence.contract import FenceRow
from diptych.fence.look import FenceLook
from diptych.health import ReadModelStatus, StoreStatus
from diptych.hinge.lag import lag_of
from diptych.hinge.status import problem_of
from diptych.log.reading import LogReader
from diptych.read.panel import ReadPanel
from diptych.read.store.state import Lease, RedisState
from diptych.read.store.store import RedisStore
from diptych.redis.service import RedisService
from diptych.sql.database import Database


class Sources(NamedTuple):
    """The result of a look: the database, its log, and the rows of the fence."""

    database: Database
    reader: LogReader
    fence: FenceLook


@contextlib.asynccontextmanager
async def looking_at_redis(url: str, settings: Settings) -> AsyncIterator[RedisService]:
    """Opens Redis to look at it. Nothing is tried out: that would write. Raises ``ConfigurationError``."""
    redis = RedisService(
        url,
        namespace=settings.redis_namespace,
        command_timeout_ms=round(settings.redis_command_timeout_s * 1000),
    )
    try:
        yield redis
    finally:
        await redis.close()


async def store_status(redis: RedisService) -> StoreStatus:
    """Returns the state of Redis."""
    try:
        await redis.check_server()
    except RedisUnavailableError as error:
        return StoreStatus("refused" if redis.refused else "away", redis.address, redis.problem or str(error))
    return StoreStatus("up", redis.address)


async def statuses(
    panels: Sequence[ReadPanel], redis: RedisService, found: StoreStatus, sources: Sources
) -> dict[str, ReadModelStatus]:
    """Returns the state of each read model, by its name. Raises ``DatabaseUnavailableError``."""
    return {panel.compiled.name: await _status_of(panel, redis, found, sources) for panel in panels}


async def _status_of(
    panel: ReadPanel, redis: RedisService, found: StoreStatus, sources: Sources
) -> ReadModelStatus:
    store = RedisStore(panel.compiled, redis)
    row = sources.fence.rows.get(store.id)
    lag, looked_in = None, store if found.state == "up" else None
    if row is not None:
        lag = await lag_of(sources.database, sources.reader, panel.compiled, looked_in, row)
    of_sql = ReadModelStatus(
        "sql",
        "redis-refused" if found.state == "refused" else "redis-away",
        generation=None if row is None else row.generation or None,
        lag_changes=None if lag is None else lag.changes,
        lag_seconds=None if lag is None else round(lag.seconds, 3),
    )
    if found.state != "up":
        return of_sql
    try:
        state = await store.inspect("" if row is None else row.generation)
        survey = await store.survey(state.generation)
    except RedisUnavailableError:
        return of_sql
    reason = _reason_for_sql(row, state, sources.fence.history)
    ends_ms, is_there = survey.lease_ends_ms, bool(state.marker)
    return structs.replace(
        of_sql,
        served_by="redis" if reason is None else "sql",
        reason=reason,
        lease_left_s=None if reason or ends_ms is None else max(0, ends_ms - state.time_ms) / 1000,
        passes_by=survey.passes_by,
        documents=survey.documents if is_there else None,
        set_aside=survey.set_aside if is_there else None,
        memory_bytes=survey.memory_bytes if is_there else None,
    )


def _reason_for_sql(row: FenceRow | None, state: RedisState, history: str) -> str | None:
    """Returns why SQL would answer a query, as a short token; None if Redis would: by the rules of a query."""
    if not state.lease:
        return "no-lease" if row is None else problem_of(row, state) or "no-lease"
    lease = Lease.parse(state.lease)
    if lease.history != history.encode():
        return "other-database"
    return None if lease.incarnation == state.incarnation else "other-server"
