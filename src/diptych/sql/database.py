"""An open database, with the methods that the other rooms need of it."""

from __future__ import annotations

import abc
import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import greenlet_spawn

from diptych.sql.prepared import PreparedSelect
from diptych.sql.transactions import Transactions

LOST_ERRORS: Sequence[type[BaseException]] = (OSError, asyncio.TimeoutError)
"""What drivers raise, beside ``DBAPIError``, when the database can't be reached."""

Values = Mapping[str, Any]
Rows = Sequence[Sequence[Any]]
Step = tuple[sa.Executable, Values]
"""A statement and its parameters."""


class Database(abc.ABC):
    """An open database. ``SqliteDatabase`` and ``PostgresDatabase`` implement it; ``open_database`` makes one.

    Queries read through ``reader``, units of work run in ``transactions``, which are over ``writer``. The hinge reads
    through ``keeper``, whose connections are its own, so that no load holds it up. ``lease_s`` is the setting
    ``LEASE_MS`` in seconds.
    """

    name: str
    """Name of SQLAlchemy's dialect: "sqlite" or "postgresql"."""

    is_in_process: bool
    """Whether short statements run in the event loop, without waiting for anything."""

    has_one_writer: bool
    """Whether transactions that write are one after the other, those of other processes included."""

    reader: AsyncEngine
    writer: AsyncEngine
    keeper: AsyncEngine
    transactions: Transactions
    lease_s: float

    # Reading

    def read_now(self, select: PreparedSelect, values: Values) -> Rows | None:
        """The rows, without leaving the event loop; None where that would hold it up: ``read`` is to be asked."""
        return None

    async def read(self, select: sa.Select[Any], values: Values | None = None) -> Rows:
        """The rows of a statement, of everything that is committed when it starts."""

        # Connecting, executing and closing in one greenlet, not in one each, saves a third of the time.
        def fetch() -> Rows:
            with self.reader.sync_engine.connect() as connection:
                return connection.execute(select, values).all()

        rows: Rows = await greenlet_spawn(fetch)
        return rows

    async def read_for_hinge(self, select: PreparedSelect, values: Values) -> Rows:
        """The rows of a statement, on the hinge's connections."""
        async with self.keeper.connect() as connection:
            rows: Rows = (await connection.execute(select.select, values)).all()
        return rows

    @abc.abstractmethod
    async def begin_snapshot(self, connection: AsyncConnection) -> None:
        """Begins a transaction that only reads, all of it in the snapshot of its first statement."""

    # Writing

    @contextlib.asynccontextmanager
    async def turn_to_write(self, *, first: bool = False) -> AsyncIterator[None]:
        """Waits for this process's turn to write; ``first`` before commands that wait. No wait without one writer.

        Raises ``DatabaseBusyError``.
        """
        yield

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction of diptych's own, in which each statement sees what is committed when it starts."""
        async with self.writer.connect() as connection:
            await self.begin_read_committed(connection)
            async with connection.begin():
                yield connection

    @abc.abstractmethod
    async def begin_read_committed(self, connection: AsyncConnection) -> None:
        """Has the next transaction of this connection see, with each statement, what is committed by then."""

    @abc.abstractmethod
    async def write_for_hinge(self, steps: Sequence[Step]) -> RowMapping | None:
        """Executes the statements in one transaction, on SQLite before the commands that wait.

        Returns the row that the last one returned. If a statement that returns rows has returned none, the result is
        None and nothing is changed. Raises ``DatabaseBusyError``.
        """

    async def close(self) -> None:
        """Closes every connection. Safe to call twice."""
        await self.transactions.settle()
        await self.reader.dispose()
        await self.writer.dispose()
        await self.keeper.dispose()

    # Which database it is

    @property
    @abc.abstractmethod
    def identity(self) -> str:
        """Which database this is, and which timeline of it; as much as this user may know.

        A connection that leads to another one is given up at its next use. Raises ``OSError`` if an SQLite file is
        gone.
        """

    @property
    @abc.abstractmethod
    def read_from(self) -> str:
        """The identity as it was when a connection was last asked anything."""

    @property
    @abc.abstractmethod
    def is_adopted(self) -> bool:
        """Whether it is still the one that ``was_adopted`` was last called for."""

    @abc.abstractmethod
    def was_adopted(self) -> None:
        """Notes that the change log was seen to be of this database."""

    @abc.abstractmethod
    def clock_text(self, held: str) -> str:
        """What the database is to hold of the clock that its times are of: ``held``, if that is right."""

    # What an error says

    @abc.abstractmethod
    def unique_columns_of(self, error: DBAPIError) -> list[str] | None:
        """The columns (or the constraint's name) of a violated unique constraint; None for another error."""

    @abc.abstractmethod
    def is_busy(self, error: DBAPIError) -> bool:
        """Whether other writers held the database for too long."""

    @abc.abstractmethod
    def is_conflict(self, error: DBAPIError) -> bool:
        """Whether the transaction lost against a concurrent one and would succeed if it were run again."""

    @abc.abstractmethod
    def is_misfit(self, error: DBAPIError) -> bool:
        """Whether a value does not fit the type of its column."""

    @abc.abstractmethod
    def is_refused(self, error: DBAPIError) -> bool:
        """Whether the database does not let this user in, or there is no database of this name."""

    @abc.abstractmethod
    def is_lost(self, error: DBAPIError) -> bool:
        """Whether the database can't be reached, or the connection to it broke."""


async def run_steps(connection: AsyncConnection, steps: Sequence[Step]) -> RowMapping | None:
    """Executes the statements and commits, unless one that should have returned a row has not."""
    found = None
    for statement, values in steps:
        result = await connection.execute(statement, values)
        if result.returns_rows and (found := result.mappings().first()) is None:
            return None
    await connection.commit()
    return found
