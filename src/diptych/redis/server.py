"""The server at the other end: its identity, its refusals with a remedy, and faults for which it is not used."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from diptych.redis import RedisIdentity

CLUSTER = "diptych does not speak to nodes of a Redis Cluster: lead REDIS_URL to a single server"

_REMEDIES = {
    "MISCONF": "free its disk or mend its `dir`, or set stop-writes-on-bgsave-error to no",
    "OOM": "raise its maxmemory, or take other data out of it",
    "NOREPLICAS": "bring its replicas back, or lower min-replicas-to-write",
    "NOPERM": "give its user the rights that docs/how-to/redis.md lists",
    "WRONGPASS": "check user and password in REDIS_URL",
    "NOAUTH": "put its password, and the user if it has one, into REDIS_URL",
    "READONLY": "REDIS_URL must lead to the master",
    "MASTERDOWN": "it is a replica without its master: REDIS_URL must lead to the master",
    "LOADING": "it is reading its data: wait",
    "BUSY": "a script of somebody else is running: wait, or end it with SCRIPT KILL",
    **dict.fromkeys(("MOVED", "ASK", "CLUSTERDOWN", "CROSSSLOT", "TRYAGAIN"), CLUSTER),
}

_PLACE = re.compile(r" script: .*on @user_script.*$", re.DOTALL)
"""The place in a script, which Redis adds to some errors."""

_PASSING = {"LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"}
"""Codes of errors that end by themselves."""


class RefusedServerError(RedisConnectionError):
    """Refusal of a server: Redis answers but must not be used."""


def said_by(error: BaseException) -> tuple[str | None, bool]:
    """Returns the text of a server's error with its remedy, and True if the refusal will end by itself.

    The text is None for every other error, such as an outage.
    """
    if isinstance(error, RefusedServerError):
        return str(error), False
    if not isinstance(error, RedisError):
        return None, False
    # redis-py takes the code out of the errors that it knows, and leaves it in the others.
    code = error.status_code or str(error).partition(" ")[0]
    remedy = _REMEDIES.get(code)
    if remedy is None:
        return None, False
    words = str(error)
    return _told(words if words.startswith(code) else f"{code} {words}", remedy), code in _PASSING


def is_of_contents(error: BaseException) -> bool:
    """Returns whether a key holds a value of another type than the command, or the script, is for."""
    return isinstance(error, RedisError) and "WRONGTYPE" in str(error)


def _told(words: str, remedy: str) -> str:
    return f"{_PLACE.sub('', words).strip().rstrip('.')}: {remedy}"


async def try_out(link: Any, namespace: str) -> None:
    """Tries every command in use on a key of its own. Raises Redis's error, or ``RefusedServerError``.

    A server that answers `PING` may yet refuse to write, or a command to this user: without this trial it would be
    taken for well again and again.
    """
    digest = await link.call("SCRIPT", "LOAD", "return 1")
    await link.call("EVALSHA_RO", digest, 0)
    digest = await link.call(
        "SCRIPT", "LOAD", files(__package__).joinpath("trial.lua").read_text(encoding="utf-8")
    )
    refused = await link.call("EVALSHA", digest, 1, f"{{{namespace}:trial}}")
    if refused:
        command, words = (part.decode("utf-8", "replace") for part in refused)
        code = words.partition(" ")[0]
        if code not in _REMEDIES or (code == "NOPERM" and f"'{command}'" not in words):
            # Within a script not every version says which command it was.
            words, code = f"NOPERM it refuses the command '{command}' ({words.strip()})", "NOPERM"
        raise RefusedServerError(_told(words, _REMEDIES[code]))


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
