"""Transactions of units of work on PostgreSQL, begun and ended through the driver itself."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Hashable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from diptych.errors import UnitOfWorkError
from diptych.sql.postgres.driver import adapter_of, driver_of, engine_errors
from diptych.sql.statements.raw import text_of
from diptych.sql.transactions import Transaction


class PostgresTransactions:
    """Transactions at REPEATABLE READ, each on its own connection; ``BEGIN`` and ``COMMIT`` go past the engine."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def begin(self, kind: Hashable) -> Transaction:
        connection = self._engine.connect()
        await connection.start()
        return _Pooled(connection)

    def record_duration(self, kind: Hashable, seconds: float) -> None:
        """Does nothing: no transaction waits for any other."""

    async def settle(self) -> None:
        """Does nothing: each transaction releases its connection at its end."""


_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ"
_COMMIT = "COMMIT"

_NO_ROWS = "SELECT 0"
"""Command tag of a select that found no row."""

_ROLLED_BACK = "ROLLBACK"
"""Command tag, without an error, of the commit of a failed transaction.

No unit of work commits a failed transaction; the tag is checked all the same, where it can be seen.
"""


class _Pooled:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._driver, self._adapter = driver_of(connection), adapter_of(connection)
        self._has_begun = False

    async def connection(self) -> AsyncConnection:
        # The transaction begins at its first statement: a handler may do other things before, and its now() is the
        # time of its beginning.
        if not self._has_begun:
            self._has_begun = True  # a BEGIN that is cut off may have arrived
            # The engine takes the connection for one without transactions: else it would begin a transaction, too.
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
        # A broken connection has nothing to roll back, and its error is on its way.
        with contextlib.suppress(DBAPIError, OSError):
            try:
                if self._has_begun:
                    await self._say("ROLLBACK")
            except BaseException:
                # The next user of the connection must not find this transaction.
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
    # ★ In a statement after the commit, which has a snapshot of its own: the transaction's snapshot would not show a
    # lease promised just before the commit.
    return f"{_COMMIT}; {text_of(select)}"
