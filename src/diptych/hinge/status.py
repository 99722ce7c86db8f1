"""Which store answers the queries of one read model, since when, and why it is SQL: for health and the log."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable

from diptych.redis.service import RedisService

_log = logging.getLogger("diptych.hinge")

_PROGRESS_S = 2.0

REASONS = {
    "starting": "the read model has not been looked at yet",
    "no-lease": "no lease is in Redis: nothing vouches that it is fresh",
    "lost": "Redis does not have the read model's data, or not all of them",
    "rebuilding": "the read model is being rebuilt",
    "other-server": "the lease is of another Redis than the one this process is led to",
    "other-database": "another database keeps this read model in the same Redis under the same namespace: give one "
    "of the two applications another REDIS_NAMESPACE, or another Redis",
    "failing": "passes over the read model fail",
    "redis-away": "Redis does not answer",
    "redis-refused": "Redis can't be used as it is set up, or refuses what it is asked",
    "sql-away": "SQL does not answer, so no lease can be renewed",
}
"""What each reason means, as the log tells it."""


class Status:
    """Told by queries and by the keeper; asked by health, and by answers from SQL for their ``Cache-Status``."""

    def __init__(self, name: str, redis: RedisService, wake: Callable[[], None]) -> None:
        self.name = name
        self.progress: Progress | None = None
        self.broken_generation: str | None = None
        self._redis = redis
        self._wake = wake
        self._reason: str | None = "starting"
        self._since = _now()

    @property
    def reason(self) -> str:
        """Why SQL answers: what the keeper has found, or that this query was not answered in time."""
        if not self._redis.available:
            return "redis-refused" if self._redis.refused else "redis-away"
        return self._reason or ("redis-away" if self._redis.fails else "no-lease")

    @property
    def since(self) -> datetime.datetime:
        """Since when the store that answers now has answered, or the reason for SQL has been this one."""
        return self._since if self._redis.available else max(self._since, self._redis.since)

    @property
    def fresh(self) -> bool:
        """Whether Redis answers."""
        return self._reason is None and self._redis.available

    def answered_by_redis(self) -> None:
        if self._reason is not None:
            self._reason, self._since, self.progress = None, _now(), None
            _log.info("%s: Redis answers", self.name)

    def answered_by_sql(self, reason: str) -> None:
        # What the keeper has found says more than that there is no lease. It is woken once: what it has to wait for
        # does not come sooner for being asked by every query.
        if self._reason is None:
            self.sql(reason)
            self._wake()

    def broken(self, generation: str, problem: str) -> None:
        if self.broken_generation != generation:
            _log.error("%s: %s; it is built anew", self.name, problem)
        self.broken_generation = generation
        self.answered_by_sql("lost")
        self._wake()

    def unknown(self) -> None:
        """Redis was away: which store will answer then is known when somebody has looked."""
        self._reason = self._reason or "no-lease"

    def sql(self, reason: str) -> None:
        """SQL answers from now on, for this reason."""
        if self._reason != reason:
            level = logging.INFO if self._reason == "starting" or reason == "rebuilding" else logging.WARNING
            level = logging.ERROR if reason == "other-database" else level
            _log.log(level, "%s: SQL answers: %s", self.name, REASONS[reason])
            self._reason, self._since = reason, _now()


class Progress:
    """How far a rebuild is, told to the log from time to time. ``total`` is about."""

    def __init__(self, name: str, total: int, tell: Callable[[Progress], None] | None = None) -> None:
        self.done = 0
        self.total = total
        self._name = name
        self._tell = tell
        self._started = self._told = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._started

    @property
    def time_left_s(self) -> float | None:
        """How long it will take, if the rest goes as fast; None before there is anything to judge by."""
        if self.done == 0:
            return None
        return self.seconds * max(0, self.total - self.done) / self.done

    def add(self, count: int) -> None:
        """So many documents more are written."""
        self.done += count
        self.total = max(self.total, self.done)
        if self._tell is not None:
            self._tell(self)
        if time.monotonic() - self._told >= _PROGRESS_S:
            self._told = time.monotonic()
            _log.info("%s: rebuilding, %s", self._name, self)

    def __str__(self) -> str:
        left = self.time_left_s
        rest = "" if left is None else f", about {left:.0f} s left"
        return f"{self.done} of {self.total} documents{rest}"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
