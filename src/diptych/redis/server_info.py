"""A server's ``INFO``: its identity, and the faults of servers not to be used."""

from __future__ import annotations

import re
from typing import Any

from diptych.redis.identity import RedisIdentity
from diptych.redis.refusals import CLUSTER, RefusedServerError


def identity_in(reply: Any) -> RedisIdentity:
    """Returns the identity in a server's reply to ``INFO``. Raises ``RefusedServerError`` for an unfit server."""
    info = _parsed(reply)
    if fault := _fault_of(info):
        raise RefusedServerError(fault)
    return RedisIdentity(info.get("run_id", ""), info.get("master_replid", ""))


def _parsed(reply: Any) -> dict[str, str]:
    text = reply if isinstance(reply, str) else bytes(reply).decode("utf-8", "replace")
    return dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)


def _fault_of(info: dict[str, str]) -> str | None:
    """Returns why this server must not be used; None for a fit server."""
    if fault := _fault_of_kind(info):
        return fault
    version = info.get("redis_version", "0")
    numbers = [int(n) for n in re.findall(r"\d+", version)[:1]]
    if not numbers or numbers[0] < 7:
        return f"it is Redis {version}: use Redis 7.0 or later, or Valkey"
    if info.get("role") != "master":
        return "it is a replica: REDIS_URL must lead to the master"
    policy = info.get("maxmemory_policy", "")
    if policy != "noeviction" and not policy.startswith("volatile-"):
        return (
            f"its maxmemory-policy is {policy}, which drops keys that have no expiry: "
            "set maxmemory-policy to noeviction or volatile-lru"
        )
    return None


def _fault_of_kind(info: dict[str, str]) -> str | None:
    """Returns why this kind of server must not be used; None for a fit kind."""
    mode = info.get("redis_mode") or info.get("server_mode")  # Valkey calls it so
    if mode == "sentinel":
        return "it is a Sentinel: REDIS_URL must lead to the master itself, which a Sentinel only names"
    if info.get("cluster_enabled") == "1" or mode == "cluster":
        return f"it is a node of a Redis Cluster: {CLUSTER}"
    return None
