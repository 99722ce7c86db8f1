"""SQLite as a ``Database``: its connections, write-ahead logging, locks and errors."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, RowMapping
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from diptych.aio.priority_lock import PriorityLock
from diptych.aio.tasks import shielded
from diptych.config.settings import Settings
from diptych.errors import DatabaseBusyError
from diptych.sql.database import Database, EngineMoment, Failure, Rows, Step, Transaction, Values, run_steps
from diptych.sql.sqlite.connection import SqliteConnection
from diptych.sql.sqlite.inline_reads import BUSY, InlineConnection, InlineMoment
from diptych.sql.sqlite.machine import DatabaseFile, MachineClock, machine
from diptych.sql.sqlite.transactions import SqliteTransactions, Undone
from diptych.sql.sqlite.types import give_back_what_was_stored
from diptych.sql.statements import PreparedSelect

_POLL_S = 0.02
"""Interval between two attempts to switch a file to WAL, in seconds."""

_FAILURES: Mapping[Failure, Sequence[int]] = {
    "busy": BUSY,
    "misfit": (sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG),
    "refused": (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH),
    "lost": (
        *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL),
        *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CORRUPT),
    ),
}
"""Primary result codes of SQLite by the kind of the error."""


class SqliteDatabase(Database):
    """An SQLite file in WAL mode. Readers don't wait for the writer; writers queue, here and at the file."""

    name = "sqlite"
    is_in_process = True
    has_one_writer = True
    can_notify = False

    def __init__(self, url: URL, settings: Settings) -> None:
        import aiosqlite  # noqa: F401

        self._synchronous = settings.sqlite_synchronous
        timeout_s = self._timeout_s = settings.database_timeout_s
        options = {"connect_args": {"timeout": timeout_s}, "pool_timeout": timeout_s, "max_overflow": 0}
        # A single writing connection for the process: a second could only wait for the first.
        limits = {"pool_timeout": timeout_s, "max_overflow": 0}
        self.writer = create_async_engine(url, pool_size=1, creator=self._connect_writer, **limits)
        # Reading has no transactions, so there is nothing to roll back when a connection is released.
        self.reader = create_async_engine(
            url, pool_size=settings.database_pool_size, pool_reset_on_return=None, **options
        )
        # A further connection for each open view: a long pass over a read model must not hold up other passes.
        self.keeper = create_async_engine(url, pool_size=2, **options | {"max_overflow": -1})
        self.write_lock = PriorityLock(timeout_s)
        self.transactions = SqliteTransactions(self.writer, self.write_lock, timeout_s)
        (file,), _ = self.reader.dialect.create_connect_args(url)
        self.lease_s = settings.lease_s
        self._clock = MachineClock(machine())
        self._file = DatabaseFile()
        inline = partial(
            InlineConnection,
            file,
            self.reader.dialect,
            prepare=self._clock.register,
            identity=self._file.identity,
        )
        self.inline: InlineConnection | None = inline()
        self._moments = inline()
        self._listen()

    def _listen(self) -> None:
        # A transaction that reads first could not write if any other wrote meanwhile (SQLITE_BUSY at once, without
        # waiting): so every unit of work takes the write lock at its beginning.
        sa.event.listen(self.writer.sync_engine, "begin", self._begin_immediate)
        sa.event.listen(self.writer.sync_engine, "invalidate", _release_lock)
        for engine in (self.writer, self.reader, self.keeper):
            give_back_what_was_stored(engine.dialect)
            prepare = self._prepare_writer if engine is self.writer else self._prepare_reader
            sa.event.listen(engine.sync_engine, "do_connect", self._make)
            sa.event.listen(engine.sync_engine, "connect", prepare)
            sa.event.listen(engine.sync_engine, "connect", self._identify)
            sa.event.listen(engine.sync_engine, "checkout", self._refuse_replaced)

    def _connect_writer(self) -> SqliteConnection:
        (file,), options = self.writer.dialect.create_connect_args(self.writer.url)
        self._file.make(file)
        # Without an isolation level: sqlite3 would begin transactions itself, too late.
        options.update(timeout=self._timeout_s, isolation_level=None, check_same_thread=False)
        return SqliteConnection(partial(sqlite3.connect, file, **options))

    def _prepare_writer(self, connection: Any, _record: object) -> None:
        _switch_to_wal(connection, self._timeout_s)
        _pragmas(connection, "foreign_keys=ON", f"synchronous={self._synchronous}")

    def _begin_immediate(self, connection: sa.Connection) -> None:
        """Waits for other processes' writers in the event loop, never in SQLite.

        ★ SQLite locks the connection while it waits in a thread. A cursor of this connection, dropped in the loop
        meanwhile, would stop the loop, and in tests with the loop the very writer that SQLite waits for.
        """
        sqlite: SqliteConnection = connection.connection.dbapi_connection  # type: ignore[assignment]
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                with sqlite.in_the_loop(), sqlite.without_waiting():
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                return
            except DBAPIError as error:
                if _code_of(error.orig) not in BUSY or time.monotonic() >= deadline:
                    raise
            # Short and irregular: a process that writes without a pause leaves only moments in between.
            await_only(asyncio.sleep(random.uniform(0.001, 0.004)))  # noqa: S311

    def _prepare_reader(self, connection: Any, _record: object) -> None:
        connection.isolation_level = None
        _pragmas(connection, "foreign_keys=ON", "query_only=ON")

    def read_now(self, select: PreparedSelect, values: Values) -> Rows | None:
        return None if self.inline is None else self.inline.fetch(select, values)

    @contextlib.asynccontextmanager
    async def moment(self) -> AsyncIterator[InlineMoment | None]:
        with self._moments.moment() as moment:
            yield moment

    @contextlib.asynccontextmanager
    async def snapshot(self, engine: AsyncEngine) -> AsyncIterator[EngineMoment]:
        async with engine.connect() as connection:
            await connection.exec_driver_sql("BEGIN")  # the driver begins nothing by itself
            yield EngineMoment(connection)

    def begin_unit(self, kind: Hashable) -> Awaitable[Transaction]:
        return self.transactions.begin(kind)

    def record_duration(self, kind: Hashable, seconds: float) -> None:
        self.transactions.record_duration(kind, seconds)

    async def settle(self) -> None:
        await self.transactions.settle()

    @contextlib.asynccontextmanager
    async def turn_to_write(self, *, first: bool = False) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self.write_lock.take(first))
            except TimeoutError as error:
                raise DatabaseBusyError(
                    "commands of this process held SQLite's only writer for longer than DATABASE_TIMEOUT_MS"
                ) from error
            yield

    async def write_for_hinge(self, steps: Sequence[Step]) -> RowMapping | None:
        async with self.turn_to_write(first=True):
            # A connection cut off while SQLite opens it would never be closed.
            return await shielded(self._write(steps))

    async def _write(self, steps: Sequence[Step]) -> RowMapping | None:
        async with self.writer.connect() as connection:
            return await run_steps(connection, steps)

    async def close(self) -> None:
        if self.inline is not None:
            self.inline.close()
        self._moments.close()
        await super().close()

    @property
    def address(self) -> str:
        return str(Path(self.reader.url.database or "").absolute())

    @property
    def identity(self) -> str:
        return self._file.identity()

    @property
    def read_from(self) -> str:
        return self._file.last

    def clock_text(self, held: str) -> str:
        return self._clock.text(held)

    def _make(self, _dialect: object, _record: object, arguments: Sequence[Any], _options: object) -> None:
        """Makes the file, if there is none, before the driver opens it."""
        self._file.make(arguments[0])

    def _identify(self, connection: Any, record: Any) -> None:
        self._clock.register(connection)
        self._file.opened(_path_of(connection))
        record.info["identity"] = self.identity

    def _refuse_replaced(self, _connection: object, record: Any, _proxy: object) -> None:
        """Has the pool open a new connection if the file at the path was replaced."""
        if record.info["identity"] != self.identity:
            raise DisconnectionError

    def unique_columns_of(self, error: DBAPIError) -> list[str] | None:
        found = re.match(r"UNIQUE constraint failed: (.+)", str(error.orig))
        return [name.rpartition(".")[2] for name in found[1].split(", ")] if found else None

    def table_of(self, error: DBAPIError) -> str | None:
        found = re.match(r"UNIQUE constraint failed: ([^,]+)\.", str(error.orig))
        return found[1] if found else None

    def failure_of(self, error: DBAPIError) -> Failure | None:
        if isinstance(error.orig, Undone):  # writers never run at the same time
            return "conflict"
        code = _code_of(error.orig)
        known = next((failure for failure, codes in _FAILURES.items() if code in codes), None)
        if code == sqlite3.SQLITE_ERROR and str(error.orig).startswith(("no such ", "table ")):
            return "schema"  # SQLite has no code for it
        return known or ("lost" if error.connection_invalidated else None)


def _path_of(connection: Any) -> str:
    """Returns the path of the database file; "" if the database is in memory."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA database_list")
    path = next((str(file or "") for _, name, file in cursor.fetchall() if name == "main"), "")
    cursor.close()
    return path


def _pragmas(connection: Any, *pragmas: str) -> None:
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _switch_to_wal(connection: Any, timeout_s: float) -> None:
    """Switches the file to WAL, and waits where SQLite does not: for a process starting on the same new file."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return _pragmas(connection, "journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if _code_of(error) not in BUSY or time.monotonic() >= deadline:
                raise
        await_only(asyncio.sleep(_POLL_S))


def _release_lock(connection: Any, _record: object, _error: object) -> None:
    """Rolls back a connection about to be closed because its statement was cancelled.

    SQLite postpones the closing of a connection with an unfinished statement, and would keep the write lock until the
    statement is garbage.
    """
    with contextlib.suppress(Exception):
        connection.rollback()


def _code_of(error: BaseException | None) -> int | None:
    """Returns the primary result code: the low byte of an extended code."""
    for raised in (error, getattr(error, "__cause__", None)):
        if (code := getattr(raised, "sqlite_errorcode", None)) is not None:
            return int(code) & 0xFF
    return None
