"""One read model in Redis, and whether it is as new as SQL.

The rules of this module hold for one process that writes: the others are recognised, and then SQL answers.

- Readers trust a generation only with the lease that this process has published for it, and only while every
  change since has been applied to it.
- A change that could not be applied ends the trust before its command is acknowledged; so does a Redis that was
  restarted or has lost the lease. Then the read model is built anew from SQL, as another generation.
- A process that writes and finds a lease that is not its own marks it as shared before its command is
  acknowledged: whoever held it has not heard of the change.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Sequence

from diptych.errors import RedisUnavailableError
from diptych.ports import Change, Trusted
from diptych.read.projection import Projection
from diptych.read.redis import RedisService
from diptych.read.store import RedisStore

_log = logging.getLogger("diptych.hinge")

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 60.0


class Replica:
    """The state of one read model in Redis. Implements ``Freshness``; changed by publication and rebuild."""

    def __init__(
        self, projection: Projection, redis: RedisService, store: RedisStore, *, alone: bool
    ) -> None:
        self.name = projection.name
        self.model = projection.entity.model
        self.redis = redis
        self.store = store
        self.progress: str | None = None
        self._since = _now()
        self.target: Trusted | None = None
        self._alone = alone
        self._trusted: Trusted | None = None
        self._reason = "starting" if alone else "workers"
        self.doubtful = False
        self._due = 0.0
        self._pause_s = _FIRST_PAUSE_S
        self._put_off_at = 0.0
        self._holder: bytes | None = None

    @property
    def reason(self) -> str:
        """Why SQL answers."""
        if not self.redis.available:
            return "redis-refused" if self.redis.refused else "redis-away"
        return "redis-away" if self._trusted is not None else self._reason

    @property
    def since(self) -> datetime.datetime:
        """Since when the store that answers now has answered."""
        return self._since if self.redis.available else max(self._since, self.redis.since)

    @property
    def fresh(self) -> bool:
        return self._trusted is not None and self.redis.available

    def trusted(self) -> Trusted | None:
        if not self.redis.available:
            self.check_redis()
            return None
        return self._trusted

    def confirm(self, trusted: Trusted, lease: bytes | None) -> bool:
        if self._trusted is not trusted:
            return False
        if lease == trusted.lease:
            return True
        if lease is None:
            self.lost("its lease is gone")
        else:
            self._taken(lease)
        return False

    def check_redis(self) -> None:
        if self.redis.critical:
            self.redis.check_available()
            raise RedisUnavailableError(f"Redis at {self.redis.address} did not answer in time")

    def lost(self, problem: str) -> None:
        self._distrust("lost", problem)

    def missed(self, problem: str) -> None:
        """A committed change is not in Redis, or may not be."""
        self._distrust("missed", problem)

    def doubt(self) -> None:
        """It is not known whether a change was committed."""
        self.doubtful = True
        self.missed("it is not known whether a change was committed")

    async def take(self, changes: Sequence[Change]) -> None:
        """Brings committed changes of the read model's entity to Redis, or ends the trust. Never raises."""
        own = [change for change in changes if change.entity.model is self.model]
        if not own:
            return
        if not self.redis.available:
            self.missed("Redis is away")
            return
        target = self.target
        try:
            if target is None:
                outcome = await self.store.apply(b"none", b"", [])
            else:
                writes = [write for change in own for write in self.store.writes_of(change)]
                outcome = await self.store.apply(target.generation, target.lease, writes)
        except RedisUnavailableError as error:
            self.missed(str(error))
        except Exception as error:
            _log.exception("%s: a change could not be applied", self.name)
            self.missed(f"applying a change failed ({type(error).__name__})")
        else:
            self._judge(outcome, target)

    def look_at(self, lease: bytes | None) -> None:
        """Takes note of the lease as it is in Redis now, for when nothing asks for it."""
        if self._trusted is not None:
            self.confirm(self._trusted, lease)
        elif self._holder is not None and lease != self._holder:
            if lease is None or lease == b"shared":
                # Nobody's any more: whoever rebuilds first holds it next.
                self._holder = None
                self._put_off()
            else:
                self._taken(lease)

    def is_due(self) -> bool:
        """Whether it is time to build it anew."""
        return self._alone and self._trusted is None and time.monotonic() >= self._due

    def building(self, target: Trusted) -> None:
        """From now on changes are applied to this generation; readers don't see it yet."""
        self.target = target
        self._enter("rebuilding", None)

    def serving(self, trusted: Trusted) -> None:
        """From now on readers trust this generation."""
        self.target = self._trusted = trusted
        self.progress = None
        self._since = _now()

    def failed(self, problem: str) -> None:
        """The rebuild did not succeed: it is tried again, after a pause that grows."""
        self._distrust("rebuilding", None)
        self._put_off()
        _log.warning("%s: the rebuild is put off: %s", self.name, problem)

    def taken(self) -> None:
        """Another process has written during the rebuild."""
        self._taken(b"shared")

    def _taken(self, lease: bytes) -> None:
        if lease == b"shared":
            self._distrust("other-process", "another process writes too")
            self._put_off()
        else:
            # To take it back at once would set off a race of rebuilds without an end.
            self._distrust("other-process", "another process has taken it over")
            self._holder = lease
            self._due = time.monotonic() + _LONGEST_PAUSE_S

    def _judge(self, outcome: bytes, target: Trusted | None) -> None:
        if outcome == b"FOREIGN" and target is not None and self.target is target:
            self._taken(b"shared")
        elif outcome == b"GONE" and target is not None and self.target is target:
            self.missed("Redis has lost its data")

    def _distrust(self, reason: str, problem: str | None) -> None:
        was_trusted = self._trusted is not None
        self._trusted = self.target = self.progress = None
        if self._alone:
            # Told once, not for every command that meets the same state.
            self._enter(reason, problem if was_trusted or self._reason != reason else None)

    def _enter(self, reason: str, problem: str | None) -> None:
        if self._reason != reason or problem is not None:
            self._since = _now()
        self._reason = reason
        if problem is not None:
            _log.warning("%s: SQL answers from now on: %s", self.name, problem)

    def _put_off(self) -> None:
        """The pause grows while rebuilds are put off again and again, and is short again after a time of quiet."""
        now = time.monotonic()
        if now - self._put_off_at > 2 * _LONGEST_PAUSE_S:
            self._pause_s = _FIRST_PAUSE_S
        self._put_off_at = now
        self._due = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
