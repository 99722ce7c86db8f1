"""SQLite's writing connection: statements that take microseconds run in the event loop, all others in a thread.

Handing a call to a thread and its result back costs more than most statements do, and much more while the loop is
busy. What may wait, for a lock or for the disk, and what may take long never runs in the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from diptych.sql.compiled import CompiledStatement
from diptych.sql.sqlite.inline_reads import BUDGET_S
from diptych.sql.sqlite.schema import Schema

T = TypeVar("T")

_CHECK_EVERY = 1_000
"""How many instructions of SQLite's machine lie between two looks at the clock."""


class SqliteConnection:
    """A connection as SQLAlchemy's asynchronous dialect uses it (PEP 249, in a greenlet).

    ``connect`` opens SQLite's own, which must not insist on one thread. Everything runs in a thread of this
    connection's, but for what is done ``in_the_loop``.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._thread = _Thread()
        self._in_loop = False
        self._deadline = 0.0
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
        """Closes it also where nothing can be awaited: when it was forgotten."""
        if in_greenlet():
            self.close()
        else:
            self._thread.put(self._connection.close)
            self._thread.end()

    @contextlib.contextmanager
    def in_the_loop(self) -> Iterator[None]:
        """Inside it, statements run where they are called. To be left before anything is awaited."""
        self._in_loop = True
        try:
            yield
        finally:
            self._in_loop = False

    @contextlib.contextmanager
    def within_budget(self) -> Iterator[None]:
        """Inside it, a select that takes long is interrupted. (A change would be with its whole transaction.)"""
        self._deadline = time.perf_counter() + BUDGET_S
        self._connection.set_progress_handler(self._is_late, _CHECK_EVERY)
        try:
            yield
        finally:
            self._connection.set_progress_handler(None, 0)

    @contextlib.contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Inside it, a statement fails that would have to wait for another process's lock."""
        (timeout_ms,) = self._connection.execute("PRAGMA busy_timeout").fetchone()
        self._connection.execute("PRAGMA busy_timeout=0")
        try:
            yield
        finally:
            self._connection.execute(f"PRAGMA busy_timeout={timeout_ms}")

    def execute_here(self, statement: str) -> None:
        """Runs a statement that touches no data in the loop."""
        with _as_of_the_driver(statement):
            self._connection.execute(statement)

    def fetch_here(self, statement: CompiledStatement, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Runs a statement that takes microseconds in the loop. Returns its rows; raises what an engine does."""
        try:
            parameters = statement.parameters(values)
        except Exception as error:  # a column's type refused a value
            raise StatementError(str(error), statement.text, None, error) from error
        with _as_of_the_driver(statement.text):
            cursor = self._connection.execute(statement.text, parameters)
            try:
                return statement.loaded(cursor.fetchall())
            finally:
                cursor.close()

    def look_at_schema(self) -> None:
        """Takes note of what has changed in it; to be called when a transaction has begun."""
        with _as_of_the_driver("PRAGMA schema_version"):
            self.schema.look_at(self._connection)

    def _commit(self) -> None:
        try:
            self._connection.commit()
        except sqlite3.Error:
            # SQLite keeps the transaction open, with the write lock (a deferred constraint could still be met). To
            # SQLAlchemy it is over.
            self._connection.rollback()
            raise

    def _is_late(self) -> bool:
        return time.perf_counter() > self._deadline

    def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        if self._in_loop:
            return function(*arguments)
        return await_only(self._thread.run(function, *arguments))


class SqliteCursor:
    """A cursor that has fetched all its rows when it has executed. ``call`` runs what may take long."""

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
        # SQLite's own is at its end. If it is not (its caller was cancelled), the thread is still at it, and the loop
        # would wait for it here.
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        """SQLAlchemy's word for closing the cursor and keeping its rows; it has come to its end already."""

    def _execute(self, statement: str, parameters: Sequence[Any]) -> deque[Any]:
        self._cursor.execute(statement, parameters)
        return deque(self._cursor.fetchall())


class _Thread:
    """Runs calls one after the other. A call whose caller was cancelled is run to its end."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        # A daemon: it may be waiting for another process's lock when this one is to end.
        threading.Thread(target=self._work, name="diptych-sqlite-writer", daemon=True).start()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def call() -> None:
            try:
                settle = partial(_succeed, done, function(*arguments))
            except BaseException as error:
                settle = partial(_fail, done, error)
            loop.call_soon_threadsafe(settle)

        self.put(call)
        return await done

    def put(self, call: Callable[[], object]) -> None:
        """Has it called, without hearing of it."""
        self._calls.put(call)

    def end(self) -> None:
        """Once the calls that were put are done."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            with contextlib.suppress(Exception):  # the loop is closed, or nobody is to hear of it
                call()
            del call  # with what it holds, and not only when the next one comes


def _succeed(done: asyncio.Future[T], result: T) -> None:
    if not done.done():  # else its caller was cancelled
        done.set_result(result)


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)


@contextlib.contextmanager
def _as_of_the_driver(statement: str) -> Iterator[None]:
    """Inside it, errors of ``sqlite3`` are raised as SQLAlchemy raises them."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise IntegrityError(statement, None, error) from error
    except sqlite3.Error as error:
        raise OperationalError(statement, None, error) from error


def sqlite_under(connection: AsyncConnection) -> SqliteConnection | None:
    """SQLite's writing connection, if this is on it."""
    driver = cast(sa.Connection, connection.sync_connection).connection.dbapi_connection
    return driver if isinstance(driver, SqliteConnection) else None
