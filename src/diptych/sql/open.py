"""Opens a database by its URL."""

from __future__ import annotations

from diptych.config.settings import Settings
from diptych.errors import MissingExtraError
from diptych.sql.address import parse_address
from diptych.sql.database import Database
from diptych.sql.postgres.database import PostgresDatabase
from diptych.sql.sqlite.database import SqliteDatabase


def open_database(address: str, settings: Settings) -> Database:
    """Returns the database of a URL or, for SQLite, of a bare path. Nothing is connected yet.

    Raises ``ConfigurationError`` for a database unknown to diptych, ``MissingExtraError`` if the driver is not
    installed.
    """
    url = parse_address(address)
    try:
        if url.get_backend_name() == "sqlite":
            return SqliteDatabase(url, settings)
        return PostgresDatabase(url, settings)
    except ImportError as error:
        extra = "sqlite" if url.get_backend_name() == "sqlite" else "postgresql"
        raise MissingExtraError("DATABASE_URL", extra, error.name or str(error)) from error
