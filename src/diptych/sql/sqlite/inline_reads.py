"""Short reads of an SQLite file in the event loop's own thread, on a connection kept open for this."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.sql.statements import CompiledStatement, PreparedSelect

BUDGET_S = 0.002
"""Longest time of the processor that a read may take from the event loop, in seconds. Altogether the read may last
twice as long: the rest goes to the disk, or to other programs of a busy machine."""

CHECK_EVERY = 1_000
"""Number of instructions of SQLite's machine between two checks of the clocks: some 50 µs. A look-up needs 30."""

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
"""Primary result codes of a statement that has to wait for a lock."""


class InlineMoment:
    """An open transaction of an ``InlineConnection``. Statements that are not prepared can't be executed in it."""

    connection: AsyncConnection | None = None

    def __init__(self, inline: InlineConnection, driver: sqlite3.Connection) -> None:
        self._inline = inline
        self._driver = driver

    async def fetch(
        self, select: PreparedSelect, values: Mapping[str, Any]
    ) -> Sequence[Sequence[Any]] | None:
        """Returns the rows; None if they can't be read in the event loop, or not in this transaction."""
        found = self._inline.fetch(select, values)
        # ★ A connection that was opened anew meanwhile shows another moment.
        return found if self._inline.is_in(self._driver) else None


class InlineConnection:
    """A reading connection in the event loop's thread, never waiting for anything.

    A look-up in SQLite takes microseconds, the way to a thread and back many times as long. A read that takes more
    than ``budget_s`` seconds, or would have to wait for a lock, is given up: ``fetch`` returns None, and the caller
    reads in a thread, where time does not matter. A read that fails is given up too: in the thread its error is
    raised.

    ``prepare`` is called with each opened connection. ``identity`` returns the identity of the file at the path now.
    """

    def __init__(
        self,
        file: str,
        dialect: sa.Dialect,
        budget_s: float = BUDGET_S,
        *,
        prepare: Callable[[sqlite3.Connection], None] = lambda _connection: None,
        identity: Callable[[], str] = lambda: "",
    ) -> None:
        self._file = file
        self._dialect = dialect
        self._budget_s = budget_s
        self._prepare = prepare
        self._identity = identity
        self._opened = ""
        self._deadline = 0.0
        self._work_until: float | None = None
        self._connection: sqlite3.Connection | None = None

    def fetch(self, short: PreparedSelect, values: Mapping[str, Any]) -> Sequence[Sequence[Any]] | None:
        """Returns the rows, of everything committed before this call; None if a thread has to read."""
        if not short.may_run():
            return None
        try:
            rows = self._read(short.compiled(self._dialect), values)
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # an extended code has the primary one there
            if code == sqlite3.SQLITE_INTERRUPT:
                if self._has_worked_enough():
                    short.mark_slow()
            elif code not in BUSY:
                self.close()  # the next read opens a new connection: this one may be broken
            return None
        except Exception:  # a column's type refused a value: raised again in the thread
            return None
        short.mark_fast()
        return rows

    def close(self) -> None:
        """Closes the connection until the next ``fetch``. Safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Refused if the connection was opened in a different thread; then it is closed as garbage.
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    @contextlib.contextmanager
    def moment(self) -> Iterator[InlineMoment | None]:
        """Opens a transaction for reads that see one moment, that of the first; None if there can be none now.

        ★ For a connection of its own: a read of anybody else's would see that moment too.
        """
        connection = self._begun()
        if connection is None:
            yield None
            return
        try:
            yield InlineMoment(self, connection)
        finally:
            try:
                connection.rollback()
            except sqlite3.Error:
                self.close()

    def _begun(self) -> sqlite3.Connection | None:
        """Returns the connection with a transaction of its own; None if it has one already, or can't have one."""
        try:
            if self._identity() != self._opened:
                self.close()
            connection = self._connection or self._open()
            if connection.in_transaction:
                return None
            connection.execute("BEGIN").close()
        except sqlite3.Error:
            self.close()
            return None
        return connection

    def is_in(self, connection: sqlite3.Connection) -> bool:
        """Returns whether this is still the connection, with an open transaction."""
        return self._connection is connection and connection.in_transaction

    def _read(self, compiled: CompiledStatement, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        parameters = compiled.parameters(values)
        if self._identity() != self._opened:
            self.close()  # the file was replaced
        self._deadline = time.perf_counter() + 2 * self._budget_s
        self._work_until = None
        cursor = (self._connection or self._open()).cursor()
        try:
            rows = cursor.execute(compiled.text, parameters).fetchall()
        finally:
            # A statement that has not ended would keep its snapshot for later reads of the connection. None is left:
            # sqlite3 itself ends a statement that SQLite interrupts, after any other error the connection is
            # replaced, and a cursor ends with its last reference. Closing it here only says so.
            cursor.close()
        return compiled.loaded(rows)

    def _open(self) -> sqlite3.Connection:
        # No time-out, for nothing may wait here, and no transactions begun by the driver.
        connection = sqlite3.connect(self._file, timeout=0, isolation_level=None)
        connection.execute("PRAGMA query_only=ON").close()
        self._prepare(connection)
        self._opened = self._identity()
        connection.set_progress_handler(self._is_late, CHECK_EVERY)
        self._connection = connection
        return connection

    def _is_late(self) -> bool:
        """Returns whether the read has to be interrupted; called by SQLite during the read."""
        if self._work_until is None:
            # The clock of the thread is slow to read: not needed before the read turns out to be no look-up.
            self._work_until = time.thread_time() + self._budget_s
            return False
        return self._has_worked_enough() or time.perf_counter() > self._deadline

    def _has_worked_enough(self) -> bool:
        return self._work_until is not None and time.thread_time() >= self._work_until
