"""Opening of a database by its URL."""

from __future__ import annotations

import os.path
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine

from diptych.config.settings import Settings
from diptych.config.urls import SQLITE, check_database_url
from diptych.errors import ConfigurationError, MissingExtraError
from diptych.sql.database import Database
from diptych.sql.postgres.database import PostgresDatabase
from diptych.sql.postgres.engine import arguments_of, check_engine
from diptych.sql.sqlite.database import SqliteDatabase


def open_database(address: str, settings: Settings) -> Database:
    """Returns the database of a URL or, for SQLite, of a bare path. Nothing is connected yet.

    Raises ``ConfigurationError`` for a database unknown to diptych, ``MissingExtraError`` if the driver is not
    installed.
    """
    url = _parse(address)
    try:
        if url.get_backend_name() == "sqlite":
            return SqliteDatabase(url, settings)
        return PostgresDatabase(url, settings)
    except ImportError as error:
        extra = url.get_backend_name()
        raise MissingExtraError("DATABASE_URL", extra, error.name or str(error)) from error


async def open_through(engine: AsyncEngine, settings: Settings) -> Database:
    """Returns the database of the application's own engine, with units of work over the engine.

    Raises ``ConfigurationError`` if diptych can't work through the engine.
    """
    arguments = await arguments_of(check_engine(engine))
    return PostgresDatabase(engine.url, settings, shared=engine, arguments=arguments)


def _parse(database: str) -> URL:
    """Returns SQLAlchemy's URL for a URL or, for SQLite, a bare path. Raises ``ConfigurationError``."""
    try:
        check_database_url(database)
    except ValueError as error:
        raise ConfigurationError("DATABASE_URL", str(error)) from None
    if "://" not in database:
        return _sqlite(URL.create("sqlite", database=database))
    try:
        url = make_url(database)
        return _sqlite(url) if url.drivername in SQLITE else _postgresql(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError("DATABASE_URL", "is not a database URL") from None


def _sqlite(url: URL) -> URL:
    path = Path(url.database or "").absolute()
    if not path.parent.is_dir():
        raise ConfigurationError("DATABASE_URL", f"the folder {path.parent} does not exist: create it first")
    if path.is_symlink() and not path.exists():
        meant = Path(os.path.realpath(path))
        if meant.is_symlink() or not meant.parent.is_dir():
            raise ConfigurationError(
                "DATABASE_URL",
                f"{path} is a symbolic link to {path.readlink()}, where no file can be: create {meant.parent}, or "
                "correct the link",
            )
    return url.set(drivername="sqlite+aiosqlite")


def _postgresql(url: URL) -> URL:
    if "sslmode" in url.query:  # libpq's name for what asyncpg calls ssl
        url = url.update_query_dict({"ssl": url.query["sslmode"]}).difference_update_query(["sslmode"])
    url = url.set(drivername="postgresql+asyncpg")
    url.get_dialect()().create_connect_args(url)  # refuses hosts and ports that do not go together
    return url
