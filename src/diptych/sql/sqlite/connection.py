"""SQLite's writing connection: statements of microseconds run in the event loop, all other statements in a thread.

Handing a call to a thread and its result back costs more than most statements, and much more while the loop is busy.
A call that may wait for a lock or the disk, or may take long, never runs in the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, Literal, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from diptych.sql.sqlite.inline_reads import BUDGET_S, CHECK_EVERY

T = TypeVar("T")


class SqliteConnection:
    """A connection for SQLAlchemy's asynchronous dialect (PEP 249, in a greenlet).

    ``connect`` opens SQLite's own connection, which must admit several threads. Calls run in a thread of this
    connection, except inside ``in_the_loop``. ``schema`` is the database's, as of the begin of the transaction.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._thread = _Thread()
        self._in_loop = False
        self.schema = Schema()
        try:
            self._connection = self._call(connect)
        except BaseException:
            self._thread.end()
            raise

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def cursor(self) -> SqliteCursor:
        return SqliteCursor(self._connection.cursor(), self._call)

    def create_function(self, *arguments: Any, **named: Any) -> None:
        self._connection.create_function(*arguments, **named)

    def commit(self) -> None:
        if self._connection.in_transaction:
            self._call(self._commit)

    def rollback(self) -> None:
        if self._connection.in_transaction:
            self._call(self._connection.rollback)

    def close(self) -> None:
        try:
            self._call(self._connection.close)
        finally:
            self._thread.end()

    def terminate(self) -> None:
        """Closes the connection, even where nothing can be awaited, as after it was forgotten."""
        if in_greenlet():
            self.close()
        else:
            self._thread.put(self._connection.close)
            self._thread.end()

    @contextlib.contextmanager
    def in_the_loop(self) -> Iterator[None]:
        """Inside the block, statements run in the event loop. The block must not await anything."""
        self._in_loop = True
        try:
            yield
        finally:
            self._in_loop = False

    @contextlib.contextmanager
    def within_budget(self) -> Iterator[None]:
        """Inside the block, a long select is interrupted. (A change would be undone with its transaction.)"""
        deadline = time.perf_counter() + BUDGET_S
        self._connection.set_progress_handler(lambda: time.perf_counter() > deadline, CHECK_EVERY)
        try:
            yield
        finally:
            self._connection.set_progress_handler(None, 0)

    @contextlib.contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Inside the block, a statement fails instead of waiting for a lock of a different process."""
        (timeout_ms,) = self._connection.execute("PRAGMA busy_timeout").fetchone()
        self._connection.execute("PRAGMA busy_timeout=0")
        try:
            yield
        finally:
            self._connection.execute(f"PRAGMA busy_timeout={timeout_ms}")

    def fetch_here(self, statement: str, parameters: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        """Executes a statement of microseconds in the loop and returns its rows. Raises the errors of an engine."""
        with _engine_errors(statement):
            cursor = self._connection.execute(statement, parameters)
            try:
                return cursor.fetchall()
            finally:
                cursor.close()

    def refresh_schema(self) -> None:
        """Reads a changed schema; to be called when a transaction has begun."""
        with _engine_errors("PRAGMA schema_version"):
            self.schema.refresh(self._connection)

    def _commit(self) -> None:
        try:
            self._connection.commit()
        except sqlite3.Error:
            # SQLite keeps the transaction open, with the write lock (a deferred constraint could still be met), while
            # SQLAlchemy takes the transaction for ended.
            self._connection.rollback()
            raise

    def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        if self._in_loop:
            return function(*arguments)
        return await_only(self._thread.run(function, *arguments))


class SqliteCursor:
    """A cursor with all rows fetched at once. ``call`` runs a function with room for its duration."""

    arraysize = 1

    def __init__(self, cursor: sqlite3.Cursor, call: Callable[..., Any]) -> None:
        self._cursor = cursor
        self._call = call
        self._rows: deque[Any] = deque()

    @property
    def description(self) -> Any:
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        return self._cursor.lastrowid

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        self._rows = self._call(self._execute, statement, parameters)

    def executemany(self, statement: str, parameters: Sequence[Sequence[Any]]) -> None:
        self._call(self._cursor.executemany, statement, parameters)

    def fetchone(self) -> Any:
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        return [self._rows.popleft() for _ in range(min(size or self.arraysize, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        rows = list(self._rows)
        self._rows.clear()
        return rows

    def close(self) -> None:
        # SQLite's own cursor has ended. If not (the caller was cancelled), the thread is still using that cursor, and
        # closing it here would make the loop wait for the thread.
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        """Called by SQLAlchemy to close the cursor but keep its rows: all are fetched, so nothing is to be done."""

    def _execute(self, statement: str, parameters: Sequence[Any]) -> deque[Any]:
        self._cursor.execute(statement, parameters)
        return deque(self._cursor.fetchall())


class _Thread:
    """A thread for calls in their order. A call whose caller was cancelled is run to its end."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        # A daemon: the thread may be waiting for a lock of a different process when this process ends.
        threading.Thread(target=self._work, name="diptych-sqlite-writer", daemon=True).start()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def call() -> None:
            outcome: tuple[Callable[[Any], None], Any]
            try:
                outcome = done.set_result, function(*arguments)
            except BaseException as error:
                outcome = done.set_exception, error
            loop.call_soon_threadsafe(_settle, done, *outcome)

        self.put(call)
        return await done

    def put(self, call: Callable[[], object]) -> None:
        """Has a function called in the thread; its result is dropped."""
        self._calls.put(call)

    def end(self) -> None:
        """Ends the thread after the calls put so far."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            with contextlib.suppress(Exception):  # the loop is closed, or the result is dropped
                call()
            del call  # and the objects that the call refers to, before the next call comes


def _settle(done: asyncio.Future[T], settle: Callable[[Any], None], outcome: object) -> None:
    if not done.done():  # else the caller was cancelled
        settle(outcome)


@contextlib.contextmanager
def _engine_errors(statement: str) -> Iterator[None]:
    """Inside the block, errors of ``sqlite3`` are raised in an engine's form."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise IntegrityError(statement, None, error) from error
    except sqlite3.Error as error:
        raise OperationalError(statement, None, error) from error


def sqlite_under(connection: AsyncConnection) -> SqliteConnection | None:
    """Returns SQLite's writing connection under an engine's; None if there is any other."""
    driver = cast(sa.Connection, connection.sync_connection).connection.dbapi_connection
    return driver if isinstance(driver, SqliteConnection) else None


_TRIGGERED = "SELECT tbl_name FROM sqlite_master WHERE type = 'trigger' AND name NOT GLOB 'diptych_capture_*'"
_CAPTURED = "SELECT tbl_name FROM sqlite_master WHERE type = 'trigger' AND name GLOB 'diptych_capture_*'"
_REFERENCED = """
SELECT DISTINCT reference."table" FROM sqlite_master AS child, pragma_foreign_key_list(child.name) AS reference
WHERE child.type = 'table'
"""
_SHARED_ENDS = """
SELECT count(*) FROM sqlite_master WHERE sql LIKE '%DEFERRED%' OR sql LIKE '%ROLLBACK%'
"""


class Schema:
    """The tables where changing a row may change many, and whether commands can share a transaction.

    ``has_shared_ends``: a failure of one command could fail all commands in its transaction, because constraints are
    checked at the commit (``DEFERRED``) or undo the whole transaction (``ON CONFLICT ROLLBACK``, ``RAISE(ROLLBACK,
    …)``). Then transactions are not shared.
    """

    def __init__(self) -> None:
        self.has_shared_ends = True
        self._version: int | None = None
        self._triggered: frozenset[str] = frozenset()
        self._captured: frozenset[str] = frozenset()
        self._referenced: frozenset[str] = frozenset()

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Reads the schema, unless unchanged since the last call."""
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        if version == self._version:
            return
        self._triggered = _names(connection, _TRIGGERED)
        self._captured = _names(connection, _CAPTURED)
        self._referenced = _names(connection, _REFERENCED)
        (self.has_shared_ends,) = map(bool, connection.execute(_SHARED_ENDS).fetchone())
        self._version = version

    def is_quick(self, kind: Literal["insert", "change"], table: str) -> bool:
        """Returns whether inserting (or changing or deleting) a row does nothing else besides.

        Triggers may do anything, but for those that write the row's entry to the change log. Where rows refer to the
        changed row by a foreign key, SQLite searches for them, perhaps without an index, and may change them too.
        """
        name = table.lower()
        if self._version is None or name in self._triggered:
            return False
        return kind == "insert" or name not in self._referenced

    def is_captured(self, table: str) -> bool:
        """Returns whether triggers write an entry to the change log for each change of a row."""
        return table.lower() in self._captured

    def has_triggers(self, table: str) -> bool:
        """Returns whether a trigger of the application's may change the row again."""
        return table.lower() in self._triggered


def _names(connection: sqlite3.Connection, statement: str) -> frozenset[str]:
    return frozenset(name.lower() for (name,) in connection.execute(statement))
