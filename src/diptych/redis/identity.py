"""Which Redis is at the other end of a connection."""

from __future__ import annotations

from typing import NamedTuple


class RedisIdentity(NamedTuple):
    """One life of one Redis: the process (new at each start) and the history it follows (new at each promotion)."""

    run_id: str
    replication_id: str
