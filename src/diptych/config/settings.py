"""The settings of diptych: name, kind, default and meaning of each, and their values as diptych reads them.

``SETTINGS`` is the one source of names, units and defaults. docs/reference/settings.md lists the same for people, and
``Settings`` has a typed field for each; tests hold the three together. No error of this module quotes a value: it
may be a password that was given to the wrong setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from diptych.config.kinds import DATABASE, HOSTS, NAME, NETWORKS, TRUTH, Kind, choice, whole_number
from diptych.config.setting import Setting
from diptych.config.urls import check_redis_url

_DAYS = whole_number(1, 36_500)
_COUNT = whole_number(1, 1_000)
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOG_FORMATS = ("TEXT", "JSON")
SETTINGS: tuple[Setting, ...] = (
    Setting(
        "DATABASE_URL",
        DATABASE,
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
        TRUTH,
        True,
        "If true, the start creates the tables of `models` that are missing. If false, migrations of your own make "
        "them, and diptych touches no table but its own.",
    ),
    Setting(
        "CAPTURE_HINTS",
        TRUTH,
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
        TRUTH,
        False,
        "If true, the start fails without Redis, and queries answer 503 while it is away. "
        "If false, SQL answers them.",
    ),
    Setting(
        "REDIS_NAMESPACE",
        NAME,
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
        "The longest request body that an endpoint accepts, in bytes; a longer one is answered with 413. Routes of a "
        "framework's own have the framework's limit.",
    ),
    Setting(
        "BODY_TIMEOUT_MS",
        whole_number(100, 3_600_000),
        10_000,
        "How long, in milliseconds, `diptych run` waits for a request's body, before it answers 408. Bytes that have "
        "arrived give more time.",
    ),
    Setting(
        "BODY_BYTES_PER_S",
        whole_number(1, 1 << 40),
        4_000,
        "Every so many bytes of a body give it a second more than `BODY_TIMEOUT_MS`: the rate at which a slow client "
        "may send.",
    ),
    Setting(
        "HEAD_TIMEOUT_MS",
        whole_number(100, 3_600_000),
        10_000,
        "How long, in milliseconds, a connection of `diptych run` may be without the whole head of its next request, "
        "before it is closed: silent, idle and slow ones.",
    ),
    Setting(
        "MAX_CONNECTIONS",
        whole_number(16, 1_000_000),
        4_096,
        "Connections that one process of `diptych run` keeps at most. Near the limit those are ended whose clients "
        "have been silent for longest; requests under way are not.",
    ),
    Setting(
        "HTTP2",
        TRUTH,
        False,
        "If true, `diptych run` speaks HTTP/2 without TLS too, for a proxy that does. It then does not end silent "
        "connections in time.",
    ),
    Setting(
        "ALLOWED_HOSTS",
        HOSTS,
        None,
        "The names under which `diptych run` may be asked, with commas: `shop.example, *.shop.example`; `*` is any. "
        "None: any, but only those of loopback for a server that listens there.",
    ),
    Setting(
        "FORWARDED_ALLOW_IPS",
        NETWORKS,
        None,
        "The proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` count, with commas: `10.0.0.7, 10.1.0.0/16`; "
        "`*`: whoever asks. None: nobody's.",
    ),
    Setting(
        "HEALTH_DETAILS",
        TRUTH,
        False,
        "If true, `Diptych.health` has the words of Redis and its driver, with the address. They are in the log "
        "anyway.",
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
    body_timeout_s: float
    body_bytes_per_s: int
    head_timeout_s: float
    max_connections: int
    http2: bool
    allowed_hosts: tuple[str, ...] | None
    forwarded_allow_ips: tuple[str, ...] | None
    health_details: bool

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Returns the settings with these parsed values, by the settings' names."""
        return cls(**{setting.field: setting.in_field(values[setting.name]) for setting in SETTINGS})

    def __repr__(self) -> str:
        shown = (f"{setting.field}={setting.show(getattr(self, setting.field))!r}" for setting in SETTINGS)
        return f"Settings({', '.join(shown)})"
