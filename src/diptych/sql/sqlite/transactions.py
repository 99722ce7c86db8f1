"""SQLite's one writer: commands one after the other, and those that wait at the same time in one transaction.

What a change costs is its commit, which waits for the disk. So a command that is over leaves the transaction open if
another one waits already that is known to be quick. Each is in it under a savepoint of its own, so that one that
fails takes nobody with it; and each is over when the one commit is.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Hashable
from typing import Any, NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from diptych.aio.priority_lock import PriorityLock
from diptych.errors import DatabaseBusyError
from diptych.sql.sqlite.connection import SqliteConnection, sqlite_under

_QUICK_S = 0.01
_QUICK_RUNS = 8
"""How many commands of a kind must have been quick, one after the other, before the next one may join others.

Those that are over wait for it, and its handler is the application's code: it may wait for anything.
"""

_MOST = 64
"""How many commands share a commit at most."""


class Undone(sqlite3.OperationalError):
    """All of a transaction was undone by SQLite at the error of another command in it."""


class SqliteTransactions:
    """Runs the transactions of a process one after the other, each in one of its ``write_lock`` to write.

    One that can't begin within ``timeout_s`` because of other commands is given up with ``DatabaseBusyError``.
    """

    def __init__(self, engine: AsyncEngine, write_lock: PriorityLock, timeout_s: float) -> None:
        self._engine = engine
        self._write_lock = write_lock
        self._timeout_s = timeout_s
        self._waiting: deque[_Member] = deque()
        self._runner: asyncio.Task[None] | None = None
        self._quick_runs: dict[Hashable, int] = {}

    async def begin(self, kind: Hashable) -> _Member:
        loop = asyncio.get_running_loop()
        member = _Member(kind)
        self._waiting.append(member)
        if self._runner is None or self._runner.done():
            self._runner = loop.create_task(self._run())
        giving_up = loop.call_later(self._timeout_s, self._give_up, member)
        try:
            await member.admitted
        except asyncio.CancelledError:
            member.withdraw()
            raise
        finally:
            giving_up.cancel()
        return member

    def record_duration(self, kind: Hashable, seconds: float) -> None:
        if kind is not None:
            self._quick_runs[kind] = self._quick_runs.get(kind, 0) + 1 if seconds < _QUICK_S else 0

    async def settle(self) -> None:
        if self._runner is not None and not self._runner.done():
            await asyncio.wait([self._runner])

    def _give_up(self, member: _Member) -> None:
        if member in self._waiting:  # not when it waits for the file: SQLite tells that
            member.refuse(
                DatabaseBusyError(
                    "other commands held SQLite's only writer for longer than DATABASE_TIMEOUT_MS"
                )
            )

    async def _run(self) -> None:
        while self._next() is not None:
            with contextlib.suppress(TimeoutError):  # those who wait give up one by one
                async with self._write_lock.take():
                    if self._next() is not None:
                        await self._share(self._waiting.popleft())
            # Those who were told go on before the next one locks the file: should this process be stopped just when
            # they bring their changes to Redis, the others could not even renew a lease.
            await asyncio.sleep(0)

    def _next(self) -> _Member | None:
        """The one that waits for longest; those that have given up are dropped."""
        while self._waiting and self._waiting[0].admitted.done():
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None

    async def _share(self, first: _Member) -> None:
        """One transaction: of the first one, and of others as long as they can join."""
        try:
            opened = await self._open()
        except Exception as error:
            first.refuse(error)
            return
        members: list[_Member] = []
        try:
            await self._let_in(opened, first, members)
            if any(member.stays for member in members):
                await opened.connection.commit()
            outcome: BaseException | None = None
        except BaseException as raised:
            outcome = raised
            if not isinstance(raised, Exception):
                raise
        finally:
            # Given back before the rest: it is the only one that writes, and what is told may take its time.
            # If it is broken it has nothing to roll back, and the error that broke it is on its way.
            with contextlib.suppress(DBAPIError, OSError):
                await opened.connection.close()
            for member in members:
                member.tell(outcome)

    async def _open(self) -> _Opened:
        connection = self._engine.connect()
        await connection.start()
        try:
            await connection.begin()
            sqlite = cast(SqliteConnection, sqlite_under(connection))
            sqlite.look_at_schema()
        except BaseException:
            await connection.close()
            raise
        return _Opened(connection, sqlite)

    async def _let_in(self, opened: _Opened, first: _Member, members: list[_Member]) -> None:
        """One after the other, as long as there is another one that can join those before it."""
        member: _Member | None = first
        while member is not None:
            joins = member.has_joined = bool(members)
            if joins:
                opened.sqlite.execute_here("SAVEPOINT command")
            if member.let_in(opened.connection):
                members.append(member)
                await member.over
            if not opened.sqlite.in_transaction:
                raise OperationalError(None, None, Undone())
            if joins:
                if not member.stays:
                    # In the thread: there may be much to undo.
                    await opened.connection.exec_driver_sql("ROLLBACK TO command")
                    # ★ Else it is told with the others: its error may rest on what they have changed, and whoever
                    # heard it before their commit would not find that.
                    if not member.rests_on_others:
                        member.tell(None)
                opened.sqlite.execute_here("RELEASE command")
            elif not member.stays:
                return  # what it has changed goes with the transaction
            member = self._joining(opened, len(members))

    def _joining(self, opened: _Opened, number: int) -> _Member | None:
        # Keepers go first: while they wait they hold up the commands of every process.
        if number >= _MOST or self._write_lock.is_wanted_first or opened.sqlite.schema.has_shared_ends:
            return None
        following = self._next()
        if following is None or self._quick_runs.get(following.kind, 0) < _QUICK_RUNS:
            return None
        return self._waiting.popleft()


class _Opened(NamedTuple):
    connection: AsyncConnection
    sqlite: SqliteConnection


class _Member:
    """A command's part of a transaction: a ``Transaction``, as its unit of work sees it."""

    _connection: AsyncConnection

    def __init__(self, kind: Hashable) -> None:
        loop = asyncio.get_running_loop()
        self.kind = kind
        self.stays = self.has_joined = self.rests_on_others = False
        self.admitted: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self._told: asyncio.Future[BaseException | None] = loop.create_future()

    async def connection(self) -> AsyncConnection:
        return self._connection

    async def commit(self, *, then_find: sa.Select[Any] | None = None) -> bool:
        self._leave(stays=True)
        error = await self._told
        if error is not None:
            raise error
        return False  # where the fence is in this process, it is no way to look at it

    async def roll_back(self, *, has_seen: bool = True) -> bool:
        self.rests_on_others = self.has_joined and has_seen
        self._leave(stays=False)
        return await self._told is None or not self.rests_on_others

    def let_in(self, connection: AsyncConnection) -> bool:
        """False if it has given up meanwhile."""
        if self.admitted.done():
            return False
        self._connection = connection
        self.admitted.set_result(None)
        return True

    def refuse(self, error: Exception) -> None:
        if not self.admitted.done():
            self.admitted.set_exception(error)

    def withdraw(self) -> None:
        """Its caller was cancelled, perhaps in the moment in which it was let in."""
        if not self.admitted.cancelled() and self.admitted.exception() is None:
            self._leave(stays=False)

    def tell(self, error: BaseException | None) -> None:
        """What has come of the transaction. Only the first time counts."""
        if not self._told.done():
            self._told.set_result(error)

    def _leave(self, *, stays: bool) -> None:
        self.stays = stays
        self.over.set_result(None)
