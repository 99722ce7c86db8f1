"""Opening of a database by its URL, and its tables at the start: upgraded, or created if missing."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine

from diptych.config.settings import Settings
from diptych.config.urls import SQLITE, check_database_url
from diptych.errors import ConfigurationError, MissingExtraError, SchemaVersionError
from diptych.sql.database import Database
from diptych.sql.postgres import PostgresDatabase
from diptych.sql.shared_engine import arguments_of, check_engine
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
    """Returns the database of the application's own engine, which units of work use.

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
    folder = Path(url.database or "").absolute().parent
    if not folder.is_dir():
        raise ConfigurationError("DATABASE_URL", f"the folder {folder} does not exist: create it first")
    return url.set(drivername="sqlite+aiosqlite")


def _postgresql(url: URL) -> URL:
    if "sslmode" in url.query:  # libpq's name for what asyncpg calls ssl
        url = url.update_query_dict({"ssl": url.query["sslmode"]}).difference_update_query(["sslmode"])
    url = url.set(drivername="postgresql+asyncpg")
    url.get_dialect()().create_connect_args(url)  # refuses hosts and ports that do not go together
    return url


_MIGRATIONS = Path(__file__).parent / "migrations"
_ALEMBIC = threading.Lock()


async def prepare_schema(database: Database, metadata: sa.MetaData | None) -> None:
    """Upgrades diptych's tables, then creates the missing tables of ``metadata``, in a single transaction.

    Raises ``SchemaVersionError``, and changes nothing, if a newer diptych has upgraded them already.
    """
    async with _alembic_alone(), database.begin() as connection:
        await database.lock_schema(connection)  # several processes may start at once
        await connection.run_sync(_upgrade)
        if metadata is not None:
            await connection.run_sync(metadata.create_all)


@contextlib.asynccontextmanager
async def _alembic_alone() -> AsyncIterator[None]:
    """Keeps other upgrades of this process out: Alembic's globals would mix up the databases of two upgrades."""
    # No lock of asyncio: the other upgrade may run in another thread, with an event loop of its own.
    while not _ALEMBIC.acquire(blocking=False):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        _ALEMBIC.release()


def _upgrade(connection: sa.Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    _refuse_newer(connection, config)
    command.upgrade(config, "head")


def _refuse_newer(connection: sa.Connection, config: Config) -> None:
    if not sa.inspect(connection).has_table("diptych_version"):
        return
    table = sa.table("diptych_version", sa.column("version_num"))
    script = ScriptDirectory.from_config(config)
    for found in connection.scalars(sa.select(table.c.version_num)):
        try:
            script.get_revision(found)
        except CommandError:
            raise SchemaVersionError(found) from None
