"""The state of Redis before a pass, and the lease in it."""

from __future__ import annotations

from typing import NamedTuple

from diptych.fence.contract import Target
from diptych.redis.identity import RedisIdentity


class RedisState(NamedTuple):
    """What a keeper has to know of Redis before a pass, all of one moment and of one Redis, ``incarnation``.

    ★ It is worth nothing on another one: of two masters each has a clock, a floor and generations of its own. What is
    computed from a look is therefore handed on with it, to be checked against the Redis that it is used on.

    ``time_ms`` is its clock. ``generations`` are those that may have left keys there. ``maxmemory`` 0: no limit.
    """

    incarnation: RedisIdentity
    generation: str
    time_ms: int
    generations: frozenset[bytes]
    is_master: bool
    policy: str
    marker: str
    lease: bytes
    used_memory: int
    maxmemory: int

    @property
    def known(self) -> Target:
        """Which generation of which Redis was looked at."""
        return Target(self.incarnation, self.generation)

    @property
    def leased(self) -> Lease | None:
        """The lease in force; None if there is none.

        ★ One that names another server is not: it came with that server's data, and ends by that server's clock.
        """
        lease = Lease.parse(self.lease)
        return lease if lease.incarnation == self.incarnation else None

    @property
    def floor(self) -> int | None:
        """The generation's floor; None if it is not built, or not there."""
        return int(self.marker[1:].partition(":")[0]) if self.marker.startswith("f") else None

    @property
    def passed(self) -> int:
        """The number of the latest pass that this generation was published by; 0 if there was none."""
        return int(self.marker.partition(":")[2] or 0)


class Lease(NamedTuple):
    """What a lease says: which generation of which Redis may be read, by the word of which history of a database."""

    incarnation: RedisIdentity
    generation: bytes
    history: bytes

    @classmethod
    def parse(cls, text: bytes) -> Lease:
        """The lease of a text; one that names nothing if somebody else has written there."""
        run_id, replication_id, generation, history = [*text.split(b":"), b"", b"", b""][:4]
        server = RedisIdentity(run_id.decode("latin-1"), replication_id.decode("latin-1"))
        return cls(server, generation, history)

    def is_of_another(self, history: str) -> bool:
        """Whether it is the word of another database, or of this one before it was put elsewhere."""
        return bool(self.history) and self.history != history.encode()
