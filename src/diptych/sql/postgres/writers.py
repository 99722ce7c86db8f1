"""Connections of PostgreSQL for units of work, of an engine of diptych's own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from diptych.sql.postgres.driver import driver_of, info_of


class KeptConnections:
    """Connections for units of work, passed from unit to unit: a pool takes as long as a statement for that.

    At most ``size`` less one are open at once, so that the pool has one left for others; a waiting unit of work gives
    up after ``timeout_s`` seconds. ``is_outdated`` tells of a driver's connection, and its notes in the pool, whether
    the connection is of no use any more.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        size: int,
        timeout_s: float,
        is_outdated: Callable[[Any, Mapping[Any, Any]], bool],
    ) -> None:
        self.engine = engine
        self._options = engine.get_execution_options()
        self._size = size
        self._timeout_s = timeout_s
        self._is_outdated = is_outdated
        self._kept: list[AsyncConnection] = []
        self._open = 0
        self._waiting: deque[tuple[asyncio.Future[AsyncConnection | None], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def take(self) -> AsyncConnection:
        """Returns the connection used last, without a transaction. Raises the engine's errors."""
        while self._kept:
            connection = self._kept.pop()
            if self._is_usable(connection):
                return connection
            await self._drop(connection)
        if self._open >= max(1, self._size - 1):
            given = await self._wait()
            if given is not None:
                if self._is_usable(given):
                    return given
                await self._drop(given)
        self._open += 1
        try:
            connection = self.engine.connect()
            await connection.start()
        except BaseException:
            self._open -= 1
            self._pass_on(None)
            raise
        return connection

    async def give_back(self, connection: AsyncConnection) -> None:
        """Passes a connection on to a waiting unit of work, or keeps it. An altered connection goes to the pool."""
        sync = cast(sa.Connection, connection.sync_connection)
        is_open = not (sync.closed or sync.invalidated)
        if is_open and sync.in_transaction():
            await connection.rollback()  # the session's of a command that has ended: sends nothing
        if not is_open or sync.get_execution_options() != self._options or self._size == 1:
            await self._drop(connection)
        elif not self._pass_on(connection):
            self._kept.append(connection)

    @property
    def in_use(self) -> int:
        """Number of connections in units of work."""
        return self._open - len(self._kept)

    async def close(self) -> None:
        """Gives all connections to the pool. Safe to call twice."""
        if self._timer is not None and not self._waiting:
            self._timer.cancel()
            self._timer = None
        while self._kept:
            await self._drop(self._kept.pop())

    def _is_usable(self, connection: AsyncConnection) -> bool:
        return not self._is_outdated(driver_of(connection), info_of(connection))

    async def _drop(self, connection: AsyncConnection) -> None:
        try:
            await connection.close()
        finally:
            self._open -= 1
            self._pass_on(None)

    def _pass_on(self, connection: AsyncConnection | None) -> bool:
        """Gives a connection, or room for a new one, to the unit of work waiting longest; False if none waits."""
        while self._waiting:
            waiter, _ = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    async def _wait(self) -> AsyncConnection | None:
        """Waits for a connection, or for room to open a new connection (None)."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[AsyncConnection | None] = loop.create_future()
        self._waiting.append((waiter, loop.time() + self._timeout_s))
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s, self._give_up)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:  # it came too late
                late = waiter.result()
                if late is None:
                    self._pass_on(None)
                else:
                    await self.give_back(late)
            raise

    def _give_up(self) -> None:
        """Fails the callers whose wait is over. One timer is enough: all wait equally long."""
        loop = asyncio.get_running_loop()
        while self._waiting and (self._waiting[0][1] <= loop.time() or self._waiting[0][0].done()):
            waiter, _ = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(PoolTimeoutError("no connection was given back in time"))
        self._timer = loop.call_at(self._waiting[0][1], self._give_up) if self._waiting else None
