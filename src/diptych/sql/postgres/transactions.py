"""Transactions of units of work on PostgreSQL, begun and ended by the driver itself."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Hashable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from diptych.errors import UnitOfWorkError
from diptych.sql.postgres.raw_statements import adapter_of, driver_of, engine_errors, text_of
from diptych.sql.transactions import Transaction


class PostgresTransactions:
    """Each on a connection of its own, at REPEATABLE READ, with its first and its last word said to the driver."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def begin(self, kind: Hashable) -> Transaction:
        connection = self._engine.connect()
        await connection.start()
        return _Pooled(connection)

    def record_duration(self, kind: Hashable, seconds: float) -> None:
        """Nobody waits for another one."""

    async def settle(self) -> None:
        """Each has given it back when it was over."""


_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ"
_COMMIT = "COMMIT"

_NO_ROWS = "SELECT 0"
"""Answer to a select that has found no row."""

# Said, without an error, to the commit of a transaction that has failed. No unit of work comes here with one; it is
# looked at all the same, where it can be seen.
_ROLLED_BACK = "ROLLBACK"


class _Pooled:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._driver, self._adapter = driver_of(connection), adapter_of(connection)
        self._has_begun = False

    async def connection(self) -> AsyncConnection:
        # Begun by its first statement: a handler may do other things before, and now() is when it begins.
        if not self._has_begun:
            self._has_begun = True  # a BEGIN that is cut off may have arrived
            # The engine is told that there are no transactions: else it would begin one, too.
            self._adapter.autocommit = True
            await self._say(_BEGIN)
        return self._connection

    async def commit(self, *, then_find: sa.Select[Any] | None = None) -> bool:
        if not self._has_begun:
            await self.roll_back()
            return False
        try:
            said = await self._say(_COMMIT if then_find is None else _commit_and_find(then_find))
        except BaseException:
            await self.roll_back()
            raise
        self._has_begun = False
        await self.roll_back()
        if said == _ROLLED_BACK:
            raise UnitOfWorkError(
                "PostgreSQL has rolled the transaction back: one of its statements had failed"
            )
        return said == _NO_ROWS

    async def roll_back(self, *, has_seen: bool = True) -> bool:
        # A connection that is already broken has nothing to roll back; the error that broke it is on its way.
        with contextlib.suppress(DBAPIError, OSError):
            try:
                if self._has_begun:
                    await self._say("ROLLBACK")
            except BaseException:
                # What it has begun must not be there for whom it is given to next.
                await self._connection.invalidate()
                raise
            finally:
                self._adapter.autocommit = False
                await self._connection.close()
        return True

    async def _say(self, what: str) -> str:
        with engine_errors(self._driver):
            said: str = await self._driver.execute(what)
        return said


@functools.lru_cache(maxsize=16)
def _commit_and_find(select: sa.Select[Any]) -> str:
    # ★ In a statement after the commit, which has a snapshot of its own: a lease that was promised just before the
    # commit would not be seen in the transaction's.
    return f"{_COMMIT}; {text_of(select)}"
