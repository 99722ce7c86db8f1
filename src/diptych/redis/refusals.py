"""What Redis says when it answers and yet does not do what it is asked: its own words, and what to do about it."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any, NamedTuple

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

_CLUSTER = "diptych does not speak to nodes of a Redis Cluster: lead REDIS_URL to a single server"

_MENDS = {
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
    **dict.fromkeys(("MOVED", "ASK", "CLUSTERDOWN", "CROSSSLOT", "TRYAGAIN"), _CLUSTER),
}

# What Redis adds to an error within a script, and another time does not.
_PLACE = re.compile(r" script: .*on @user_script.*$", re.DOTALL)

_PASSING = {"LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"}


class Said(NamedTuple):
    """The words and the mend. ``is_passing``: it will do it in a while, without anybody's doing."""

    text: str
    is_passing: bool


class RefusedServerError(RedisConnectionError):
    """A server that answers but must not be used."""


def said_by(error: BaseException) -> Said | None:
    """What a server's error says; None if it is none of those that are known, such as an outage."""
    if isinstance(error, RefusedServerError):
        return Said(str(error), is_passing=False)
    if not isinstance(error, RedisError):
        return None
    # redis-py takes the code out of the errors that it knows, and leaves it in the others.
    code = error.status_code or str(error).partition(" ")[0]
    mend = _MENDS.get(code)
    if mend is None:
        return None
    words = str(error)
    return Said(_told(words if words.startswith(code) else f"{code} {words}", mend), code in _PASSING)


def _told(words: str, mend: str) -> str:
    return f"{_PLACE.sub('', words).strip().rstrip('.')}: {mend}"


async def try_out(link: Any, namespace: str) -> None:
    """Has Redis do once all that it will be asked to. Raises its error, or ``RefusedServerError``.

    A server that answers `PING` may yet refuse to write, or a command to this user: it would be taken for well again
    and again.
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
        if code not in _MENDS or (code == "NOPERM" and f"'{command}'" not in words):
            # Within a script not every version says which command it was.
            words, code = f"NOPERM it refuses the command '{command}' ({words.strip()})", "NOPERM"
        raise RefusedServerError(_told(words, _MENDS[code]))


def fault_of_kind(info: dict[str, str]) -> str | None:
    """Why this kind of server is none to be used, by its ``INFO``."""
    mode = info.get("redis_mode") or info.get("server_mode")  # Valkey calls it so
    if mode == "sentinel":
        return "it is a Sentinel: REDIS_URL must lead to the master itself, which a Sentinel only names"
    if info.get("cluster_enabled") == "1" or mode == "cluster":
        return f"it is a node of a Redis Cluster: {_CLUSTER}"
    return None
