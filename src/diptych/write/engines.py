"""The two databases diptych knows, and what differs between them: URLs, transactions, and their errors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_only, greenlet_spawn

from diptych.config import ConfigService
from diptych.errors import MissingExtraError
from diptych.write.addresses import parse_address
from diptych.write.direct import FrequentRead
from diptych.write.held import HeldConnection
from diptych.write.sqlite_connection import SqliteConnection
from diptych.write.sqlite_transactions import SqliteTransactions, Undone
from diptych.write.sqlite_types import give_back_what_was_stored
from diptych.write.transactions import PostgresTransactions, Transactions
from diptych.write.turns import Turns

_POLL_S = 0.02
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class Engines(Protocol):
    """An open database: an engine for what only reads, one for what writes, one for the hinge.

    Units of work run in ``transactions``, which are over ``writer``.

    The hinge's, ``keeper``, has connections of its own, so that no load holds it up. On SQLite it only reads; what it
    writes goes, like every write, through ``writer``, and ``turns`` has its process's writers take turns. Where the
    database lets many write at once there are no ``turns``. ``held`` reads in the event loop, where the database is
    in this process; where it is not, ``frequent`` reads without a detour.
    """

    name: str
    reader: AsyncEngine
    writer: AsyncEngine
    keeper: AsyncEngine
    turns: Turns | None
    transactions: Transactions
    held: HeldConnection | None
    frequent: FrequentRead | None

    async def identity(self, connection: AsyncConnection) -> str:
        """Which database this is, and which of its histories; as much of it as this user may know."""

    def unique_columns_of(self, error: DBAPIError) -> list[str] | None:
        """The columns (or the constraint's name) of a violated unique constraint; None for another error."""

    def is_busy(self, error: DBAPIError) -> bool:
        """Whether other writers held the database for too long."""

    def is_conflict(self, error: DBAPIError) -> bool:
        """Whether the transaction lost against a concurrent one and would succeed if it were run again."""

    def is_misfit(self, error: DBAPIError) -> bool:
        """Whether a value does not fit the type of its column."""

    def is_refused(self, error: DBAPIError) -> bool:
        """Whether the database does not let this user in, or there is no database of this name."""

    def is_lost(self, error: DBAPIError) -> bool:
        """Whether the database can't be reached, or the connection to it broke."""


def open_engines(database: str, config: ConfigService) -> Engines:
    """Engines for a URL or, for SQLite, a bare path. Nothing is connected yet.

    Raises ``ConfigurationError`` for a database that diptych does not know, ``MissingExtraError`` if the driver
    is not installed.
    """
    url = parse_address(database)
    try:
        if url.get_backend_name() == "sqlite":
            return SqliteEngines(url, config)
        return PostgresEngines(url, config)
    except ImportError as error:
        extra = "sqlite" if url.get_backend_name() == "sqlite" else "postgresql"
        raise MissingExtraError("DATABASE_URL", extra, error.name or str(error)) from error


async def close_engines(engines: Engines) -> None:
    """Closes every connection; safe to call twice."""
    if engines.held is not None:
        engines.held.close()
    if engines.frequent is not None:
        await engines.frequent.close()
    await engines.transactions.settle()
    await engines.reader.dispose()
    await engines.writer.dispose()
    await engines.keeper.dispose()


@contextlib.asynccontextmanager
async def reading(engines: Engines) -> AsyncIterator[AsyncConnection]:
    """A connection for statements that only read, each seeing what is committed when it starts."""
    async with engines.reader.connect() as connection:
        yield connection


async def fetched(
    engines: Engines, select: sa.Select[Any], values: Mapping[str, Any] | None = None
) -> Sequence[sa.Row[Any]]:
    """The rows of a statement on such a connection.

    Connecting, executing and closing one after the other in one greenlet, not in one each, saves a third of the time.
    """

    def fetch() -> Sequence[sa.Row[Any]]:
        with engines.reader.sync_engine.connect() as connection:
            return connection.execute(select, values).all()

    rows: Sequence[sa.Row[Any]] = await greenlet_spawn(fetch)
    return rows


class SqliteEngines:
    """An SQLite file in WAL mode. Readers don't wait for the writer; writers queue, here and in the file."""

    name = "sqlite"

    def __init__(self, url: URL, config: ConfigService) -> None:
        import aiosqlite  # noqa: F401

        self._synchronous = config.get("SQLITE_SYNCHRONOUS")
        timeout_s = self._timeout_s = config.get("DATABASE_TIMEOUT_MS") / 1000
        options = {"connect_args": {"timeout": timeout_s}, "pool_timeout": timeout_s, "max_overflow": 0}
        # One writing connection a process: a second could only wait in the file for the first.
        limits = {"pool_timeout": timeout_s, "max_overflow": 0}
        self.writer = create_async_engine(url, pool_size=1, creator=self._connect_writer, **limits)
        # Reading has no transactions, and nothing to roll back when a connection is given back.
        self.reader = create_async_engine(
            url, pool_size=config.get("DATABASE_POOL_SIZE"), pool_reset_on_return=None, **options
        )
        self.keeper = create_async_engine(url, pool_size=2, **options)
        self.frequent: FrequentRead | None = None
        self.turns: Turns | None = (turns := Turns(timeout_s))
        self.transactions: Transactions = SqliteTransactions(self.writer, turns, timeout_s)
        for engine in (self.writer, self.reader, self.keeper):
            give_back_what_was_stored(engine.dialect)
        (file,), _ = self.reader.dialect.create_connect_args(url)
        self.held: HeldConnection | None = HeldConnection(file, self.reader.dialect)
        sa.event.listen(self.writer.sync_engine, "connect", self._prepare_writer)
        sa.event.listen(self.reader.sync_engine, "connect", self._prepare_reader)
        sa.event.listen(self.keeper.sync_engine, "connect", self._prepare_reader)
        # A write that began by reading could not go on if another wrote meanwhile (SQLITE_BUSY at once, no
        # waiting): so every unit of work takes the write lock at its beginning.
        sa.event.listen(self.writer.sync_engine, "begin", self._begin_immediate)
        sa.event.listen(self.writer.sync_engine, "invalidate", _release_lock)

    def _connect_writer(self) -> SqliteConnection:
        (file,), options = self.writer.dialect.create_connect_args(self.writer.url)
        # Without an isolation level: sqlite3 would begin transactions of its own, too late.
        options.update(timeout=self._timeout_s, isolation_level=None, check_same_thread=False)
        return SqliteConnection(partial(sqlite3.connect, file, **options))

    def _prepare_writer(self, connection: Any, _record: object) -> None:
        _switch_to_wal(connection, self._timeout_s)
        _pragmas(connection, "foreign_keys=ON", f"synchronous={self._synchronous}")

    def _begin_immediate(self, connection: sa.Connection) -> None:
        """Waits for other processes' writers in the event loop, never in SQLite.

        ★ SQLite keeps the connection to itself while it waits in a thread. A cursor of it that is dropped in the loop
        meanwhile would stop the loop; and with it, in tests, the very writer that is waited for.
        """
        sqlite: SqliteConnection = connection.connection.dbapi_connection  # type: ignore[assignment]
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                with sqlite.in_the_loop(), sqlite.without_waiting():
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                return
            except DBAPIError as error:
                if _sqlite_code(error) not in _BUSY or time.monotonic() >= deadline:
                    raise
            # Short, and never in step: another process that writes without a pause leaves only moments in between.
            await_only(asyncio.sleep(random.uniform(0.001, 0.004)))  # noqa: S311

    def _prepare_reader(self, connection: Any, _record: object) -> None:
        connection.isolation_level = None
        _pragmas(connection, "foreign_keys=ON", "query_only=ON")

    async def identity(self, connection: AsyncConnection) -> str:
        # A file that was put back from a copy is another one, unless the copy was written into the old one.
        main = (await connection.exec_driver_sql("PRAGMA database_list")).mappings().first()
        path = main and main["file"]
        return f"file {(await asyncio.to_thread(os.stat, path)).st_ino}" if path else "memory"

    def unique_columns_of(self, error: DBAPIError) -> list[str] | None:
        found = re.match(r"UNIQUE constraint failed: (.+)", str(error.orig))
        return [name.rpartition(".")[2] for name in found[1].split(", ")] if found else None

    def is_busy(self, error: DBAPIError) -> bool:
        return _sqlite_code(error) in _BUSY

    def is_conflict(self, error: DBAPIError) -> bool:
        return isinstance(error.orig, Undone)  # writers are one after the other

    def is_misfit(self, error: DBAPIError) -> bool:
        return _sqlite_code(error) in (sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG)

    def is_refused(self, error: DBAPIError) -> bool:
        return _sqlite_code(error) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)

    def is_lost(self, error: DBAPIError) -> bool:
        lost = (
            *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL),
            *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CORRUPT),
        )
        return error.connection_invalidated or _sqlite_code(error) in lost


_IDENTITY: tuple[sa.Executable, ...] = (
    sa.select(sa.column("system_identifier")).select_from(sa.func.pg_control_system()),
    # The timeline, of the present end of the log; the control file tells a new one only at the next checkpoint.
    sa.select(sa.func.substr(sa.func.pg_walfile_name(sa.func.pg_current_wal_lsn()), 1, 8)),
    sa.text("SELECT oid FROM pg_database WHERE datname = current_database()"),
)

_KEEPER_SETTINGS = {
    # A promise that the server forgets in a crash would have commands acknowledged while Redis is still trusted.
    "synchronous_commit": "on",
    # An UPDATE that waited for a row's lock judges the row anew; above this level it would fail.
    "default_transaction_isolation": "read committed",
    # A plan made for any cursor takes the log's tail for a third of the log.
    "plan_cache_mode": "force_custom_plan",
}


class PostgresEngines:
    """PostgreSQL through asyncpg. Units of work run at REPEATABLE READ."""

    name = "postgresql"

    def __init__(self, url: URL, config: ConfigService) -> None:
        import asyncpg  # noqa: F401

        name = url.query.get("application_name")
        named = {} if name is None else {"application_name": name}
        url = url.difference_update_query(["application_name"])
        timeout_s = config.get("DATABASE_TIMEOUT_MS") / 1000
        limits = {"timeout": timeout_s, "command_timeout": config.get("DATABASE_STATEMENT_TIMEOUT_MS") / 1000}
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
            connect_args={**limits, "server_settings": named | {"synchronous_commit": "on"}},
            **options,
        )
        self.reader = create_async_engine(
            url,
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,  # as on SQLite
            connect_args={**limits, "server_settings": named | {"default_transaction_read_only": "on"}},
            **options,
        )
        self.keeper = create_async_engine(
            url,
            isolation_level="AUTOCOMMIT",
            connect_args={**limits, "server_settings": named | _KEEPER_SETTINGS},
            **options | {"pool_size": 5},  # three for statements, one to listen, one for ``frequent``
        )
        self.frequent: FrequentRead | None = FrequentRead(self.keeper)
        self.turns: Turns | None = None
        self.transactions: Transactions = PostgresTransactions(self.writer)
        self.held: HeldConnection | None = None

        for engine in (self.writer, self.reader, self.keeper):
            sa.event.listen(engine.sync_engine, "checkout", _refuse_closed)

    async def identity(self, connection: AsyncConnection) -> str:
        return ":".join([await self._ask_for(connection, what) for what in _IDENTITY])

    async def _ask_for(self, connection: AsyncConnection, what: sa.Executable) -> str:
        try:
            return str((await connection.execute(what)).scalar_one())
        except DBAPIError as error:
            if self.is_lost(error) or self.is_busy(error):
                raise
            return ""  # not for this user, or not in what only speaks like PostgreSQL

    def unique_columns_of(self, error: DBAPIError) -> list[str] | None:
        if _sqlstate(error) != "23505":
            return None
        details = (
            getattr(cause, "detail", None) for cause in (error.orig, getattr(error.orig, "__cause__", None))
        )
        found = re.match(r"Key \((.+?)\)=", next(filter(None, details), ""))
        return [name.strip('" ') for name in found[1].split(",")] if found else []

    def is_busy(self, error: DBAPIError) -> bool:
        return _sqlstate(error) in ("55P03", "53300", "57014")

    def is_conflict(self, error: DBAPIError) -> bool:
        # The second is of a table that was altered; the driver has forgotten its statements now.
        return _sqlstate(error) in ("40001", "40P01") or (
            type(error.orig).__name__ == "InvalidCachedStatementError"
        )

    def is_misfit(self, error: DBAPIError) -> bool:
        return _class(error) == "22"

    def is_refused(self, error: DBAPIError) -> bool:
        return _class(error) in ("28", "3D")

    def is_lost(self, error: DBAPIError) -> bool:
        return error.connection_invalidated or _class(error) in ("08", "57", "53", "58")


def _pragmas(connection: Any, *pragmas: str) -> None:
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _switch_to_wal(connection: Any, timeout_s: float) -> None:
    """SQLite waits for other writers, but not here: two processes that start at once on a new file meet."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            _pragmas(connection, "journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if _code_of(error) not in _BUSY or time.monotonic() >= deadline:
                raise
            await_only(asyncio.sleep(_POLL_S))
        else:
            return


def _release_lock(connection: Any, _record: object, _error: object) -> None:
    """Before a connection is closed whose statement was cancelled: SQLite leaves the closing of one that has an
    unfinished statement for later, and until that is garbage it would keep the write lock.
    """
    with contextlib.suppress(Exception):
        connection.rollback()


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """Has the pool open a new connection instead of one that the server has closed meanwhile (its restart)."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _sqlite_code(error: DBAPIError) -> int | None:
    return None if error.orig is None else _code_of(error.orig)


def _code_of(error: BaseException) -> int | None:
    """The primary result code; the extended ones have it in their low byte."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        code = getattr(error.__cause__, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


def _class(error: DBAPIError) -> str:
    """The first two characters of the SQLSTATE; https://www.postgresql.org/docs/current/errcodes-appendix.html"""
    return (_sqlstate(error) or "")[:2]


LOST_ERRORS: Sequence[type[BaseException]] = (OSError, asyncio.TimeoutError)
"""What drivers raise, beside ``DBAPIError``, when the database can't be reached."""
