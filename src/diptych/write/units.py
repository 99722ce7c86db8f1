"""Commands as transactions: begun, handled, finished, committed and acknowledged; or rolled back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable, Iterator
from typing import Any, TypeAlias, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.aio.bursts import LoggedBurst
from diptych.errors import ConflictError, DatabaseBusyError, DatabaseUnavailableError, UnavailableError
from diptych.fence.acknowledge import Acknowledger
from diptych.fence.statements import FENCE_STATEMENTS
from diptych.log import Change, CommandContext
from diptych.sql.database import Database, Transaction
from diptych.sql.entity import MappedEntity
from diptych.sql.failures import TransactionConflict, translated, words_of
from diptych.write.changes import Making
from diptych.write.effects import Effects
from diptych.write.unit_of_work import CURRENT, UnitOfWork, current_unit_of_work

R = TypeVar("R")
Work: TypeAlias = Callable[[UnitOfWork], Awaitable[R]]

_log = logging.getLogger("diptych.write")

MAX_ATTEMPTS = 10
"""Highest number of runs of a command that loses against concurrent commands (PostgreSQL's 40001 and 40P01)."""

_PAUSE_S, _SPREAD_S, _LONGEST_PAUSE_S = 0.0025, 0.15, 0.5
"""Pauses between the runs: the first, doubled from run to run; what chance adds; and the longest, in seconds."""

_LONG_S = 0.5
"""Duration from which a command that holds SQLite's only writer is logged, in seconds."""

_PATIENCE_S = 15.0
"""Time that handlers under way have to come to their end at a stop, in seconds."""

_POLL_S = 0.01
"""Interval between looks at whether the handlers under way are over, in seconds."""

_RESTS_ON_NOTHING = (TransactionConflict, UnavailableError)
"""Errors that tell nothing of any row, and so are raised at once."""


class UnitsOfWork:
    """Runs pieces of work, each in a transaction of its own, acknowledged after the commit."""

    def __init__(self, database: Database, acknowledger: Acknowledger, effects: Effects) -> None:
        self.effects = effects
        self._database = database
        self._acknowledger = acknowledger
        self._concluding: set[asyncio.Task[None]] = set()
        self._conflicts = LoggedBurst(
            _log, logging.INFO, "%d attempts of commands lost to others within %.1f s, and were made again"
        )

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
        unit = UnitOfWork(transaction, self._database, context, self._conclude_with, outer=CURRENT.get())
        token = CURRENT.set(unit)
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
            CURRENT.reset(token)
        self._record(context, kind, time.monotonic() - began)
        if not unit.is_concluded:
            await self._conclude(self._commit(transaction, unit))
        return result

    async def _conclude_with(
        self, unit: UnitOfWork, entity: MappedEntity, connection: AsyncConnection, making: Making
    ) -> None:
        """Makes the only change of a unit of work by a self-committing statement, and acknowledges the change.

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
                change = await self._commit_by_itself(entity, connection, making)
            except BaseException as error:
                unit.has_failed = True
                await self._abandon(unit.transaction, unit, error)
                raise
            if change is not None:
                unit.note(entity, change)
            ending = self._acknowledger.ending(
                unit.changes, unit.touched, looks_late=unit.looks_late, targets=targets
            )
        await unit.transaction.roll_back()  # nothing is open: the connection is given back
        # A look at the fence is cheaper than a sight, and is shared with other commands too.
        if self._may_look_at_once and not await self._acknowledger.rows.are_leased():
            ending.end()
        else:
            await self._acknowledger.acknowledge(ending)

    async def _commit_by_itself(
        self, entity: MappedEntity, connection: AsyncConnection, making: Making
    ) -> Change | None:
        with self._committing(entity):
            return await making(connection)

    @contextlib.contextmanager
    def _committing(self, entity: MappedEntity | None = None, *, then_reads: bool = False) -> Iterator[None]:
        """Inside the block, a statement commits: if the connection breaks, the outcome is not known.

        ``then_reads`` says that another statement is sent with it.
        """
        try:
            with translated(self._database, entity):
                yield
        except (DatabaseBusyError, DBAPIError) as error:
            # ★ Both statements' errors are alike: the one may have committed when the other ran into a time-out.
            # Without another statement the server itself says that nothing was changed.
            if not then_reads or not self._may_be_of_look(error):
                raise
            words = words_of(error) if isinstance(error, DBAPIError) else error
            raise DatabaseUnavailableError(
                f"the change may be there or not: COMMIT, or the question sent with it, has failed: {words}",
                may_be_done=True,
            ) from error
        except DatabaseUnavailableError as error:
            raise DatabaseUnavailableError(
                "the connection to the SQL database broke during the commit: the change may be there or not",
                may_be_done=True,
            ) from error

    def _may_be_of_look(self, error: DatabaseBusyError | DBAPIError) -> bool:
        # A table that is missing, or rights on it: a deferred trigger may say anything else at the commit.
        return isinstance(error, DatabaseBusyError) or self._database.failure_of(error) in (
            "schema",
            "denied",
        )

    @contextlib.asynccontextmanager
    async def opened(self, context: CommandContext) -> AsyncIterator[UnitOfWork]:
        """Opens a unit of work, ended by the block: as by ``run``, but for a single attempt.

        Raises ``ConflictError`` if a concurrent transaction won.
        """
        self._acknowledger.rows.commands += 1
        try:
            transaction = await self._begin(None)
            unit = UnitOfWork(transaction, self._database, context, self._conclude_with, outer=CURRENT.get())
            token = CURRENT.set(unit)
            try:
                with translated(self._database):
                    yield unit
                    await unit.finish()
            except BaseException as error:
                await self._conclude(self._abandon(transaction, unit, error))
                raise
            finally:
                CURRENT.reset(token)
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
            unit.changes, unit.rests_on, looks_late=unit.looks_late, is_whole=unit.is_whole
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
        # In process a look of its own costs as little.
        looks = self._may_look_at_once and not self._database.is_in_process
        leased = FENCE_STATEMENTS[self._database.name].leased if looks else None
        with self._committing(then_reads=looks):
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
        """Holds an error back until queries see the changes under the error.

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
        for number in range(1, MAX_ATTEMPTS):
            self._conflicts.note()
            try:
                return await self._attempt(work, context, kind, ends_with_call)
            except TransactionConflict as error:
                conflict = error
            # Mostly chance: commands that lost together and came back together would lose together again.
            pause_s = _PAUSE_S * 2**number + random.uniform(0, _SPREAD_S)  # noqa: S311
            await asyncio.sleep(min(pause_s, _LONGEST_PAUSE_S))
        raise ConflictError(
            f"concurrent commands changed the same rows on each of {MAX_ATTEMPTS} attempts; nothing was changed"
        ) from conflict

    async def settle(self) -> None:
        """Waits until the commands under way are over, and their changes are acknowledged.

        A handler that does not come to its end within ``_PATIENCE_S`` is left to fail.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while self._acknowledger.rows.commands and time.monotonic() < deadline:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(_POLL_S)
        while self._concluding:
            await asyncio.gather(*self._concluding, return_exceptions=True)
        self._conflicts.tell()
        await self._database.settle()


def _log_unheard(task: asyncio.Task[None]) -> None:
    """Logs the failure of a command whose caller has gone."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a command whose caller had gone could not be concluded", exc_info=error)
