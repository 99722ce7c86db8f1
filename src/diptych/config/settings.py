"""Every setting of diptych: its name, the values it takes, its default and its meaning.

docs/reference/settings.md lists the same for people; a test holds the two together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import msgspec

from diptych.config.urls import HIDDEN, check_database_url, check_redis_url, is_telling, mask


@dataclass(frozen=True, slots=True)
class Kind:
    """The values that a setting takes. ``parse`` returns the typed value or raises ValueError("must …").

    No message quotes the value: it may be a password that went into the wrong setting.
    """

    label: str
    parse: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. Without a default it is optional: None, or the word "none", says that it has no value."""

    name: str
    kind: Kind
    default: Any
    doc: str
    secret: bool = False

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"DIPTYCH_{self.name}"

    def parse(self, value: object) -> Any:
        """Returns ``value`` in the setting's type; ValueError says what it must be."""
        if isinstance(value, str):
            value = value.strip()
        if self.default is None and (value is None or str(value).lower() in ("", "none")):
            return None
        return self.kind.parse(value)

    def show(self, value: object) -> str:
        """Writes ``value`` for people, without the passwords it may hold."""
        if value is None:
            return "none"
        if isinstance(value, bool):
            return str(value).lower()
        return _veil(self.name, value) if self.secret else str(value)


def _veil(name: str, value: object) -> str:
    if is_telling(name):
        return HIDDEN
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_veil(str(key), item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_veil(name, item) for item in value) + "]"
    return mask(str(value))


def _convert(kind: Any, label: str, value: object) -> Any:
    try:
        return msgspec.convert(value, kind, strict=not isinstance(value, str))
    except msgspec.ValidationError:
        raise ValueError(f"must be {label}") from None


def _whole(low: int, high: int) -> Kind:
    label = f"a whole number from {low} to {high}"
    return Kind(label, partial(_convert, Annotated[int, msgspec.Meta(ge=low, le=high)], label))


def _choice(*words: str) -> Kind:
    label = f"one of {', '.join(words)}"

    def parse(value: object) -> str:
        if isinstance(value, str) and value.upper() in words:
            return value.upper()
        raise ValueError(f"must be {label}")

    return Kind(label, parse)


_TRUTH = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def _truth(value: object) -> bool:
    if isinstance(value, bool | int | str) and (found := _TRUTH.get(str(value).lower())) is not None:
        return found
    raise ValueError("must be true or false")


def _namespace(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
        return value
    raise ValueError("must be 1 to 64 letters (A to Z), digits or any of _ . -")


def _database(value: object) -> str:
    return check_database_url(os.fspath(value) if isinstance(value, os.PathLike) else value)


_DATABASE = Kind("a path or URL", _database)
_REDIS = Kind("a URL", check_redis_url)
_BOOL = Kind("true or false", _truth)
_NAME = Kind("a name", _namespace)
_DAYS = _whole(1, 36_500)
_COUNT = _whole(1, 1_000)
_ANY = Kind("anything", lambda value: value)

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "DATABASE_URL",
        _DATABASE,
        "sqlite:///diptych.db",
        "The SQL database: the path of an SQLite file, `sqlite:///path` or `postgresql://user:password@host/name`.",
        secret=True,
    ),
    Setting(
        "DATABASE_POOL_SIZE",
        _COUNT,
        10,
        "Connections that one process keeps at most for reading, and on PostgreSQL as many again for commands; "
        "on SQLite one connection writes. The keepers have a few of their own beside them.",
    ),
    Setting(
        "DATABASE_TIMEOUT_MS",
        _whole(1, 3_600_000),
        5_000,
        "How long to wait, in milliseconds, for a busy SQLite, for a free connection, to connect, "
        "or for a query that SQL answers.",
    ),
    Setting(
        "DATABASE_STATEMENT_TIMEOUT_MS",
        _whole(1, 3_600_000),
        30_000,
        "How long, in milliseconds, one statement on PostgreSQL may take before it counts as lost. "
        "SQLite has no limit.",
    ),
    Setting(
        "SQLITE_SYNCHRONOUS",
        _choice("FULL", "NORMAL", "EXTRA"),
        "FULL",
        "SQLite's `synchronous`. With `FULL` an acknowledged command survives a power cut; "
        "`NORMAL` is faster and may then lose the latest ones; `EXTRA` also syncs the directory.",
    ),
    Setting(
        "REDIS_URL",
        _REDIS,
        None,
        "The Redis or Valkey that answers queries: `redis://`, `rediss://` (TLS) or `unix://`; "
        "user, password and database number are part of it. Without it SQL answers.",
        secret=True,
    ),
    Setting(
        "REDIS_CRITICAL",
        _BOOL,
        False,
        "If true, the start fails without Redis, and queries answer 503 while it is away. "
        "If false, SQL answers them.",
    ),
    Setting(
        "REDIS_NAMESPACE",
        _NAME,
        "diptych",
        "The first part of every key in Redis. Applications and stages that share a Redis need one each.",
    ),
    Setting(
        "REDIS_QUERY_TIMEOUT_MS",
        _whole(1, 60_000),
        50,
        "How long Redis may be silent while queries wait, in milliseconds, before SQL answers them.",
    ),
    Setting(
        "REDIS_COMMAND_TIMEOUT_MS",
        _whole(1, 600_000),
        2_000,
        "How long everything else waits for Redis, in milliseconds: updates and rebuilds of read models.",
    ),
    Setting(
        "REDIS_PROBE_INTERVAL_MS",
        _whole(10, 60_000),
        250,
        "How often, in milliseconds, a Redis that is away is tried again.",
    ),
    Setting(
        "LEASE_MS",
        _whole(100, 60_000),
        2_000,
        "How long, in milliseconds, queries may trust Redis without a keeper's renewal. The longest that a command "
        "waits for a process that is cut off, and that SQL answers after one that led was killed. The same for all "
        "processes of an application.",
    ),
    Setting(
        "REBUILD_BATCH_SIZE",
        _whole(1, 100_000),
        500,
        "Documents that a rebuild reads from SQL and writes to Redis at a time.",
    ),
    Setting(
        "SQL_QUERY_CONCURRENCY", _COUNT, 8, "Queries that one process answers from SQL at the same time."
    ),
    Setting(
        "LOG_RETENTION_DAYS", _DAYS, None, "Days after which rows of `diptych_log` are deleted; none: never."
    ),
    Setting(
        "LOG_PERSONAL_DATA_DAYS",
        _DAYS,
        None,
        "Days after which the images, keys and actors in `diptych_log` are blanked; none: never. "
        "Correlation ids, which clients choose, stay.",
    ),
    Setting(
        "WORKERS",
        _COUNT,
        1,
        "Processes that serve the application. `diptych run --workers` sets it for them.",
    ),
    Setting(
        "MAX_BODY_BYTES",
        _whole(1, 1 << 40),
        1_048_576,
        "The longest request body that is accepted, in bytes; a longer one is answered with 413.",
    ),
)


def own_setting(name: str) -> Setting:
    """Describes a setting of the application's own: kept as it was given, and shown with care."""
    return Setting(name, _ANY, None, "A setting of the application's own.", secret=True)
