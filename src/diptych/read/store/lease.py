"""The lease of a read model: its text in Redis."""

from __future__ import annotations

from typing import NamedTuple

from diptych.fence.contract import Target
from diptych.redis.identity import RedisIdentity


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
