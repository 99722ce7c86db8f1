"""SQLite's single writer: commands run in their order; commands waiting at the same time share a transaction.

Most of a change's time is its commit, which waits for the disk. So a finished command leaves the transaction open if
a command known to be quick is waiting already. Each command has a savepoint of its own, so that a failure undoes no
other command, and each is told its outcome after the common commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from diptych.aio.priority_lock import PriorityLock
from diptych.errors import DatabaseBusyError
from diptych.sql.database import NO_SETTINGS
from diptych.sql.sqlite.connection import SqliteConnection, sqlite_under

_QUICK_S = 0.01
"""Longest time of a quick command, in seconds."""

_QUICK_RUNS = 8
"""Number of quick commands of a kind in succession, before the next command of the kind may join a transaction.

The finished commands wait for a command that joins, whose handler is the application's code and may wait for
anything.
"""

_MOST = 64
"""Greatest number of commands in a transaction."""


class Undone(sqlite3.OperationalError):
    """Raised when SQLite undid a whole transaction because of an error of a different command in the transaction."""


class SqliteTransactions:
    """The transactions of a process, in their order, each under the ``write_lock``.

    A command that can't begin within ``timeout_s`` because of other commands fails with ``DatabaseBusyError``.
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
        if member in self._waiting:  # not if it waits for the file, where SQLite gives up
            member.refuse(
                DatabaseBusyError(
                    "other commands held SQLite's only writer for longer than DATABASE_TIMEOUT_MS"
                )
            )

    async def _run(self) -> None:
        while self._next() is not None:
            with contextlib.suppress(TimeoutError):  # waiting commands give up one by one
                async with self._write_lock.take():
                    if self._next() is not None:
                        await self._share(self._waiting.popleft())
            # The commands that have ended go on before the next command locks the file: should this process be
            # stopped while they bring their changes to Redis, other processes could not even renew a lease.
            await asyncio.sleep(0)

    def _next(self) -> _Member | None:
        """Returns the command waiting for longest, if any; drops commands given up."""
        while self._waiting and self._waiting[0].admitted.done():
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None

    async def _share(self, first: _Member) -> None:
        """Runs a transaction of the first command, and of further commands able to join."""
        try:
            connection, sqlite = await self._open()
        except Exception as error:
            first.refuse(error)
            return
        members: list[_Member] = []
        try:
            await self._let_in(connection, sqlite, first, members)
            if any(member.stays for member in members):
                await connection.commit()
            outcome: BaseException | None = None
        except BaseException as raised:
            outcome = raised
            if not isinstance(raised, Exception):
                raise
        finally:
            # The connection is released first: no other connection writes, and the commands that are told their
            # outcome may take long. A broken connection has nothing to roll back, and its error is on its way.
            with contextlib.suppress(DBAPIError, OSError):
                await connection.close()
            for member in members:
                member.tell(outcome)

    async def _open(self) -> tuple[AsyncConnection, SqliteConnection]:
        connection = self._engine.connect()
        await connection.start()
        try:
            await connection.begin()
            sqlite = cast(SqliteConnection, sqlite_under(connection))
            sqlite.refresh_schema()
        except BaseException:
            await connection.close()
            raise
        return connection, sqlite

    async def _let_in(
        self, connection: AsyncConnection, sqlite: SqliteConnection, first: _Member, members: list[_Member]
    ) -> None:
        """Lets in the first command, then each further command able to join, and waits for the end of each."""
        member: _Member | None = first
        while member is not None:
            joins = member.has_joined = bool(members)
            if joins:
                sqlite.fetch_here("SAVEPOINT command")
            if member.let_in(connection):
                members.append(member)
                await member.over
            if not sqlite.in_transaction:
                raise OperationalError(None, None, Undone())
            if joins:
                if not member.stays:
                    # In the thread, since there may be much to undo.
                    await connection.exec_driver_sql("ROLLBACK TO command")
                    # ★ Else it is told together with the commands before it: its error may rest on their changes, and
                    # a caller that got the error before their commit would not find these changes.
                    if not member.rests_on_others:
                        member.tell(None)
                sqlite.fetch_here("RELEASE command")
            elif not member.stays:
                return  # its changes are undone with the transaction
            member = self._joining(sqlite, len(members))

    def _joining(self, sqlite: SqliteConnection, number: int) -> _Member | None:
        # Keepers go first: a keeper that waits holds up the commands of every process.
        if number >= _MOST or self._write_lock.is_wanted_first or sqlite.schema.has_shared_ends:
            return None
        following = self._next()
        if following is None or self._quick_runs.get(following.kind, 0) < _QUICK_RUNS:
            return None
        return self._waiting.popleft()


class _Member:
    """A command's part of a shared transaction: the ``Transaction`` of its unit of work."""

    _connection: AsyncConnection

    def __init__(self, kind: Hashable) -> None:
        loop = asyncio.get_running_loop()
        self.kind = kind
        self.stays = self.has_joined = self.rests_on_others = False
        self.admitted: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self._told: asyncio.Future[BaseException | None] = loop.create_future()

    async def outside(self) -> AsyncConnection | None:
        return None

    async def connection(self, settings: Mapping[str, str] = NO_SETTINGS) -> AsyncConnection:
        return self._connection

    async def commit(self, *, then_find: sa.Select[Any] | None = None) -> bool:
        self._leave(stays=True)
        error = await self._told
        if error is not None:
            raise error
        return False  # reading the fence takes no way to a server here

    async def roll_back(self, *, has_seen: bool = True) -> bool:
        self.rests_on_others = self.has_joined and has_seen
        self._leave(stays=False)
        return await self._told is None or not self.rests_on_others

    def let_in(self, connection: AsyncConnection) -> bool:
        """Lets the command begin; returns False if the command has given up meanwhile."""
        if self.admitted.done():
            return False
        self._connection = connection
        self.admitted.set_result(None)
        return True

    def refuse(self, error: Exception) -> None:
        if not self.admitted.done():
            self.admitted.set_exception(error)

    def withdraw(self) -> None:
        """Leaves the transaction, for a cancelled caller, if the command was let in at the same moment."""
        if not self.admitted.cancelled() and self.admitted.exception() is None:
            self._leave(stays=False)

    def tell(self, error: BaseException | None) -> None:
        """Tells the command the outcome of the transaction. Only the first call counts."""
        if not self._told.done():
            self._told.set_result(error)

    def _leave(self, *, stays: bool) -> None:
        self.stays = stays
        self.over.set_result(None)
