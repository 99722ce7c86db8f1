"""Statements that are sent to PostgreSQL's driver directly.

What an engine does beside for each statement (its context, its cursor, its result) takes more time than the driver
does, and every command has two that are always the same: the insert into the log, and the read of the fence.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_DIALECT = postgresql.asyncpg.dialect()  # type: ignore[no-untyped-call]


class DirectStatement:
    """A statement of which the driver has all types itself, with parameters of these ``names``."""

    def __init__(self, statement: Any, names: Sequence[str] = ()) -> None:
        self._statement = statement
        self._names = names

    async def fetch(self, driver: Any, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Its rows. Raises what asyncpg does."""
        text, names = self._compiled
        return cast(
            "Sequence[Sequence[Any]]",
            await driver.fetch(text, *[values[name] for name in names]),
        )

    async def fetch_within(
        self, connection: AsyncConnection, values: Mapping[str, Any]
    ) -> Sequence[Sequence[Any]]:
        """Its rows, in the transaction that has begun on this connection. Raises what its engine does."""
        driver = driver_of(connection)
        try:
            return await self.fetch(driver, values)
        except OSError:
            raise
        except Exception as error:
            raise DBAPIError(None, None, error, connection_invalidated=driver.is_closed()) from error

    @functools.cached_property
    def _compiled(self) -> tuple[str, Sequence[str]]:
        """The text, and the names of its parameters in the order in which it has them."""
        compiled = self._statement.compile(dialect=_DIALECT, column_keys=list(self._names))
        return str(compiled), compiled.positiontup or ()


class FrequentRead:
    """A connection held for short reads without parameters.

    A read that can't be made here, because another one is under way or the connection is broken, is given up:
    ``fetch`` returns None, and the caller asks as ever; there the failure is told.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None
        self._is_busy = False

    async def fetch(self, statement: DirectStatement) -> Sequence[Sequence[Any]] | None:
        """The rows, of everything that was committed before this call; None if they are to be asked for elsewhere."""
        if self._is_busy:
            return None
        self._is_busy = True
        try:
            if self._connection is None:
                self._connection = await self._engine.connect()
            return await statement.fetch(driver_of(self._connection), {})
        except Exception:
            await self._drop()
            return None
        except BaseException:  # cancelled: what the connection is doing is not known
            await self._drop()
            raise
        finally:
            self._is_busy = False

    async def close(self) -> None:
        """Safe to call twice; the next ``fetch`` opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError, OSError):
                await connection.invalidate()
                await connection.close()


def driver_of(connection: AsyncConnection) -> Any:
    """The driver's connection under an engine's."""
    return cast(sa.Connection, connection.sync_connection).connection.driver_connection
