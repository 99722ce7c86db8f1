"""Transactions of units of work on PostgreSQL, begun and ended through the driver itself."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import UnitOfWorkError
from diptych.sql.database import NO_SETTINGS
from diptych.sql.postgres.driver import EngineErrors
from diptych.sql.statements import text_of

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ"
_COMMIT = "COMMIT"

_BEGIN_DURABLE = f"{_BEGIN}; SET LOCAL synchronous_commit = on"
"""Beginning of a transaction on a connection whose settings are not diptych's."""

_NO_ROWS = "SELECT 0"
"""Command tag of a select that found no row."""

_ROLLED_BACK = "ROLLBACK"
"""Command tag, without an error, of the commit of a failed transaction.

No unit of work commits a failed transaction; the tag is checked all the same, where it can be seen.
"""


class PooledTransaction:
    """A transaction at REPEATABLE READ on a connection of its own; ``BEGIN`` and ``COMMIT`` go past the engine.

    At its end the connection is passed to ``give_back``. The connection ``is_foreign`` if its settings are the
    application's; then ``timeout_s`` is the longest that ``BEGIN`` and ``COMMIT`` may take. An engine that
    ``is_hooked`` is told of both, for its hooks.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        give_back: Callable[[AsyncConnection], Awaitable[None]],
        *,
        is_foreign: bool = False,
        is_hooked: bool = False,
        timeout_s: float | None = None,
    ) -> None:
        self._connection = connection
        self._give_back = give_back
        self._is_foreign, self._is_hooked, self._timeout_s = is_foreign, is_hooked, timeout_s
        lent = cast(sa.Connection, connection.sync_connection).connection
        self._driver: Any = lent.driver_connection
        self._adapter: Any = lent.dbapi_connection  # SQLAlchemy's, with the interface of PEP 249
        self._has_begun = False

    async def connection(self, settings: Mapping[str, str] = NO_SETTINGS) -> AsyncConnection:
        # The transaction begins at its first statement: a handler may do other things before, and its now() is the
        # time of its beginning.
        if self._has_begun:
            if settings:
                await self._say(_set_for_transaction(settings))
            return self._connection
        self._has_begun = True  # a BEGIN that is cut off may have arrived
        # The engine takes the connection for one without transactions: else it would begin a transaction, too.
        self._adapter.autocommit = True
        begin = _BEGIN_DURABLE if self._is_foreign else _BEGIN
        await self._say(f"{begin}; {_set_for_transaction(settings)}" if settings else begin)
        if self._is_hooked:
            await self._connection.begin()  # sends nothing but what hooks send
        return self._connection

    async def outside(self) -> AsyncConnection | None:
        if self._has_begun or self._is_foreign:  # its settings need a transaction to be set in
            return None
        self._adapter.autocommit = True
        return self._connection

    async def commit(self, *, then_find: sa.Select[Any] | None = None) -> bool:
        if not self._has_begun:
            await self.roll_back()
            return False
        try:
            if self._is_hooked:
                await self._connection.commit()  # sends nothing but what hooks send
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
                await self._give_back(self._connection)
        return True

    async def _say(self, what: str) -> str:
        with EngineErrors(self._driver):
            said: str = await self._driver.execute(what, timeout=self._timeout_s)
        return said


def _set_for_transaction(settings: Mapping[str, str]) -> str:
    """Returns a setting until the end of the transaction, as a statement without parameters, to be sent with BEGIN.

    Its constants are of hexadecimal digits alone, whatever the names and values are.
    """
    calls = (f"set_config({_constant(name)}, {_constant(value)}, true)" for name, value in settings.items())
    return f"SELECT {', '.join(calls)}"


def _constant(value: str) -> str:
    return f"convert_from(decode('{value.encode().hex()}', 'hex'), 'UTF8')"


@functools.lru_cache(maxsize=16)
def _commit_and_find(select: sa.Select[Any]) -> str:
    # ★ In a statement after the commit, which has a snapshot of its own: the transaction's snapshot would not show a
    # lease promised just before the commit.
    return f"{_COMMIT}; {text_of(select)}"
