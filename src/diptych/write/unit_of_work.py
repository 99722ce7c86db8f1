"""One command, one transaction: begun before its handler, committed after it, published to readers, or gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextvars import ContextVar
from typing import Any, TypeVar

import stamina
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import ConflictError, DatabaseUnavailableError, UnavailableError, UnitOfWorkError
from diptych.fence.acknowledge import Acknowledger
from diptych.fence.statements import FENCE_STATEMENTS
from diptych.log.change import Change, CommandContext
from diptych.sql.database import Database
from diptych.sql.failures import TransactionConflict, translated
from diptych.sql.mapped.entity import MappedEntity
from diptych.sql.transactions import Transaction

R = TypeVar("R")

_log = logging.getLogger("diptych.write")

_LONG_S = 0.5
_AT_ONCE_S = 0.002
_PATIENCE_S = 15.0
_POLL_S = 0.01

MAX_ATTEMPTS = 10
"""How often a command is run again that lost against concurrent ones (PostgreSQL's 40001 and 40P01)."""


class UnitOfWork:
    """An open transaction with the changes made in it. Statements of concurrent tasks take turns."""

    def __init__(
        self,
        transaction: Transaction,
        database: Database,
        context: CommandContext,
        outer: UnitOfWork | None = None,
    ) -> None:
        self.changes: list[Change] = []
        self.touched: set[str] = set()
        self.is_checked_late = False
        self.context = context
        self.database = database
        self.outer = outer
        self._transaction = transaction
        self._turn = asyncio.Lock()
        self._goes_on = time.perf_counter()
        self._unusable: str | None = None

    @contextlib.asynccontextmanager
    async def statement(self, entity: MappedEntity) -> AsyncIterator[AsyncConnection]:
        """The connection, for one task at a time. An error inside it ends the unit of work: it can't commit."""
        if self.database.is_in_process and time.perf_counter() - self._goes_on > _AT_ONCE_S:
            # Where the database is in this process, a short statement waits for nothing: a handler with many of them
            # would hold up everything else in the event loop.
            await asyncio.sleep(0)
            self._goes_on = time.perf_counter()
        async with self._turn:
            self.check_usable()
            self.touched |= entity.related_tables
            self.is_checked_late |= entity.is_checked_late
            try:
                with translated(self.database, entity):
                    yield await self._transaction.connection()
            except BaseException:
                # PostgreSQL refuses everything after an error in a transaction, SQLite goes on: we refuse on both,
                # so that a handler that swallows the error can't commit half of its changes.
                self._unusable = "one of its statements failed: let the error leave the handler"
                raise

    def check_usable(self) -> None:
        if self._unusable is not None:
            raise UnitOfWorkError(f"this unit of work can't be used: {self._unusable}")

    def close(self) -> None:
        """From here on tasks that the handler left behind are refused."""
        self._unusable = self._unusable or "its command is over; do not leave tasks behind in a handler"

    async def finish(self) -> None:
        """Closes it once the statement that is running is done, which a task left behind may have begun.

        Ending the transaction in the midst of it could keep a change without its row in the log. Raises
        ``UnitOfWorkError`` if a statement has failed.
        """
        async with self._turn:
            self.check_usable()
            self.close()

    async def abandon(self) -> None:
        """Closes it at once, and waits for the statement that is running."""
        self.close()
        async with self._turn:
            pass


_RESTS_ON_NOTHING = (TransactionConflict, UnavailableError)
"""Errors that tell nothing of any row: of these the caller hears at once."""

_current: ContextVar[UnitOfWork | None] = ContextVar("diptych_unit_of_work", default=None)


def current_unit_of_work(database: Database) -> UnitOfWork | None:
    """The unit of work over this database that this task is inside of; those over others are none of its own."""
    unit = _current.get()
    while unit is not None and unit.database is not database:
        unit = unit.outer
    return unit


def new_context(correlation_id: str | None = None, actor: str | None = None) -> CommandContext:
    """A context with a fresh command id."""
    return CommandContext(command_id=str(uuid.uuid4()), correlation_id=correlation_id, actor=actor)


def _log_unheard(task: asyncio.Task[None]) -> None:
    """A failure that nobody waits for any more is at least told to the log."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a command whose caller had gone could not be concluded", exc_info=error)


class UnitsOfWork:
    """Runs pieces of work, each in a transaction of its own, and waits at the end for those still committing."""

    def __init__(self, database: Database, acknowledger: Acknowledger) -> None:
        self._database = database
        self._acknowledger = acknowledger
        self._concluding: set[asyncio.Task[None]] = set()

    async def run(
        self,
        work: Callable[[UnitOfWork], Awaitable[R]],
        context: CommandContext,
        kind: Hashable = None,
    ) -> R:
        """Awaits ``work(unit)`` in a transaction and returns its result once that is committed and acknowledged.

        Whatever ``work`` raises leaves nothing behind. Inside another unit of work it joins that one. It is run
        again, from the start, if a concurrent transaction won; ``ConflictError`` after ``MAX_ATTEMPTS``. Work of the
        same ``kind`` takes about the same time.
        """
        joined = current_unit_of_work(self._database)
        if joined is not None:
            return await work(joined)
        self._acknowledger.commands += 1
        try:
            return await self._attempt(work, context, kind)
        except TransactionConflict:
            return await self._repeat(work, context, kind)
        finally:
            self._acknowledger.commands -= 1

    async def close(self) -> None:
        """Waits until the commands that have begun are over, and all they committed is acknowledged.

        A handler that does not come to its end within ``_PATIENCE_S`` is left to fail.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while self._acknowledger.commands and time.monotonic() < deadline:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(_POLL_S)
        while self._concluding:
            await asyncio.gather(*self._concluding, return_exceptions=True)
        await self._database.transactions.settle()

    async def _repeat(
        self, work: Callable[[UnitOfWork], Awaitable[R]], context: CommandContext, kind: Hashable
    ) -> R:
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
                    return await self._attempt(work, context, kind)
        except TransactionConflict as error:
            raise ConflictError(
                f"concurrent commands changed the same rows on each of {MAX_ATTEMPTS} attempts; nothing was changed"
            ) from error
        raise AssertionError("unreachable: an attempt returns or raises")

    async def _attempt(
        self, work: Callable[[UnitOfWork], Awaitable[R]], context: CommandContext, kind: Hashable
    ) -> R:
        transaction = await self._begin(kind)
        unit = UnitOfWork(transaction, self._database, context, outer=_current.get())
        token = _current.set(unit)
        began = time.monotonic()
        try:
            result = await work(unit)
            await unit.finish()
        except BaseException as error:
            await self._conclude(self._abandon(transaction, unit, error))
            raise
        finally:
            _current.reset(token)
        worked_s = time.monotonic() - began
        self._database.transactions.record_duration(kind, worked_s)
        if self._database.has_one_writer:
            _warn_if_long(context, worked_s)
        await self._conclude(self._commit(transaction, unit))
        return result

    async def _begin(self, kind: Hashable) -> Transaction:
        await self._acknowledger.prepare()
        with translated(self._database):
            return await self._database.transactions.begin(kind)

    async def _conclude(self, ending: Any) -> None:
        """Runs the ending to its end, even if the caller is cancelled meanwhile (its client went away).

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

    async def _abandon(self, transaction: Transaction, unit: UnitOfWork, error: BaseException) -> None:
        await unit.abandon()
        has_come_true = await transaction.roll_back(has_seen=bool(unit.touched))
        if isinstance(error, Exception):
            if not has_come_true:
                raise TransactionConflict(
                    "it rested on changes that were not committed in the end"
                ) from error
            await self._vouch(unit, error)

    async def _commit(self, transaction: Transaction, unit: UnitOfWork) -> None:
        ending = self._acknowledger.ending(unit.changes, unit.touched, is_checked_late=unit.is_checked_late)
        try:
            if await self._commit_transaction(transaction):
                ending.end()
                return
        except BaseException as error:
            self._acknowledger.failed(ending)
            await self._vouch(unit, error)
            raise
        if unit.touched:
            await self._acknowledger.acknowledge(ending)

    async def _vouch(self, unit: UnitOfWork, error: BaseException) -> None:
        """Holds an error back until queries see what it rests on.

        ★ "There is one of this name already" may be the work of a command that was killed before it brought its
        change to Redis: told at once, the next query would not find it.
        """
        if unit.touched and isinstance(error, Exception) and not isinstance(error, _RESTS_ON_NOTHING):
            await self._acknowledger.acknowledge(self._acknowledger.ending((), unit.touched))

    @property
    def _may_look_at_once(self) -> bool:
        """Whether a look at the fence, made with the commit, can take the place of an acknowledgement.

        ★ Not on a database that is not known to be adopted: its leases may be of another clock.
        """
        return self._acknowledger.is_idle and self._database.is_adopted

    async def _commit_transaction(self, transaction: Transaction) -> bool:
        """Whether it is known already that nobody can be answered without it."""
        try:
            with translated(self._database):
                leased = FENCE_STATEMENTS[self._database.name].leased if self._may_look_at_once else None
                return await transaction.commit(then_find=leased)
        except DatabaseUnavailableError as error:
            raise DatabaseUnavailableError(
                "the connection to the SQL database broke during the commit: the change may be there or not"
            ) from error


def _warn_if_long(context: CommandContext, worked_s: float) -> None:
    """On SQLite nothing else is written meanwhile, by any process, the keepers' promises included."""
    if worked_s > _LONG_S:
        _log.warning(
            "command %s held SQLite's only writer for %.1f s: do what takes long before it, or after it",
            *(context.command_id, worked_s),
        )
