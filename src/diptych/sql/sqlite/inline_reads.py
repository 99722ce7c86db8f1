"""Short reads of an SQLite file in the event loop's own thread, on a connection that is held open for them."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from diptych.sql.compiled import CompiledStatement
from diptych.sql.prepared import PreparedSelect

BUDGET_S = 0.002
"""How much of the processor a read may take from the event loop. In all it may last for twice as long: what is beside
it is the disk, or other programs of a busy machine, for which the read is not to blame."""

_CHECK_EVERY = 1_000
"""How many instructions of SQLite's machine lie between two looks at the clocks: some 50 µs. A look-up needs 30."""

_WAITS = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class InlineConnection:
    """A reading connection in the event loop's thread, on which nothing ever waits.

    A look-up in SQLite takes microseconds; the way to a thread and back takes many times that. A read that takes
    more than ``budget_s``, or would have to wait for a lock, is given up: ``fetch`` returns None, and the caller
    asks in a thread, where it may take its time. So is one that fails: there the failure is told as ever.

    ``prepare`` is given the connection when it was opened. ``identity`` tells which file is there now.
    """

    def __init__(
        self,
        file: str,
        dialect: sa.Dialect,
        budget_s: float = BUDGET_S,
        *,
        prepare: Callable[[sqlite3.Connection], None] | None = None,
        identity: Callable[[], str] | None = None,
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
        """The rows, of everything that was committed before this call; None if they are to be asked for elsewhere."""
        if not short.may_run():
            return None
        try:
            rows = self._read(short.compiled(self._dialect), values)
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # an extended code has the primary one there
            if code == sqlite3.SQLITE_INTERRUPT:
                if self._has_worked_enough():
                    short.mark_slow()
            elif code not in _WAITS:
                self.close()  # the next one is opened anew: this one may be what is broken
            return None
        except Exception:  # a column's type refused a value: told as ever, from the thread
            return None
        short.mark_fast()
        return rows

    def close(self) -> None:
        """Safe to call twice; the next ``fetch`` opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Refused where another thread has opened it, as its loop did; then it ends as garbage.
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _read(self, compiled: CompiledStatement, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        parameters = compiled.parameters(values)
        if self._identity is not None and self._identity() != self._opened:
            self.close()  # another file is in its place now
        self._deadline = time.perf_counter() + 2 * self._budget_s
        self._work_until = None
        cursor = (self._connection or self._open()).cursor()
        try:
            rows = cursor.execute(compiled.text, parameters).fetchall()
        finally:
            # ★ Whatever happened, the statement has ended. One that has not keeps its snapshot, and every later read
            # of this connection would be of that same snapshot: it would not see what was committed since.
            cursor.close()
        return compiled.loaded(rows)

    def _open(self) -> sqlite3.Connection:
        # Without a time-out, for nothing may wait here, and without transactions of the driver's own.
        connection = sqlite3.connect(self._file, timeout=0, isolation_level=None)
        connection.execute("PRAGMA query_only=ON").close()
        if self._prepare is not None:
            self._prepare(connection)
        if self._identity is not None:
            self._opened = self._identity()
        connection.set_progress_handler(self._is_late, _CHECK_EVERY)
        self._connection = connection
        return connection

    def _is_late(self) -> bool:
        """Asked by SQLite while it works: whether to give up."""
        if self._work_until is None:
            # The clock of the thread is slow to read: it is not asked before the read turns out to be no look-up.
            self._work_until = time.thread_time() + self._budget_s
            return False
        return self._has_worked_enough() or time.perf_counter() > self._deadline

    def _has_worked_enough(self) -> bool:
        return self._work_until is not None and time.thread_time() >= self._work_until
