"""Read-only transactions of PostgreSQL, begun and ended through the driver itself."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from diptych.sql.database import EngineMoment
from diptych.sql.postgres.driver import EngineErrors, driver_of, fetch_raw, info_of, is_of_altered_table
from diptych.sql.statements import PreparedSelect

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

_MOST_KEPT = 4

_ALTERATIONS = "diptych_alterations"
"""Key of a pooled connection's notes: the number of alterations known when it last forgot its statements."""


class PostgresMoment(EngineMoment):
    """A transaction that has begun. Its snapshot is taken by its first statement."""

    async def fetch(self, select: PreparedSelect, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Returns the rows, past the engine where it has nothing to add."""
        if select.is_direct:
            return await fetch_raw(self.connection, select.raw, values)
        return await super().fetch(select, values)


class Snapshots:
    """Such transactions on the connections of pools.

    A connection notices that a table was altered when one of its own prepared statements fails. The first failure
    has all other connections forget their statements, before they are used again.
    """

    def __init__(self) -> None:
        self._alterations = 0

    @contextlib.asynccontextmanager
    async def open(self, engine: AsyncEngine) -> AsyncIterator[PostgresMoment]:
        """Lends a transaction on a connection of the engine's pool. Raises an engine's errors."""
        async with engine.connect() as connection:
            try:
                await self._forget_former(connection)
                await _say(connection, _BEGIN)
                yield PostgresMoment(connection)
                await _say(connection, "COMMIT")
            except BaseException as error:
                if _is_of_altered_table(error):
                    self._alterations += 1
                is_clean = False
                try:
                    is_clean = isinstance(error, Exception) and await _is_rolled_back(connection)
                finally:
                    # Also if this task is cancelled meanwhile: the next user of the connection would read what was
                    # there when this transaction began.
                    if not is_clean:
                        with contextlib.suppress(SQLAlchemyError, OSError):
                            await connection.invalidate()
                raise

    async def _forget_former(self, connection: AsyncConnection) -> None:
        info = info_of(connection)
        if info.setdefault(_ALTERATIONS, self._alterations) != self._alterations:
            await driver_of(connection).reload_schema_state()
            info[_ALTERATIONS] = self._alterations


class PostgresMoments:
    """Connections kept for such transactions of a few short statements each; opened when they are needed."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._kept: list[AsyncConnection] = []
        self._outdated: list[AsyncConnection] = []

    def expire(self) -> None:
        """Has new connections opened from now on: the address leads to a different server by now."""
        self._outdated += self._kept
        self._kept = []

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[PostgresMoment]:
        """Lends a transaction. Raises an engine's errors."""
        # Another list, once they have expired: maybe while this one begins its transaction.
        kept = self._kept
        connection = await self._begun()
        try:
            yield PostgresMoment(connection)
            # Waited for: whoever blocks the event loop then, for a lock on the table, would wait for ever.
            await _say(connection, "COMMIT")
        except BaseException:  # the state of the connection is not known
            await _drop(connection)
            raise
        if kept is self._kept and len(kept) < _MOST_KEPT:
            kept.append(connection)
        else:
            await _drop(connection)

    async def close(self) -> None:
        """Closes the connections that nobody uses. Safe to call twice."""
        self.expire()
        await self._drop_outdated()

    async def _drop_outdated(self) -> None:
        while self._outdated:
            await _drop(self._outdated.pop())

    async def _begun(self) -> AsyncConnection:
        """Returns a connection with a transaction; one that was kept may be broken by now."""
        await self._drop_outdated()
        while self._kept:
            connection = self._kept.pop()
            try:
                await _say(connection, _BEGIN)
                return connection
            except BaseException as error:
                await _drop(connection)
                if not isinstance(error, Exception):
                    raise
        connection = await self._engine.connect()
        try:
            # The statements are always the same, and short: to plan one anew takes longer than to execute it.
            await _say(connection, "SET plan_cache_mode = force_generic_plan")
            await _say(connection, _BEGIN)
        except BaseException:
            await _drop(connection)
            raise
        return connection


def _is_of_altered_table(error: BaseException | None) -> bool:
    """Returns whether this is the cause of an error, which may have been translated."""
    while error is not None and not isinstance(error, DBAPIError):
        error = error.__cause__
    return error is not None and is_of_altered_table(error)


async def _say(connection: AsyncConnection, what: str) -> None:
    driver = driver_of(connection)
    with EngineErrors(driver):
        await driver.execute(what)


async def _is_rolled_back(connection: AsyncConnection) -> bool:
    try:
        await _say(connection, "ROLLBACK")
    except (SQLAlchemyError, OSError):
        return False
    return True


async def _drop(connection: AsyncConnection) -> None:
    with contextlib.suppress(SQLAlchemyError, OSError):
        await connection.invalidate()
    with contextlib.suppress(SQLAlchemyError, OSError):
        await connection.close()
