"""The settings of diptych: name, kind, default and meaning of each, and their values as diptych reads them.

``SETTINGS`` is the one source of names, units and defaults. docs/reference/settings.md lists the same for people, and
``Settings`` has a typed field for each; tests hold the three together. No error of this module quotes a value: it
may be a password that was given to the wrong setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from diptych.config.urls import HIDDEN, check_database_url, check_redis_url, is_telling, mask


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of values: its name for people, and the function that reads a value.

    ``parse`` returns the value in its type, or raises ValueError("must …").
    """

    label: str
    parse: Callable[[Any], Any]


def whole_number(low: int, high: int) -> Kind:
    """Returns the kind of the whole numbers from ``low`` to ``high``, as numbers or as text."""
    label = f"a whole number from {low} to {high}"
    bounded = Annotated[int, msgspec.Meta(ge=low, le=high)]

    def parse(value: object) -> Any:
        try:
            return msgspec.convert(value, bounded, strict=not isinstance(value, str))
        except msgspec.ValidationError:
            raise ValueError(f"must be {label}") from None

    return Kind(label, parse)


def choice(*words: str) -> Kind:
    """Returns the kind of a few ``words``, given in upper case and accepted in any."""
    label = f"one of {', '.join(words)}"

    def parse(value: object) -> str:
        if isinstance(value, str) and value.upper() in words:
            return value.upper()
        raise ValueError(f"must be {label}")

    return Kind(label, parse)


_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


def _truth(value: object) -> bool:
    word = str(value).lower() if isinstance(value, bool | int | str) else ""
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError("must be true or false")


def _name(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
        return value
    raise ValueError("must be 1 to 64 letters (A to Z), digits or any of _ . -")


def _database_address(value: object) -> str:
    return check_database_url(os.fspath(value) if isinstance(value, os.PathLike) else value)


_DAYS = whole_number(1, 36_500)
_COUNT = whole_number(1, 1_000)
_MILLISECONDS = "_MS"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOG_FORMATS = ("TEXT", "JSON")
PREFIX = "DIPTYCH_"
"""What the names of environment variables begin with."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name, the kind of its values, its default, its meaning, and if it holds a secret.

    A setting whose default is None is optional: None, or the word "none", takes its value away.
    """

    name: str
    kind: Kind
    default: Any
    doc: str
    secret: bool = False

    @property
    def field(self) -> str:
        """The name of the setting's field in ``Settings``: ``lease_s`` of LEASE_MS, else the name in lower case."""
        if self.name.endswith(_MILLISECONDS):
            return self.name.removesuffix(_MILLISECONDS).lower() + "_s"
        return self.name.lower()

    @property
    def label(self) -> str:
        """The kind of the setting's values, in words."""
        return f"{self.kind.label}, or none" if self.default is None else self.kind.label

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"{PREFIX}{self.name}"

    def in_field(self, value: Any) -> Any:
        """Returns a parsed value as its field in ``Settings`` holds it: times in seconds, all else unchanged."""
        return value / 1000 if self.name.endswith(_MILLISECONDS) else value

    def parse(self, value: object) -> Any:
        """Returns ``value`` in the setting's type. Raises ValueError("must …") for any other value."""
        if isinstance(value, str):
            value = value.strip()
        if self.default is None and (value is None or str(value).lower() in ("", "none")):
            return None
        return self.kind.parse(value)

    def show(self, value: object) -> str:
        """Returns ``value`` as text for people, every password in it hidden."""
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


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "DATABASE_URL",
        Kind("a path or URL", _database_address),
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
        whole_number(1, 3_600_000),
        5_000,
        "How long to wait, in milliseconds, for a busy SQLite, for a free connection, to connect, "
        "or for a query that SQL answers.",
    ),
    Setting(
        "DATABASE_STATEMENT_TIMEOUT_MS",
        whole_number(1, 3_600_000),
        30_000,
        "How long, in milliseconds, one statement on PostgreSQL may take before it counts as lost. "
        "SQLite has no limit.",
    ),
    Setting(
        "SQLITE_SYNCHRONOUS",
        choice("FULL", "NORMAL", "EXTRA"),
        "FULL",
        "SQLite's `synchronous`. With `FULL` an acknowledged command survives a power cut; "
        "`NORMAL` is faster and may then lose the latest ones; `EXTRA` also syncs the directory.",
    ),
    Setting(
        "CREATE_TABLES",
        Kind("true or false", _truth),
        True,
        "If true, the start creates the tables of `models` that are missing. If false, migrations of your own make "
        "them, and diptych touches no table but its own.",
    ),
    Setting(
        "CAPTURE_HINTS",
        Kind("true or false", _truth),
        True,
        "Whether triggers on PostgreSQL tell keepers of changes by others at once, by `NOTIFY`. If false, a pass "
        "brings these in, within a lease; others can use `PREPARE TRANSACTION` only then. The same for all "
        "processes of an application.",
    ),
    Setting(
        "REDIS_URL",
        Kind("a URL", check_redis_url),
        None,
        "The Redis or Valkey that answers queries: `redis://`, `rediss://` (TLS) or `unix://`; "
        "user, password and database number are part of it. Without it SQL answers.",
        secret=True,
    ),
    Setting(
        "REDIS_CRITICAL",
        Kind("true or false", _truth),
        False,
        "If true, the start fails without Redis, and queries answer 503 while it is away. "
        "If false, SQL answers them.",
    ),
    Setting(
        "REDIS_NAMESPACE",
        Kind("a name", _name),
        "diptych",
        "The first part of every key in Redis. Applications and stages that share a Redis need one each.",
    ),
    Setting(
        "REDIS_QUERY_TIMEOUT_MS",
        whole_number(1, 60_000),
        50,
        "How long Redis may be silent while queries wait, in milliseconds, before SQL answers them.",
    ),
    Setting(
        "REDIS_COMMAND_TIMEOUT_MS",
        whole_number(1, 600_000),
        2_000,
        "How long everything else waits for Redis, in milliseconds: updates and rebuilds of read models.",
    ),
    Setting(
        "REDIS_PROBE_INTERVAL_MS",
        whole_number(10, 60_000),
        250,
        "How often, in milliseconds, a Redis that is away is tried again.",
    ),
    Setting(
        "LEASE_MS",
        whole_number(100, 60_000),
        2_000,
        "How long, in milliseconds, queries may trust Redis without a keeper's renewal. The longest that a command "
        "waits for a process that is cut off, and that SQL answers after one that led was killed. The same for all "
        "processes of an application.",
    ),
    Setting(
        "REBUILD_BATCH_SIZE",
        whole_number(1, 100_000),
        500,
        "Documents that a rebuild reads from SQL and writes to Redis at a time.",
    ),
    Setting(
        "DIRECT_DOCUMENTS",
        whole_number(0, 100_000),
        500,
        "Documents made from several rows that a command makes anew itself at most. More are left to a pass, for "
        "which the command waits; with 0 all are.",
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
        "LOG_LEVEL",
        choice(*LOG_LEVELS),
        "INFO",
        "The least level of log lines that `diptych run` and `configure_logging` write. What libraries say below "
        "`WARNING` is left out: statements of SQLAlchemy may hold anybody's data.",
    ),
    Setting(
        "LOG_FORMAT",
        choice(*LOG_FORMATS),
        "TEXT",
        "The form of log lines: `TEXT` for people, `JSON` for programs, an object on each line.",
    ),
    Setting(
        "MAX_BODY_BYTES",
        whole_number(1, 1 << 40),
        1_048_576,
        "The longest request body that is accepted, in bytes; a longer one is answered with 413.",
    ),
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The values of all settings, typed, for diptych's own code: times are in seconds, ``lease_s`` for LEASE_MS.

    ``repr`` hides passwords. ``ConfigService.settings`` holds the values of an application.
    """

    database_url: str
    database_pool_size: int
    database_timeout_s: float
    database_statement_timeout_s: float
    sqlite_synchronous: str
    create_tables: bool
    capture_hints: bool
    redis_url: str | None
    redis_critical: bool
    redis_namespace: str
    redis_query_timeout_s: float
    redis_command_timeout_s: float
    redis_probe_interval_s: float
    lease_s: float
    rebuild_batch_size: int
    direct_documents: int
    sql_query_concurrency: int
    log_retention_days: int | None
    log_personal_data_days: int | None
    workers: int
    log_level: str
    log_format: str
    max_body_bytes: int

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Returns the settings with these parsed values, by the settings' names."""
        return cls(**{setting.field: setting.in_field(values[setting.name]) for setting in SETTINGS})

    def __repr__(self) -> str:
        shown = (f"{setting.field}={setting.show(getattr(self, setting.field))!r}" for setting in SETTINGS)
        return f"Settings({', '.join(shown)})"


def own_setting(name: str) -> Setting:
    """Returns a setting of the application's own: its value is kept as given, and shown without secrets."""
    return Setting(
        name, Kind("anything", lambda value: value), None, "A setting of the application's own.", secret=True
    )
