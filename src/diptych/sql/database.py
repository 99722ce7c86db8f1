"""An open database, with the methods that the other rooms need."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.orm import Mapper
from sqlalchemy.util import greenlet_spawn

from diptych.sql.statements import PreparedSelect

Values = Mapping[str, Any]
Rows = Sequence[Sequence[Any]]
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
Step = tuple[sa.Executable, Values]
"""A statement and its parameters."""

Failure = Literal["busy", "conflict", "misfit", "refused", "lost", "schema", "denied"]
"""Kinds of errors of the database.

``busy``: other writers held the database for too long, or a time-out of the database's own ended the statement.
``conflict``: the transaction lost against a concurrent one and would succeed at another attempt. ``misfit``: a value
does not fit the type of its column. ``refused``: the database refuses this user, or does not exist. ``lost``: the
database can't be reached, or the connection broke. ``schema``: there is no such table or column. ``denied``: the user
lacks a right.
"""


class Transaction(Protocol):
    """An open transaction. ``commit`` and ``roll_back`` end the transaction and release its connection and locks."""

    async def connection(self, settings: Mapping[str, str] = NO_SETTINGS) -> AsyncConnection:
        """Returns the connection for its statements. ``settings`` are PostgreSQL's, for this transaction alone."""

    async def outside(self) -> AsyncConnection | None:
        """Returns the connection for a statement that commits by itself, if nothing was executed before.

        None if the database has no such statements.
        """

    async def commit(self, *, then_find: sa.Select[Any] | None = None) -> bool:
        """Commits durably. After an error nothing was changed, or the outcome is not known.

        Returns True if the select ``then_find``, executed after the commit, found no row; False if it found a row or
        was not executed.
        """

    async def roll_back(self, *, has_seen: bool = True) -> bool:
        """Undoes the transaction, and returns whether everything read by it is committed.

        ``has_seen`` says that it has read rows, so that its result may rest on them.
        """


class Moment(Protocol):
    """A read-only transaction, all of it in the snapshot of its first statement.

    ``connection`` is the engine's, None where statements that are not prepared can't be executed.
    """

    @property
    def connection(self) -> AsyncConnection | None: ...

    async def fetch(self, select: PreparedSelect, values: Values) -> Rows | None:
        """Returns the rows of a statement; None if it can't be executed here."""


class EngineMoment:
    """A moment whose statements go through the engine."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def fetch(self, select: PreparedSelect, values: Values) -> Rows:
        """Returns the rows of a statement."""
        rows: Rows = (await self.connection.execute(select.select, values)).all()
        return rows


class Database(abc.ABC):
    """An open database. ``SqliteDatabase`` and ``PostgresDatabase`` implement it; ``open_database`` makes one.

    Queries read through ``reader``, units of work run in transactions over ``writer``. The hinge reads through
    ``keeper``, whose connections are its own, so that no load holds it up. ``lease_s`` is the setting ``LEASE_MS`` in
    seconds.
    """

    name: str
    """Name of SQLAlchemy's dialect: "sqlite" or "postgresql"."""

    is_in_process: bool
    """True if short statements run in the event loop, without waiting for anything."""

    has_one_writer: bool
    """True if writing transactions never run at the same time, not even in different processes."""

    can_notify: bool
    """True if processes can notify each other over the database."""

    schema_lock = 0x64697074  # "dipt"
    """Number of PostgreSQL's advisory lock that is held while tables are prepared."""

    takes_raw = False
    """True if statements of units of work may be sent to the driver, past the engine."""

    reader: AsyncEngine
    writer: AsyncEngine
    keeper: AsyncEngine
    lease_s: float

    mappers: Callable[[], Iterable[Mapper[Any]]] = staticmethod(tuple)
    """Returns the mappers of the application's classes, with whose names errors name tables and columns."""

    _adopted = ""
    """Identity at the last call of ``was_adopted``."""

    # Reading

    def read_now(self, select: PreparedSelect, values: Values) -> Rows | None:
        """Returns the rows without leaving the event loop; None where that would hold it up: use ``read``."""
        return None

    async def read(self, select: sa.Select[Any], values: Values | None = None) -> Rows:
        """Returns the rows of a statement, of everything committed when the statement starts."""

        # Connecting, executing and closing in a single greenlet saves a third of the time.
        def fetch() -> Rows:
            with self.reader.sync_engine.connect() as connection:
                return connection.execute(select, values).all()

        rows: Rows = await greenlet_spawn(fetch)
        return rows

    async def read_for_hinge(self, select: PreparedSelect, values: Values) -> Rows:
        """Returns the rows of a statement, read on the hinge's connections, or without leaving the event loop."""
        if (found := self.read_now(select, values)) is not None:
            return found
        async with self.keeper.connect() as connection:
            rows: Rows = (await connection.execute(select.select, values)).all()
        return rows

    @abc.abstractmethod
    def moment(self) -> contextlib.AbstractAsyncContextManager[Moment | None]:
        """Opens a moment of the hinge for a few short statements; None if there can be none now: see ``snapshot``."""

    @abc.abstractmethod
    def snapshot(self, engine: AsyncEngine) -> contextlib.AbstractAsyncContextManager[EngineMoment]:
        """Opens a moment on a connection of the pool of ``engine``."""

    # Units of work

    async def check_shared(self) -> None:  # noqa: B027
        """Raises ``ConfigurationError`` if ``writer`` is the application's own engine, and finds other tables."""

    @abc.abstractmethod
    def begin_unit(self, kind: Hashable) -> Awaitable[Transaction]:
        """Begins a transaction for a command of this ``kind``. Raises ``DatabaseBusyError``, errors of the driver."""

    def record_duration(self, kind: Hashable, seconds: float) -> None:  # noqa: B027
        """Notes how long a command of this kind worked in its transaction; None is no kind."""

    async def settle(self) -> None:  # noqa: B027
        """Waits until the transactions begun so far have released their connections."""

    # Writing

    @contextlib.asynccontextmanager
    async def turn_to_write(self, *, first: bool = False) -> AsyncIterator[None]:
        """Waits for this process's turn to write, with ``first`` before waiting commands.

        Does nothing where there are several writers. Raises ``DatabaseBusyError``.
        """
        yield

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Begins a transaction of diptych's own: each statement sees everything committed when it starts."""
        async with self.writer.connect() as connection:
            await self.begin_read_committed(connection)
            async with connection.begin():
                yield connection

    async def begin_read_committed(self, connection: AsyncConnection) -> None:  # noqa: B027
        """Has each statement of the connection's next transaction see everything committed when it starts.

        Does nothing where there is a single writer.
        """

    @abc.abstractmethod
    async def write_for_hinge(self, steps: Sequence[Step]) -> RowMapping | None:
        """Executes the statements in a transaction, on SQLite before the commands that wait.

        Returns the row of the last statement. If any statement that returns rows has returned none, the result is
        None and nothing is changed. Raises ``DatabaseBusyError``.
        """

    async def lock_schema(self, connection: AsyncConnection) -> None:  # noqa: B027
        """Waits until no other process prepares the tables, and keeps others out until the transaction ends.

        Does nothing where there is a single writer.
        """

    async def lock_writes(self, connection: AsyncConnection, table: str) -> None:  # noqa: B027
        """Waits until nobody has uncommitted changes in the table, and keeps writers out until the transaction ends.

        Does nothing where there is a single writer, whose transaction has the write lock.
        """

    async def close(self) -> None:
        """Closes every connection. Safe to call twice."""
        await self.settle()
        await self.reader.dispose()
        await self.writer.dispose()
        await self.keeper.dispose()

    # Identity

    @property
    @abc.abstractmethod
    def address(self) -> str:
        """The file, or host and name, for people."""

    @property
    @abc.abstractmethod
    def identity(self) -> str:
        """Identity of the database and its timeline, as far as this user may know them.

        A connection to a different database is given up at its next use. Raises ``OSError`` if an SQLite file is
        gone.
        """

    @property
    def read_from(self) -> str:
        """Identity of the database at the last use of a connection."""
        return self.identity

    @property
    def is_adopted(self) -> bool:
        """True if the change log was seen to be of this database."""
        try:
            return self.identity == self._adopted
        except OSError:
            return False

    def was_adopted(self) -> None:
        """Notes that the change log was seen to be of this database."""
        self._adopted = self.read_from

    def clock_text(self, held: str) -> str:
        """Returns the description of the clock to be stored in the database: ``held``, if that is right."""
        return held

    # Errors

    @abc.abstractmethod
    def unique_columns_of(self, error: DBAPIError) -> list[str] | None:
        """Returns the columns (or the name) of a violated unique constraint; None for any other error."""

    @abc.abstractmethod
    def table_of(self, error: DBAPIError) -> str | None:
        """Returns the table of a violated unique constraint, without a schema; None where that is not told."""

    @abc.abstractmethod
    def failure_of(self, error: DBAPIError) -> Failure | None:
        """Returns the kind of the error; None for any other."""


async def run_steps(connection: AsyncConnection, steps: Sequence[Step]) -> RowMapping | None:
    """Executes the statements and commits, unless a statement that returns rows has returned none."""
    found = None
    for statement, values in steps:
        result = await connection.execute(statement, values)
        if result.returns_rows and (found := result.mappings().first()) is None:
            return None
    await connection.commit()
    return found
