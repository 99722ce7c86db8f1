"""Connections to Redis, and the identity of a Redis server."""

from __future__ import annotations

from typing import NamedTuple

from diptych.errors import RedisUnavailableError


class RedisIdentity(NamedTuple):
    """An incarnation of Redis: its process (new at each start) and its data's history (new at each promotion)."""

    run_id: str
    replication_id: str


class WrongContentsError(RedisUnavailableError):
    """Raised where a key of diptych's holds a value of another type: somebody else has written it. Never public."""
