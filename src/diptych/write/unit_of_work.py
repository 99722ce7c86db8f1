"""A command as a transaction: begun, handled, finished, committed and acknowledged; or rolled back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Any, TypeAlias, TypeVar

import stamina
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import (
    ConflictError,
    DatabaseBusyError,
    DatabaseUnavailableError,
    UnavailableError,
    UnitOfWorkError,
)
from diptych.fence.acknowledge import Acknowledger
from diptych.fence.statements import FENCE_STATEMENTS
from diptych.log import Change, CommandContext
from diptych.log.table import begin_naming, name_entries
from diptych.sql.database import Database, Transaction
from diptych.sql.entity import MappedEntity
from diptych.sql.failures import TransactionConflict, translated
from diptych.write.changes import Making
from diptych.write.effects import Effects
from diptych.write.session import CommandSession, OnCommit, open_session

R = TypeVar("R")
Work: TypeAlias = Callable[["UnitOfWork"], Awaitable[R]]

_log = logging.getLogger("diptych.write")

MAX_ATTEMPTS = 10
"""Highest number of runs of a command that loses against concurrent commands (PostgreSQL's 40001 and 40P01)."""

_LONG_S = 0.5
"""Duration from which a command that holds SQLite's only writer is logged, in seconds."""

_AT_ONCE_S = 0.002
"""Time for which a handler may execute statements in the event loop without a break, in seconds."""

_PATIENCE_S = 15.0
"""Time that handlers under way have to come to their end at a stop, in seconds."""

_POLL_S = 0.01
"""Interval between looks at whether the handlers under way are over, in seconds."""

_FAILED = "one of its statements failed: let the error leave the handler"

_RESTS_ON_NOTHING = (TransactionConflict, UnavailableError)
"""Errors that tell nothing of any row, and so are raised at once."""

_current: ContextVar[UnitOfWork | None] = ContextVar("diptych_unit_of_work", default=None)


def current_unit_of_work(database: Database) -> UnitOfWork | None:
    """Returns the unit of work of the current task over this database, or None."""
    unit = _current.get()
    while unit is not None and unit.database is not database:
        unit = unit.outer
    return unit


def new_context(correlation_id: str | None = None, actor: str | None = None) -> CommandContext:
    """Returns a context with a fresh command id."""
    return CommandContext(command_id=str(uuid.uuid4()), correlation_id=correlation_id, actor=actor)


class UnitsOfWork:
    """Runs pieces of work, each in a transaction of its own, acknowledged after the commit."""

    def __init__(self, database: Database, acknowledger: Acknowledger, effects: Effects) -> None:
        self.effects = effects
        self.database = self._database = database
        self._acknowledger = acknowledger
        self._concluding: set[asyncio.Task[None]] = set()

    async def run(
        self, work: Work[R], context: CommandContext, kind: Hashable = None, *, ends_with_call: bool = False
    ) -> R:
        """Awaits ``work(unit)`` in a transaction and returns the result after the commit and the acknowledgement.

        Any error that ``work`` raises leaves nothing behind. Inside another unit of work over this database ``work``
        joins that. If a concurrent transaction won, ``work`` is run again from the start; raises ``ConflictError``
        after ``MAX_ATTEMPTS``. Work of the same ``kind`` takes about the same time. ``ends_with_call`` says that
        ``work`` returns a coroutine which awaits nothing but a single call, and returns its result.
        """
        joined = current_unit_of_work(self._database)
        if joined is not None:
            return await work(joined)
        self._acknowledger.rows.commands += 1
        try:
            return await self._attempt(work, context, kind, ends_with_call)
        except TransactionConflict:
            return await self._repeat(work, context, kind, ends_with_call)
        finally:
            self._acknowledger.rows.commands -= 1

    async def _attempt(
        self, work: Work[R], context: CommandContext, kind: Hashable, ends_with_call: bool
    ) -> R:
        """Begins, runs the handler, finishes, commits and acknowledges; rolls back if the handler fails."""
        transaction = await self._begin(kind)
        unit = UnitOfWork(transaction, self, context, outer=_current.get())
        token = _current.set(unit)
        began = time.monotonic()
        try:
            with translated(self._database):
                working = work(unit)
                if ends_with_call:
                    unit.only_caller = working.cr_frame  # type: ignore[attr-defined]
                result = await working
                await unit.finish()
        except BaseException as error:
            if not unit.is_concluded:
                await self._conclude(self._abandon(transaction, unit, error))
            raise
        finally:
            _current.reset(token)
        self._record(context, kind, time.monotonic() - began)
        if not unit.is_concluded:
            await self._conclude(self._commit(transaction, unit))
        return result

    async def conclude_with(
        self, unit: UnitOfWork, entity: MappedEntity, connection: AsyncConnection, making: Making
    ) -> None:
        """Makes the only change of a unit of work by a statement that commits by itself, and acknowledges the change.

        Goes on to the end even if the caller is cancelled meanwhile.
        """
        await self._conclude(self._make(unit, entity, connection, making))

    async def _make(
        self, unit: UnitOfWork, entity: MappedEntity, connection: AsyncConnection, making: Making
    ) -> None:
        # ★ Generations known before the commit: a change applied to a generation that was begun after its commit may
        # go over a later change.
        targets = self._acknowledger.rows.targets
        with self._acknowledger.committing():
            try:
                with self._committing(entity):
                    change = await making(connection)
            except BaseException as error:
                unit.has_failed = True
                await self._abandon(unit.transaction, unit, error)
                raise
            if change is not None:
                unit.changes.append(change)
            ending = self._acknowledger.ending(unit.changes, unit.touched, targets=targets)
        await unit.transaction.roll_back()  # nothing is open: the connection is given back
        is_leased = not self._may_look_at_once or await self._acknowledger.rows.are_leased()
        if not is_leased and self._may_look_at_once:
            ending.end()
        else:
            await self._acknowledger.acknowledge(ending)

    @contextlib.contextmanager
    def _committing(self, entity: MappedEntity | None = None) -> Iterator[None]:
        """Inside the block, a statement commits: if the connection breaks, the outcome is not known."""
        try:
            with translated(self._database, entity):
                yield
        except DatabaseBusyError:
            raise  # the server itself says that nothing was changed
        except DatabaseUnavailableError as error:
            raise DatabaseUnavailableError(
                "the connection to the SQL database broke during the commit: the change may be there or not"
            ) from error

    @contextlib.asynccontextmanager
    async def opened(self, context: CommandContext) -> AsyncIterator[UnitOfWork]:
        """Opens a unit of work, which ends with the block: as ``run`` does, but it can't be run again.

        Raises ``ConflictError`` if a concurrent transaction won.
        """
        self._acknowledger.rows.commands += 1
        try:
            transaction = await self._begin(None)
            unit = UnitOfWork(transaction, self, context, outer=_current.get())
            token = _current.set(unit)
            try:
                with translated(self._database):
                    yield unit
                    await unit.finish()
            except BaseException as error:
                await self._conclude(self._abandon(transaction, unit, error))
                raise
            finally:
                _current.reset(token)
            await self._conclude(self._commit(transaction, unit))
        except TransactionConflict as error:
            raise ConflictError(
                "a concurrent transaction changed the same rows; nothing was changed"
            ) from error
        finally:
            self._acknowledger.rows.commands -= 1

    async def _begin(self, kind: Hashable) -> Transaction:
        if not self.effects.are_recent:
            await self.effects.refresh()
        await self._acknowledger.prepare()
        with translated(self._database):
            return await self._database.begin_unit(kind)

    def _record(self, context: CommandContext, kind: Hashable, worked_s: float) -> None:
        self._database.record_duration(kind, worked_s)
        # On SQLite nothing else is written meanwhile, by any process, the keepers' promises included.
        if worked_s > _LONG_S and self._database.has_one_writer:
            _log.warning(
                "command %s held SQLite's only writer for %.1f s: do what takes long before it, or after it",
                *(context.command_id, worked_s),
            )

    async def _commit(self, transaction: Transaction, unit: UnitOfWork) -> None:
        """Commits, and returns when queries see the changes."""
        ending = self._acknowledger.ending(
            unit.changes, unit.rests_on, is_checked_late=unit.is_checked_late, is_whole=unit.is_whole
        )
        try:
            if await self._commit_transaction(transaction):
                ending.end()
                return
        except BaseException as error:
            self._acknowledger.failed(ending)
            await self._vouch(unit, error)
            raise
        if unit.has_looked:
            await self._acknowledger.acknowledge(ending)

    async def _commit_transaction(self, transaction: Transaction) -> bool:
        """Commits. Returns True if no read model had a lease after the commit: there is nothing to wait for."""
        leased = FENCE_STATEMENTS[self._database.name].leased if self._may_look_at_once else None
        with self._committing():
            return await transaction.commit(then_find=leased)

    @property
    def _may_look_at_once(self) -> bool:
        """True if a look at the fence, made with the commit, can take the place of an acknowledgement.

        ★ Not on a database that is not known to be adopted: its leases may be of another clock.
        """
        return self._acknowledger.is_idle and self._database.is_adopted

    async def _abandon(self, transaction: Transaction, unit: UnitOfWork, error: BaseException) -> None:
        """Rolls back, and returns when the handler's error may be raised.

        Raises ``TransactionConflict`` if the error may rest on changes that were not committed in the end.
        """
        await unit.abandon()
        has_come_true = await transaction.roll_back(has_seen=unit.has_looked)
        if not has_come_true and isinstance(error, Exception):
            raise TransactionConflict("it rested on changes that were not committed in the end") from error
        await self._vouch(unit, error)

    async def _vouch(self, unit: UnitOfWork, error: BaseException) -> None:
        """Holds an error back until queries see the changes that the error may rest on.

        ★ "There is one of this name already" may be the work of a command that was killed before it brought its
        change to Redis: told at once, the next query would not find it.
        """
        if unit.has_looked and isinstance(error, Exception) and not isinstance(error, _RESTS_ON_NOTHING):
            await self._acknowledger.acknowledge(self._acknowledger.ending((), unit.rests_on))

    async def _conclude(self, ending: Coroutine[Any, Any, None]) -> None:
        """Runs the ending as a task to its end, even if the caller is cancelled meanwhile (its client went away).

        A commit that is cut off before its publication would leave readers with the state before it.
        """
        task = asyncio.get_running_loop().create_task(ending)
        self._concluding.add(task)
        task.add_done_callback(self._concluding.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_unheard)
            raise

    async def _repeat(
        self, work: Work[R], context: CommandContext, kind: Hashable, ends_with_call: bool
    ) -> R:
        """Makes the attempts after the first."""
        attempts = stamina.retry_context(
            TransactionConflict,
            attempts=MAX_ATTEMPTS - 1,
            timeout=None,
            # Mostly jitter: commands that lost together and came back together would lose together again.
            wait_initial=0.005,
            wait_jitter=0.15,
            wait_max=0.5,
        )
        try:
            async for attempt in attempts:
                with attempt:
                    return await self._attempt(work, context, kind, ends_with_call)
        except TransactionConflict as error:
            raise ConflictError(
                f"concurrent commands changed the same rows on each of {MAX_ATTEMPTS} attempts; nothing was changed"
            ) from error
        raise AssertionError("unreachable: an attempt returns or raises")

    async def settle(self) -> None:
        """Waits until the commands under way are over, and their changes are acknowledged.

        A handler that does not come to its end within ``_PATIENCE_S`` is left to fail.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while self._acknowledger.rows.commands and time.monotonic() < deadline:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(_POLL_S)
        while self._concluding:
            await asyncio.gather(*self._concluding, return_exceptions=True)
        await self._database.settle()


def _log_unheard(task: asyncio.Task[None]) -> None:
    """Logs the failure of a command whose caller has gone."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a command whose caller had gone could not be concluded", exc_info=error)


class UnitOfWork:
    """An open transaction and its changes. Statements of concurrent tasks take turns.

    ``changes`` are the changes made so far, ``touched`` the tables that its statements may depend on,
    ``is_checked_late`` says whether a constraint of these is checked at the commit. The unit ``is_whole`` if its
    transaction has no further entries in the change log than ``changes``: not if it executed statements of the
    application's own, or changed a table with effects. ``outer`` is the unit of work over another database that this
    was begun in.

    ``ends_with_call`` says that nothing comes after the call that is being made, ``only_caller`` is the frame from
    which such a call would come. The unit ``is_concluded`` if that call ends, or has ended, the unit of work;
    ``has_failed`` says that nothing was changed.
    """

    def __init__(
        self,
        transaction: Transaction,
        units: UnitsOfWork,
        context: CommandContext,
        outer: UnitOfWork | None = None,
    ) -> None:
        self.is_whole = True
        self.is_concluded = self.has_failed = False
        self.ends_with_call = False
        self.only_caller: FrameType | None = None
        self._units = units
        self._rests_on_any = False
        self._session: CommandSession | None = None
        self._exits = contextlib.ExitStack()
        self._first = 0
        self.changes: list[Change] = []
        self.touched: set[str] = set()
        self.is_checked_late = False
        self.context = context
        self.database = units.database
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
            self.is_checked_late |= entity.is_checked_late
            try:
                with translated(self.database, entity):
                    connection = await self.transaction.connection()
                    if entity.has_effects and self.is_whole:
                        await self._expect_more(connection)
                    yield connection
            except BaseException:
                # PostgreSQL refuses everything after an error in a transaction, SQLite goes on: we refuse on both,
                # so that a handler that swallows the error can't commit half of its changes.
                self.fail(_FAILED)
                raise

    def expect_call(self, caller: FrameType | None) -> None:
        """Takes note of a call from this frame: if nothing comes after the call, its change can commit by itself."""
        self.ends_with_call = caller is not None and caller is self.only_caller

    async def make(self, entity: MappedEntity, making: Making) -> Change | None:
        """Makes a change; one after which nothing comes commits by itself, where the database can."""
        is_alone = self.ends_with_call and not entity.is_checked_late
        if is_alone and not entity.has_effects and await self._conclude_with(entity, making):
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
            self.is_concluded = True
            self._close()
        await self._units.conclude_with(self, entity, connection, making)
        return True

    async def finish(self) -> None:
        """Closes the unit of work after the running statement, which a task left behind may have begun.

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
                    connection = await self.transaction.connection()
                    await self._open_to_any(connection)
                    yield connection
            except BaseException:
                self.fail(_FAILED)
                raise

    async def session(self, on_commit: OnCommit) -> CommandSession:
        """Returns the session of this attempt at the command, opened at its first use."""
        self.check_usable()
        if self._session is None:
            async with self._turn:
                with translated(self.database):
                    connection = await self.transaction.connection()
                    await self._open_to_any(connection)
                    self._session = await open_session(connection, self, self._turn, self._exits)
        self._session.set_on_commit(on_commit)
        return self._session

    def note(self, entity: MappedEntity, change: Change) -> None:
        """Takes note of a change, which the session shows from now on."""
        self.changes.append(change)
        if self._session is not None:
            self._session.note(entity, change.after, change.image)

    def fail(self, reason: str) -> None:
        """Has everything refused from now on, the commit too."""
        self._unusable = self._unusable or reason

    async def _open_to_any(self, connection: AsyncConnection) -> None:
        """Takes note that statements of the application's own may read and change any row."""
        self._rests_on_any = True
        if self.is_whole:
            await self._expect_more(connection)

    async def _expect_more(self, connection: AsyncConnection) -> None:
        """Prepares for entries of the log that only triggers write: they are to name the command."""
        self.is_whole = False
        self._first = await begin_naming(connection, self.context)

    def check_usable(self) -> None:
        """Raises ``UnitOfWorkError`` if the unit of work is over, or one of its statements has failed."""
        if self._unusable is not None:
            raise UnitOfWorkError(f"this unit of work can't be used: {self._unusable}")

    def _close(self) -> None:
        """Has later statements refused: tasks that the handler left behind may try some."""
        self.fail("its command is over; do not leave tasks behind in a handler")
        self._exits.close()
        if self._session is not None:
            self._session.sync_session.expunge_all()
