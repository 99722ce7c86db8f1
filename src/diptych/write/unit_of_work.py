"""A unit of work: the open transaction of a command, its statements and its changes."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from types import FrameType
from typing import TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import UnitOfWorkError
from diptych.log import Change, CommandContext
from diptych.log.append import name_entries, naming, position_before
from diptych.sql.database import Database, Transaction
from diptych.sql.entity import MappedEntity
from diptych.sql.failures import translated
from diptych.write.changes import Making
from diptych.write.session import CommandSession, OnCommit, open_session

_AT_ONCE_S = 0.002
"""Time for which a handler may execute statements in the event loop without a break, in seconds."""

_FAILED = "one of its statements failed: let the error leave the handler"

CURRENT: ContextVar[UnitOfWork | None] = ContextVar("diptych_unit_of_work", default=None)
"""The unit of work of the current task, over whichever database."""

Conclude: TypeAlias = "Callable[[UnitOfWork, MappedEntity, AsyncConnection, Making], Awaitable[None]]"
"""Makes the only change of a unit of work on a connection where the change commits by itself, and acknowledges it."""


def current_unit_of_work(database: Database) -> UnitOfWork | None:
    """Returns the unit of work of the current task over this database, or None."""
    unit = CURRENT.get()
    while unit is not None and unit.database is not database:
        unit = unit.outer
    return unit


def new_context(correlation_id: str | None = None, actor: str | None = None) -> CommandContext:
    """Returns a context with a fresh command id."""
    return CommandContext(command_id=str(uuid.uuid4()), correlation_id=correlation_id, actor=actor)


class UnitOfWork:
    """An open transaction and its changes. Statements of concurrent tasks take turns.

    ``changes`` are the changes made so far, ``touched`` the tables that its statements may depend on. It
    ``looks_late`` if it may have noticed changes that are later than its snapshot, or than its last change, whichever
    they are: a constraint, or a read model, has shown it more. The unit ``is_whole`` if its transaction has no
    further entries in the change log than ``changes``: not if it executed statements of the application's own, or
    changed a table with effects. ``outer`` is the unit of work over another database that this was begun in.

    ``ends_with_call`` says that nothing comes after the call that is being made, ``only_caller`` is the frame from
    which such a call would come. The unit ``is_concluded`` if that call ends, or has ended, the unit of work;
    ``has_failed`` says that nothing was changed.
    """

    def __init__(
        self,
        transaction: Transaction,
        database: Database,
        context: CommandContext,
        conclude: Conclude,
        outer: UnitOfWork | None = None,
    ) -> None:
        self.is_whole = True
        self.is_concluded = self.has_failed = False
        self.ends_with_call = False
        self.only_caller: FrameType | None = None
        self._conclude = conclude
        self._rests_on_any = False
        self._session: CommandSession | None = None
        self._exits = contextlib.ExitStack()
        self._first = 0
        self.changes: list[Change] = []
        self.touched: set[str] = set()
        self.looks_late = False
        self.context = context
        self.database = database
        self.outer = outer
        self.transaction = transaction
        self._turn = asyncio.Lock()
        self._unbroken_since = time.perf_counter()
        self._unusable: str | None = None

    @contextlib.asynccontextmanager
    async def statement(self, entity: MappedEntity) -> AsyncIterator[AsyncConnection]:
        """Lends the connection to a single task at a time. After an error inside, the unit of work can't commit."""
        if self.database.is_in_process and time.perf_counter() - self._unbroken_since > _AT_ONCE_S:
            # A short statement on a database in this process waits for nothing: a handler with many of them would
            # hold up everything else in the event loop.
            await asyncio.sleep(0)
            self._unbroken_since = time.perf_counter()
        if self._session is not None:
            await self._session.flush()
        async with self._turn:
            self.check_usable()
            self.touched |= entity.related_tables
            self.looks_late |= entity.looks_late
            try:
                with translated(self.database, entity):
                    yield await self._connection(has_more=entity.has_effects)
            except BaseException:
                # PostgreSQL refuses everything after an error in a transaction, SQLite goes on: we refuse on both,
                # so that a handler that swallows the error can't commit half of its changes.
                self.fail(_FAILED)
                raise

    def expect_call(self, caller: FrameType | None) -> None:
        """Takes note of a call from this frame: if nothing comes after the call, its change can commit by itself."""
        self.ends_with_call = caller is not None and caller is self.only_caller

    async def make(self, entity: MappedEntity, making: Making) -> Change | None:
        """Makes a change; a change with nothing after commits by itself, where the database can."""
        is_alone = self.ends_with_call and not entity.has_effects
        if is_alone and await self._conclude_with(entity, making):
            return self.changes[0] if self.changes else None
        async with self.statement(entity) as connection:
            change = await making(connection)
            if change is not None:
                self.note(entity, change)
        return change

    async def _conclude_with(self, entity: MappedEntity, making: Making) -> bool:
        async with self._turn:
            self.check_usable()
            with translated(self.database):
                connection = await self.transaction.outside()
            if connection is None:
                return False
            self.touched |= entity.related_tables
            self.looks_late |= entity.looks_late
            self.is_concluded = True
            self._close()
        await self._conclude(self, entity, connection, making)
        return True

    async def finish(self) -> None:
        """Closes the unit of work after the running statement, perhaps begun by a task left behind.

        Ending the transaction in the midst of it could keep a change without its row in the log. Raises
        ``UnitOfWorkError`` if a statement has failed.
        """
        if self.is_concluded:
            if self.has_failed:
                raise UnitOfWorkError(f"this unit of work can't be used: {_FAILED}")
            return
        if self._session is not None:
            self.check_usable()
            await self._session.conclude()
        async with self._turn:
            self.check_usable()
            if not self.is_whole:
                await name_entries(await self.transaction.connection(), self._first, self.context)
            self._close()

    async def abandon(self) -> None:
        """Closes the unit of work at once, and waits for the running statement."""
        self._close()
        async with self._turn:
            pass

    @property
    def has_looked(self) -> bool:
        """True if the unit of work may have read a row."""
        return bool(self.touched) or self._rests_on_any

    @property
    def rests_on(self) -> set[str] | None:
        """The tables whose rows the command may rest on; None for any."""
        return None if self._rests_on_any else self.touched

    @contextlib.asynccontextmanager
    async def free_statement(self) -> AsyncIterator[AsyncConnection]:
        """Lends the connection for a statement of the application's own, to a single task at a time."""
        if self._session is not None:
            await self._session.flush()
        async with self._turn:
            self.check_usable()
            try:
                with translated(self.database):
                    yield await self._connection_for_any()
            except BaseException:
                self.fail(_FAILED)
                raise

    async def session(self, on_commit: OnCommit) -> CommandSession:
        """Returns the session of this attempt at the command, opened at its first use."""
        self.check_usable()
        if self._session is None:
            async with self._turn:
                with translated(self.database):
                    connection = await self._connection_for_any()
                    self._session = await open_session(connection, self, self._turn, self._exits)
        self._session.set_on_commit(on_commit)
        return self._session

    def note(self, entity: MappedEntity, change: Change) -> None:
        """Takes note of a change, shown by the session from now on."""
        self.changes.append(change)
        if entity.referring and (change.after is None or change.moves):
            # ★ Foreign keys have looked for rows that refer to this one, later than the snapshot: those that were
            # there are gone by another command's change.
            self.looks_late = True
            self.touched |= entity.referring
        if self._session is not None:
            self._session.note(entity, change.after, change.image)

    @property
    def change_count(self) -> int:
        """Number of the changes made so far by ``ORMService``."""
        return len(self.changes)

    def undo(self, change_count: int) -> None:
        """Forgets the changes after the first ``change_count``: a savepoint has undone these."""
        undone, self.changes[change_count:] = self.changes[change_count:], []
        if self._session is not None:
            for change in undone:
                self._session.expire_row(change.entity, change.before or change.image)

    def fail(self, reason: str) -> None:
        """Has everything refused from now on, the commit too."""
        self._unusable = self._unusable or reason

    async def _connection_for_any(self) -> AsyncConnection:
        """Returns the connection for statements of the application's own, which may read and change any row."""
        self._rests_on_any = True
        return await self._connection(has_more=True)

    async def _connection(self, *, has_more: bool) -> AsyncConnection:
        """Returns the connection. From the first statement that ``has_more`` entries of the log than its change has,
        which triggers write, these are to name the command.
        """
        if not (has_more and self.is_whole):
            return await self.transaction.connection()
        self.is_whole = False
        connection = await self.transaction.connection(naming(self.context))
        self._first = await position_before(connection)
        return connection

    def check_usable(self) -> None:
        """Raises ``UnitOfWorkError`` if the unit of work is over, or a statement of the unit has failed."""
        if self._unusable is not None:
            raise UnitOfWorkError(f"this unit of work can't be used: {self._unusable}")

    def _close(self) -> None:
        """Has later statements refused: tasks left behind by the handler may try some."""
        self.fail("its command is over; do not leave tasks behind in a handler")
        self._exits.close()
        if self._session is not None:
            self._session.sync_session.expunge_all()
