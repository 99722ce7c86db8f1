"""Transactions for units of work: how they are begun, and how they end."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class Transaction(Protocol):
    """One that has begun. It is over with ``commit`` or ``roll_back``, which give back what it held."""

    connection: AsyncConnection

    async def commit(self) -> None:
        """Returns when it will outlast everything. If it raises, nothing was changed, or that is not known."""

    async def roll_back(self) -> None:
        """Returns when nothing is left of it."""


class Transactions(Protocol):
    """Begins transactions."""

    async def begin(self, kind: Hashable) -> Transaction:
        """Begins one, for a command of this ``kind``. Raises ``DatabaseBusyError``, and what the driver raises."""

    def took(self, kind: Hashable, seconds: float) -> None:
        """Tells how long a command of this kind has worked in its transaction; None is no kind."""

    async def settle(self) -> None:
        """Returns when what the transactions so far have held is given back."""


class PooledTransactions:
    """Each on a connection of its own."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def begin(self, kind: Hashable) -> Transaction:
        connection = self._engine.connect()
        await connection.start()
        return _Pooled(connection)  # it begins with the first statement, by itself

    def took(self, kind: Hashable, seconds: float) -> None:
        """Nobody waits for another one."""

    async def settle(self) -> None:
        """Each has given it back when it was over."""


class _Pooled:
    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def commit(self) -> None:
        try:
            await self.connection.run_sync(_commit_and_close)
        except BaseException:
            await self.roll_back()
            raise

    async def roll_back(self) -> None:
        # A connection that is already broken has nothing to roll back; the error that broke it is on its way.
        with contextlib.suppress(DBAPIError, OSError):
            await self.connection.close()


def _commit_and_close(connection: sa.Connection) -> None:
    connection.commit()
    connection.close()
