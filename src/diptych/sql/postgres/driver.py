"""PostgreSQL's driver, asyncpg, under an engine's connection, with errors as raised by an engine.

Connections are opened alike under SQLAlchemy 2.0 and 2.1, and given up when they are broken. Transactions of units of
work are begun and ended through the driver itself.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from diptych.errors import ConfigurationError, UnitOfWorkError
from diptych.sql.database import NO_SETTINGS
from diptych.sql.entity import MARKER
from diptych.sql.statements import PreparedSelect, RawStatement, text_of

HOOKED = "diptych_hooked"
"""Name of the execution option of an engine with hooks, past which no statement may go."""


async def fetch_raw(
    connection: AsyncConnection, statement: RawStatement, values: Mapping[str, Any]
) -> Sequence[Sequence[Any]]:
    """Returns the rows of a statement sent past the engine, in the connection's transaction.

    Raises the errors of an engine.
    """
    driver, compiled = driver_of(connection), statement.compiled
    arguments = compiled.arguments(values)
    with EngineErrors(driver):
        rows = await driver.fetch(compiled.text, *arguments)
    return compiled.loaded(rows)


class EngineErrors:
    """A block inside which errors of the driver are raised in an engine's form."""

    __slots__ = ("_driver",)

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, OSError):
            is_constraint = str(getattr(error, "sqlstate", None)).startswith("23")
            kind = IntegrityError if is_constraint else DBAPIError
            is_broken = self._driver.is_closed() or is_of_broken_connection(error)
            raise kind(None, None, error, connection_invalidated=is_broken) from error


def driver_of(connection: AsyncConnection) -> Any:
    """Returns asyncpg's connection under an engine's."""
    return cast(sa.Connection, connection.sync_connection).connection.driver_connection


def info_of(connection: AsyncConnection) -> Mapping[str, Any]:
    """Returns the pool's notes on an engine's connection."""
    return cast(sa.Connection, connection.sync_connection).info


def connect(dialect: Any, _record: object, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Opens a connection as the dialect does; a listener for the event ``do_connect`` of an engine.

    Raises asyncpg's errors as the dialect's ``Error``, which the engine wraps in a ``DBAPIError``. SQLAlchemy 2.1
    does so by itself; 2.0 lets asyncpg's own errors through while it connects.
    """
    import asyncpg

    try:
        return dialect.connect(*arguments, **options)
    except Exception as error:
        if "unsupported startup parameter" in str(error):
            raise pooler_error() from error
        if not isinstance(
            error, (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
        ):
            raise
        adapted = dialect.dbapi.Error(str(error))
        adapted.sqlstate = getattr(error, "sqlstate", None)
        raise adapted from error


def pooler_error() -> ConfigurationError:
    """Returns the error for the address of a pooler of PostgreSQL's connections."""
    return ConfigurationError(
        "DATABASE_URL",
        "leads to a connection pooler, such as PgBouncer, which does not pass on the settings of connections, nor "
        "notifications: set it to the address of PostgreSQL itself. diptych keeps pools of its own; an engine that "
        "goes through the pooler can stay beside diptych, which notices what is written through it",
    )


def mark(
    _connection: object, _cursor: object, statement: str, values: Any, context: Any, _many: bool
) -> tuple[str, Any]:
    """Puts the marker of diptych's own statements before their text; a listener for ``before_cursor_execute``."""
    marker = context.execution_options.get(MARKER, "") if context is not None else ""
    return marker + statement, values


def refuse_broken(context: ExceptionContext) -> None:
    """Raises ``OSError`` for a statement on a broken connection; a listener for the event ``handle_error``.

    A server that ends a session says so before it closes the connection. Between the two asyncpg refuses every
    statement by an error of its own, which SQLAlchemy lets through as it is.
    """
    if is_of_broken_connection(context.original_exception):
        raise OSError("PostgreSQL has ended the session") from context.original_exception


def is_of_broken_connection(error: BaseException) -> bool:
    """Returns whether asyncpg has refused a statement because the connection is between two states."""
    return type(error).__name__ == "InternalClientError"


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
    """Returns a statement that ends with the transaction. It has no parameters, so that it can be sent with BEGIN.

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
            return await fetch_raw(self._connection, select.raw, values)
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
