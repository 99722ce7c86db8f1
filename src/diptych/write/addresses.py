"""``DATABASE_URL`` as SQLAlchemy wants it: with its driver, and with parameters that the driver knows."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from diptych.errors import ConfigurationError

POSTGRESQL_PARAMETERS = (
    "application_name",
    "host",
    "krbsrvname",
    "passfile",
    "port",
    "prepared_statement_cache_size",
    "ssl",
    "sslmode",
    "target_session_attrs",
)
"""What may stand behind the ``?`` of a PostgreSQL URL."""


def parse_address(database: str) -> URL:
    """The URL of a URL or, for SQLite, a bare path. Raises ``ConfigurationError`` for one that diptych can't use."""
    if "://" not in database:
        return _sqlite(URL.create("sqlite", database=database))
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):
        raise ConfigurationError("DATABASE_URL", "is not a database URL") from None
    match url.drivername:
        case "sqlite" | "sqlite+aiosqlite":
            return _sqlite(url)
        case "postgresql" | "postgres" | "postgresql+asyncpg":
            return _postgresql(url)
    raise ConfigurationError(
        "DATABASE_URL", f"{url.drivername}:// is not supported: use sqlite:///path or postgresql://…"
    )


def _sqlite(url: URL) -> URL:
    if not url.database or ":memory:" in url.database or "memory" in url.query.get("mode", ""):
        raise ConfigurationError(
            "DATABASE_URL",
            "an in-memory SQLite can't be shared by connections: name a file, which may be temporary",
        )
    folder = Path(url.database).absolute().parent
    if not folder.is_dir():
        raise ConfigurationError("DATABASE_URL", f"the folder {folder} does not exist: create it first")
    return url.set(drivername="sqlite+aiosqlite")


def _postgresql(url: URL) -> URL:
    unknown = sorted(set(url.query) - set(POSTGRESQL_PARAMETERS))
    if unknown:
        raise ConfigurationError(
            "DATABASE_URL",
            f"has the parameter {unknown[0]}, which is not supported; there are: {', '.join(POSTGRESQL_PARAMETERS)}",
        )
    if "sslmode" in url.query:  # libpq's name for what asyncpg calls ssl
        url = url.update_query_dict({"ssl": url.query["sslmode"]}).difference_update_query(["sslmode"])
    return url.set(drivername="postgresql+asyncpg")
