"""Refusals of an answering Redis server: their texts with a remedy, and a trial of all commands in use."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any, NamedTuple

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

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


class Said(NamedTuple):
    """The text of a refusal with its remedy. ``is_passing`` if the refusal will end by itself."""

    text: str
    is_passing: bool


class RefusedServerError(RedisConnectionError):
    """Refusal of a server: Redis answers but must not be used."""


def said_by(error: BaseException) -> Said | None:
    """Returns the text of a server's error and its remedy; None for every other error, such as an outage."""
    if isinstance(error, RefusedServerError):
        return Said(str(error), is_passing=False)
    if not isinstance(error, RedisError):
        return None
    # redis-py takes the code out of the errors that it knows, and leaves it in the others.
    code = error.status_code or str(error).partition(" ")[0]
    remedy = _REMEDIES.get(code)
    if remedy is None:
        return None
    words = str(error)
    return Said(_told(words if words.startswith(code) else f"{code} {words}", remedy), code in _PASSING)


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
