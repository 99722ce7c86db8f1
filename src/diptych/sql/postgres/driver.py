"""PostgreSQL's driver, asyncpg, under an engine's connection, with errors as raised by an engine.

Connections are opened alike under SQLAlchemy 2.0 and 2.1, and given up when they are broken.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from diptych.errors import ConfigurationError
from diptych.sql.entity import MARKER
from diptych.sql.statements import PreparedSelect, RawStatement

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
    try:
        with EngineErrors(driver):
            rows = await driver.fetch(compiled.text, *arguments)
    except DBAPIError as error:
        if is_of_altered_table(error):
            # The driver does so by itself for some of these errors alone; a statement that it keeps fails again.
            await driver.reload_schema_state()
        raise
    return compiled.loaded(rows)


class EngineErrors:
    """A block inside which errors of the driver are raised in an engine's form.

    An engine lets other errors through, such as those of a value that Python has no room for.
    """

    __slots__ = ("_driver",)

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if isinstance(error, errors_of_driver()):
            is_constraint = str(getattr(error, "sqlstate", None)).startswith("23")
            kind = IntegrityError if is_constraint else DBAPIError
            is_broken = self._driver.is_closed() or is_of_broken_connection(error)
            raise kind(None, None, error, connection_invalidated=is_broken) from error


@functools.cache
def errors_of_driver() -> tuple[type[Exception], ...]:
    """Returns the classes of all of asyncpg's own errors."""
    import asyncpg

    return asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError


def driver_of(connection: AsyncConnection) -> Any:
    """Returns asyncpg's connection under an engine's."""
    return cast(sa.Connection, connection.sync_connection).connection.driver_connection


def info_of(connection: AsyncConnection) -> MutableMapping[Any, Any]:
    """Returns the pool's notes on an engine's connection."""
    return cast(sa.Connection, connection.sync_connection).info


def connect(dialect: Any, _record: object, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Opens a connection as the dialect does; a listener for the event ``do_connect`` of an engine.

    Raises asyncpg's errors as the dialect's ``Error``, which the engine wraps in a ``DBAPIError``. SQLAlchemy 2.1
    does so by itself; 2.0 lets asyncpg's own errors through while it connects.
    """
    try:
        return dialect.connect(*arguments, **options)
    except Exception as error:
        if "unsupported startup parameter" in str(error):
            raise pooler_error() from error
        if not isinstance(error, errors_of_driver()):
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

    A connection with a statement that is outdated is given up.
    """
    if is_of_outdated_statement(context.original_exception):
        context.is_disconnect, context.invalidate_pool_on_disconnect = True, False
    elif is_of_broken_connection(context.original_exception):
        raise OSError("PostgreSQL has ended the session") from context.original_exception


def sqlstate_of(error: DBAPIError) -> str | None:
    """Returns the code of an error of the server; None for an error of the driver."""
    return getattr(error.orig, "sqlstate", None)


def is_of_altered_table(error: DBAPIError) -> bool:
    """Returns whether a table, or a type, was altered under a prepared statement: another attempt succeeds."""
    # PostgreSQL has no code of its own for a type that is gone: XX000 is any internal error.
    is_of_type = sqlstate_of(error) == "XX000" and "cache lookup failed for type" in str(error.orig)
    is_of_statement = type(error.orig).__name__ == "InvalidCachedStatementError"
    return is_of_type or is_of_statement or is_of_outdated_statement(error.orig)


def is_of_outdated_statement(error: BaseException | None) -> bool:
    """Returns whether a prepared statement that SQLAlchemy keeps with the connection can't be executed any more.

    A composite type has got other attributes. asyncpg says so once and closes the statement: every later execution
    on that connection fails.
    """
    own = error if error is None or error.__cause__ is None else error.__cause__
    # By the class, and the beginning: the words of most errors quote values, which clients choose.
    name = type(own).__name__
    is_closed = name == "InterfaceError" and str(own).startswith("cannot call PreparedStmt.")
    return is_closed or name == "OutdatedSchemaCacheError"


def is_of_broken_connection(error: BaseException) -> bool:
    """Returns whether asyncpg has refused a statement because the connection is between two states."""
    return type(error).__name__ == "InternalClientError"


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
