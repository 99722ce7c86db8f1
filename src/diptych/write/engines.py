"""The two databases diptych knows, and what differs between them: URLs, transactions, and their errors."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from diptych.config import ConfigService
from diptych.errors import ConfigurationError, MissingExtraError


class Engines(Protocol):
    """An open database: one engine for what only reads, one for units of work."""

    name: str
    reader: AsyncEngine
    writer: AsyncEngine

    def unique_columns_of(self, error: DBAPIError) -> list[str] | None:
        """The columns (or the constraint's name) of a violated unique constraint; None for another error."""

    def is_busy(self, error: DBAPIError) -> bool:
        """Whether other writers held the database for too long."""

    def is_conflict(self, error: DBAPIError) -> bool:
        """Whether the transaction lost against a concurrent one and would succeed if it were run again."""

    def is_lost(self, error: DBAPIError) -> bool:
        """Whether the database can't be reached, or the connection to it broke."""


def open_engines(database: str, config: ConfigService) -> Engines:
    """Engines for a URL or, for SQLite, a bare path. Nothing is connected yet.

    Raises ``ConfigurationError`` for a database that diptych does not know, ``MissingExtraError`` if the driver
    is not installed.
    """
    url = _parse(database)
    try:
        if url.get_backend_name() == "sqlite":
            return SqliteEngines(url, config)
        return PostgresEngines(url, config)
    except ImportError as error:
        extra = "sqlite" if url.get_backend_name() == "sqlite" else "postgresql"
        raise MissingExtraError("DATABASE_URL", extra, error.name or str(error)) from error


async def close_engines(engines: Engines) -> None:
    """Closes every connection; safe to call twice."""
    await engines.reader.dispose()
    await engines.writer.dispose()


@contextlib.asynccontextmanager
async def reading(engines: Engines) -> AsyncIterator[AsyncConnection]:
    """A connection for statements that only read, each seeing what is committed when it starts."""
    async with engines.reader.connect() as connection:
        yield connection


class SqliteEngines:
    """An SQLite file in WAL mode. Readers don't wait for the writer; writers queue, here and in the file."""

    name = "sqlite"

    def __init__(self, url: URL, config: ConfigService) -> None:
        import aiosqlite  # noqa: F401

        self._synchronous = config.get("SQLITE_SYNCHRONOUS")
        timeout_s = config.get("DATABASE_TIMEOUT_MS") / 1000
        options = {"connect_args": {"timeout": timeout_s}, "pool_timeout": timeout_s, "max_overflow": 0}
        # One writing connection a process: a second could only wait in the file for the first.
        self.writer = create_async_engine(url, pool_size=1, **options)
        self.reader = create_async_engine(url, pool_size=config.get("DATABASE_POOL_SIZE"), **options)
        sa.event.listen(self.writer.sync_engine, "connect", self._prepare_writer)
        sa.event.listen(self.reader.sync_engine, "connect", self._prepare_reader)
        # A write that began by reading could not go on if another wrote meanwhile (SQLITE_BUSY at once, no
        # waiting): so every unit of work takes the write lock at its beginning.
        sa.event.listen(self.writer.sync_engine, "begin", _begin_immediate)

    def _prepare_writer(self, connection: Any, _record: object) -> None:
        connection.isolation_level = None  # sqlite3 would begin transactions of its own, too late
        _pragmas(connection, "journal_mode=WAL", "foreign_keys=ON", f"synchronous={self._synchronous}")

    def _prepare_reader(self, connection: Any, _record: object) -> None:
        connection.isolation_level = None
        _pragmas(connection, "foreign_keys=ON", "query_only=ON")

    def unique_columns_of(self, error: DBAPIError) -> list[str] | None:
        found = re.match(r"UNIQUE constraint failed: (.+)", str(error.orig))
        return [name.rpartition(".")[2] for name in found[1].split(", ")] if found else None

    def is_busy(self, error: DBAPIError) -> bool:
        return _sqlite_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

    def is_conflict(self, error: DBAPIError) -> bool:
        return False  # writers are one after the other

    def is_lost(self, error: DBAPIError) -> bool:
        lost = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY)
        return error.connection_invalidated or _sqlite_code(error) in lost


class PostgresEngines:
    """PostgreSQL through asyncpg. Units of work run at REPEATABLE READ."""

    name = "postgresql"

    def __init__(self, url: URL, config: ConfigService) -> None:
        import asyncpg  # noqa: F401

        timeout_s = config.get("DATABASE_TIMEOUT_MS") / 1000
        options = {
            "pool_size": config.get("DATABASE_POOL_SIZE"),
            "max_overflow": 0,
            "pool_timeout": timeout_s,
            # The connection used last is the next one used, so that idle ones can be closed by the server.
            "pool_use_lifo": True,
        }
        # Under READ COMMITTED a row read before another command's change would be written back over it.
        self.writer = create_async_engine(
            url,
            isolation_level="REPEATABLE READ",
            connect_args={"timeout": timeout_s, "server_settings": {"synchronous_commit": "on"}},
            **options,
        )
        self.reader = create_async_engine(
            url,
            isolation_level="AUTOCOMMIT",
            connect_args={"timeout": timeout_s, "server_settings": {"default_transaction_read_only": "on"}},
            **options,
        )

    def unique_columns_of(self, error: DBAPIError) -> list[str] | None:
        if _sqlstate(error) != "23505":
            return None
        cause = getattr(error.orig, "__cause__", None)
        found = re.match(r"Key \((.+?)\)=", getattr(cause, "detail", None) or "")
        return [name.strip('" ') for name in found[1].split(",")] if found else []

    def is_busy(self, error: DBAPIError) -> bool:
        return _sqlstate(error) in ("55P03", "53300", "57014")

    def is_conflict(self, error: DBAPIError) -> bool:
        return _sqlstate(error) in ("40001", "40P01")

    def is_lost(self, error: DBAPIError) -> bool:
        state = _sqlstate(error) or ""
        return error.connection_invalidated or state[:2] in ("08", "57", "53", "58")


def _parse(database: str) -> URL:
    if "://" not in database:
        database = f"sqlite:///{database}"
    try:
        url = make_url(database)
    except ArgumentError:
        raise ConfigurationError("DATABASE_URL", "is not a database URL") from None
    match url.drivername:
        case "sqlite" | "sqlite+aiosqlite":
            return _sqlite_url(url)
        case "postgresql" | "postgres" | "postgresql+asyncpg":
            return url.set(drivername="postgresql+asyncpg")
    raise ConfigurationError(
        "DATABASE_URL", f"{url.drivername}:// is not supported: use sqlite:///path or postgresql://…"
    )


def _sqlite_url(url: URL) -> URL:
    if not url.database or url.database == ":memory:" or "mode=memory" in url.render_as_string():
        raise ConfigurationError(
            "DATABASE_URL",
            "an in-memory SQLite can't be shared by connections: name a file, which may be temporary",
        )
    folder = Path(url.database).absolute().parent
    if not folder.is_dir():
        raise ConfigurationError("DATABASE_URL", f"the folder {folder} does not exist: create it first")
    return url.set(drivername="sqlite+aiosqlite")


def _pragmas(connection: Any, *pragmas: str) -> None:
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _sqlite_code(error: DBAPIError) -> int | None:
    """The primary result code; the extended ones have it in their low byte."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is None:
        code = getattr(getattr(error.orig, "__cause__", None), "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


LOST_ERRORS: Sequence[type[BaseException]] = (OSError, asyncio.TimeoutError)
"""What drivers raise, beside ``DBAPIError``, when the database can't be reached."""
