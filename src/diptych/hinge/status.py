"""The status of a read model, for health and the log: which store answers, since when, and why SQL does."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable

from diptych.fence.contract import FenceRow
from diptych.read.store.state import RedisState
from diptych.redis.service import RedisService

_log = logging.getLogger("diptych.hinge")

_PROGRESS_S = 2.0
"""Interval between two messages to the log about a rebuild, in seconds."""

REASONS = {
    "starting": "the read model has not been looked at yet",
    "no-lease": "no lease is in Redis: nothing vouches that it is fresh",
    "lost": "Redis does not have the read model's data, or not all of them",
    "rebuilding": "the read model is being rebuilt",
    "other-server": "the lease is of another Redis than the one this process is led to",
    "other-database": "another database keeps this read model in the same Redis under the same namespace: give one "
    "of the two applications another REDIS_NAMESPACE, or another Redis",
    "uncaptured": "changes of its tables may have gone unnoticed: its triggers were dropped, disabled or altered, or "
    "a table was truncated or replaced",
    "failing": "passes over the read model fail",
    "redis-away": "Redis does not answer",
    "redis-refused": "Redis can't be used as it is set up, or refuses what it is asked",
    "sql-away": "SQL does not answer, so no lease can be renewed",
}
"""Reasons for answers from SQL, with their texts in the log."""


class Status:
    """The store answering the queries of a read model, as queries and the keeper report.

    Read by health, and by answers from SQL for their ``Cache-Status``. ``wake`` has the keeper look at once.
    ``answers`` is the number of queries that Redis has answered, ``progress`` the rebuild under way,
    ``broken_generation`` a generation whose data proved to be wrong.
    """

    def __init__(self, name: str, redis: RedisService, wake: Callable[[], None]) -> None:
        self.name = name
        self.answers = 0
        self.progress: Progress | None = None
        self.broken_generation: str | None = None
        self._redis = redis
        self._wake = wake
        self._reason: str | None = "starting"
        self._since = _now()
        self._changes = 0

    @property
    def changes(self) -> int:
        """Number of changes of the answering store, or of the reason for SQL, in this process."""
        return self._changes

    @property
    def reason(self) -> str:
        """Reason for answers from SQL: the keeper's finding, or a query without an answer in time."""
        if not self._redis.available:
            return "redis-refused" if self._redis.refused else "redis-away"
        return self._reason or ("redis-away" if self._redis.fails else "no-lease")

    @property
    def since(self) -> datetime.datetime:
        """Time of the last change of the answering store, or of the reason for SQL."""
        return self._since if self._redis.available else max(self._since, self._redis.since)

    @property
    def fresh(self) -> bool:
        """True if Redis answers."""
        return self._reason is None and self._redis.available

    # Reports of queries

    def answered_by_redis(self, answers: int = 0) -> None:
        """Redis has given so many answers, and answers from now on."""
        self.answers += answers
        if self._reason is not None:
            self.progress = None
            self._change(None)
            _log.info("%s: Redis answers", self.name)

    def answered_by_sql(self, reason: str) -> None:
        """SQL has answered a query, for this reason."""
        # The keeper's finding says more than that there is no lease. The keeper is woken once: a remedy that it has
        # to wait for does not come sooner for being asked for by every query.
        if self._reason is None:
            self.sql(reason)
            self._wake()

    def broken(self, generation: str, problem: str) -> None:
        """The data of this generation proved to be wrong, although leased."""
        if self.broken_generation != generation:
            _log.error("%s: %s; it is built anew", self.name, problem)
        self.broken_generation = generation
        self.answered_by_sql("lost")
        self._wake()

    # Findings of the keeper

    def leased(self, changes: int) -> None:
        """Redis has everything, and the lease says so, unless a query has reported since there were ``changes``.

        Queries trust a lease as soon as it is written, and one of them may by now have seen its loss too.
        """
        if self._changes == changes:
            self.answered_by_redis()

    def unknown(self) -> None:
        """Redis was away: the answering store is known once the keeper has looked."""
        self._reason = self._reason or "no-lease"

    def sql(self, reason: str) -> None:
        """SQL answers from now on, for this reason."""
        if self._reason != reason:
            level = logging.INFO if self._reason == "starting" or reason == "rebuilding" else logging.WARNING
            level = logging.ERROR if reason == "other-database" else level
            _log.log(level, "%s: SQL answers: %s", self.name, REASONS[reason])
            self._change(reason)

    def _change(self, reason: str | None) -> None:
        self._reason, self._since = reason, _now()
        self._changes += 1

    def is_broken(self, row: FenceRow) -> bool:
        """Returns True if the data of the row's generation proved to be wrong."""
        return self.broken_generation == row.generation

    def problem_of(self, row: FenceRow, state: RedisState) -> str | None:
        """Returns the reason for not serving the generation in Redis; None without a problem."""
        return problem_of(row, state) or ("lost" if self.is_broken(row) else None)


def problem_of(row: FenceRow, state: RedisState) -> str | None:
    """Returns the reason for not serving the generation in Redis, by what Redis and the fence say of it."""
    if state.leased is not None and state.leased.is_of_another(row.history):
        return "other-database"
    if not row.ready:
        return "rebuilding"
    if row.incarnation != state.incarnation:
        return "other-server"
    if state.floor is None or row.cursor is None:
        return "lost"
    return None


class Progress:
    """The progress of a rebuild, written to the log from time to time. ``total`` is an estimate."""

    def __init__(self, name: str, total: int, tell: Callable[[Progress], None] | None = None) -> None:
        self.done = 0
        self.total = total
        self._name = name
        self._tell = tell
        self._started = self._told = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time taken so far, in seconds."""
        return time.monotonic() - self._started

    @property
    def time_left_s(self) -> float | None:
        """Time left in seconds, if the rest goes as fast; None before the first documents are written."""
        if self.done == 0:
            return None
        return self.seconds * max(0, self.total - self.done) / self.done

    def add(self, count: int) -> None:
        """Adds so many written documents."""
        self.done += count
        self.total = max(self.total, self.done)
        if self._tell is not None:
            self._tell(self)
        if time.monotonic() - self._told >= _PROGRESS_S:
            self._told = time.monotonic()
            _log.info("%s: rebuilding, %s", self._name, self)

    def finish(self) -> None:
        """Tells the log of the end of the rebuild."""
        _log.info("%s: rebuilt, %d documents in %.1f s", self._name, self.done, self.seconds)

    def __str__(self) -> str:
        left = self.time_left_s
        rest = "" if left is None else f", about {left:.0f} s left"
        return f"{self.done} of {self.total} documents{rest}"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
