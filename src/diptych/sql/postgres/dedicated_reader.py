"""A connection to PostgreSQL kept for the short reads of the hinge."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from diptych.sql.postgres.driver import driver_of
from diptych.sql.statements.prepared import PreparedSelect


class DedicatedReader:
    """A connection kept for short reads.

    A read that can't be made here, because the connection is busy or broken, is given up: ``fetch`` returns None, and
    the caller reads through the engine, where a failure is raised.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None
        self._is_busy = self._is_expired = False

    def expire(self) -> None:
        """Has the next ``fetch`` open a new connection: the address leads to a different server by now."""
        self._is_expired = True

    async def fetch(
        self, select: PreparedSelect, values: Mapping[str, Any]
    ) -> Sequence[Sequence[Any]] | None:
        """Returns the rows, of everything committed before this call; None if the engine has to be used."""
        if self._is_busy:
            return None
        self._is_busy = True
        try:
            if self._is_expired:
                self._is_expired = False
                await self._drop()
            if self._connection is None:
                self._connection = await self._engine.connect()
                # The statements are always the same, and short. By default the server would plan each execution
                # anew, in more time than the execution takes: it overestimates their cost.
                await driver_of(self._connection).execute("SET plan_cache_mode = force_generic_plan")
            return await select.raw.fetch(driver_of(self._connection), values)
        except Exception:
            await self._drop()
            return None
        except BaseException:  # cancelled: the state of the connection is not known
            await self._drop()
            raise
        finally:
            self._is_busy = False

    async def close(self) -> None:
        """Closes the connection until the next ``fetch``. Safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError, OSError):
                await connection.invalidate()
                await connection.close()
