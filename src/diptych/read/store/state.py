"""The state of Redis before a pass, and the lease in it."""

from __future__ import annotations

from typing import NamedTuple

from diptych.fence.contract import Target
from diptych.log import NOTHING, Snapshot
from diptych.redis import RedisIdentity


class RedisState(NamedTuple):
    """The state of a Redis, ``incarnation``, and of a generation there, all of the same moment.

    ★ It is worth nothing on another Redis: of two masters each has a clock, a floor and generations of its own.
    Whatever is computed from a state is therefore handed on with it, to be checked against the Redis that it is used
    on.

    ``time_ms`` is the server's clock, ``generations`` are all that may have left keys, ``maxmemory`` is 0 without a
    limit. Of joined documents, ``carried`` is the last snapshot whose changes commands have brought into the
    generation, all of them, by anybody.
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
    carried: Snapshot = NOTHING

    @property
    def target(self) -> Target:
        """The incarnation and generation of this state."""
        return Target(self.incarnation, self.generation)

    @property
    def is_usable(self) -> bool:
        """True if the server is a master and evicts no key without an expiry."""
        return self.is_master and (self.policy == "noeviction" or self.policy.startswith("volatile-"))

    @property
    def leased(self) -> Lease | None:
        """The lease in force; None without one.

        ★ A lease that names another server is not in force: it came with that server's data, and ends by that
        server's clock.
        """
        lease = Lease.parse(self.lease)
        return lease if lease.incarnation == self.incarnation else None

    @property
    def floor(self) -> int | None:
        """The generation's floor; None if the generation is missing or not built yet."""
        return int(self.marker[1:].partition(":")[0]) if self.marker.startswith("f") else None

    @property
    def passed(self) -> int:
        """The number of the latest pass over this generation, 0 before the first."""
        return int(self.marker.partition(":")[2] or 0)


class Lease(NamedTuple):
    """The permission to read a generation of an incarnation of Redis, given by a database with this history."""

    incarnation: RedisIdentity
    generation: bytes
    history: bytes

    @classmethod
    def parse(cls, text: bytes) -> Lease:
        """Returns the lease of a text; a foreign text gives a lease of no incarnation, generation or history."""
        run_id, replication_id, generation, history = [*text.split(b":"), b"", b"", b""][:4]
        server = RedisIdentity(run_id.decode("latin-1"), replication_id.decode("latin-1"))
        return cls(server, generation, history)

    def is_of_another(self, history: str) -> bool:
        """Says if the lease is of a different history: a different database's, or this database's before a move."""
        return bool(self.history) and self.history != history.encode()


def lease_text(target: Target, history: str) -> str:
    """Returns the text of a lease: ``<run id>:<replication id>:<generation>:<history>``."""
    return ":".join((*target.incarnation, target.generation, history))
