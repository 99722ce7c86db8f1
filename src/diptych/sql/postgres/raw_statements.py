"""Statements that are sent to PostgreSQL's driver directly.

What an engine does beside for each statement (its context, its cursor, its result) takes more time than the driver
does. That is spared where it has nothing to do: for types of which the driver has all values itself.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_DIALECT = postgresql.asyncpg.dialect()  # type: ignore[no-untyped-call]


class RawStatement:
    """A statement whose parameters and columns are all of types that the driver has itself: see ``is_direct``.

    ``names`` are the columns of an insert without values.
    """

    def __init__(self, statement: Any, names: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._names = names

    async def fetch(self, driver: Any, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Its rows. Raises what asyncpg does."""
        text, arguments = self._filled(values)
        return cast("Sequence[Sequence[Any]]", await driver.fetch(text, *arguments))

    async def fetch_within(
        self, connection: AsyncConnection, values: Mapping[str, Any]
    ) -> Sequence[Sequence[Any]]:
        """Its rows, in the transaction that has begun on this connection. Raises what its engine does."""
        driver = driver_of(connection)
        text, arguments = self._filled(values)
        with engine_errors(driver):
            return cast("Sequence[Sequence[Any]]", await driver.fetch(text, *arguments))

    def _filled(self, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
        text, names, constants = self._compiled
        return text, [values[name] if name in values else constants[name] for name in names]

    @functools.cached_property
    def _compiled(self) -> tuple[str, Sequence[str], Mapping[str, Any]]:
        """The text, the names of its parameters in the order in which it has them, and the values it gives itself."""
        compiled = self._statement.compile(dialect=_DIALECT, column_keys=self._names)
        return str(compiled), compiled.positiontup or (), compiled.params


def is_direct(column_type: sa.types.TypeEngine[Any]) -> bool:
    """Whether the driver gives and takes the values of this type as they are, and JSON made by the server has them
    as the change log's images do: whole numbers, text, truth values, days.
    """
    there = column_type.dialect_impl(_DIALECT)
    if isinstance(there, sa.Enum) or not type(there).__module__.startswith("sqlalchemy."):
        return False
    if isinstance(there, sa.Boolean):
        return True  # the engine only looks whether each value is one
    return (
        isinstance(there, sa.Integer | sa.String | sa.Date)
        and there.bind_processor(_DIALECT) is None
        and there.result_processor(_DIALECT, None) is None
    )


def bound(column_type: sa.types.TypeEngine[Any], value: Any) -> Any:
    """A value of a direct type as an engine would send it: 0 in a Boolean column, say, is False."""
    process = column_type.dialect_impl(_DIALECT).bind_processor(_DIALECT)
    return value if process is None else process(value)


@contextlib.contextmanager
def engine_errors(driver: Any) -> Iterator[None]:
    """Raises what the driver raises as an engine would."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        is_constraint = str(getattr(error, "sqlstate", None)).startswith("23")
        kind = IntegrityError if is_constraint else DBAPIError
        raise kind(None, None, error, connection_invalidated=driver.is_closed()) from error


class DedicatedReader:
    """A connection held for short reads.

    A read that can't be made here, because another one is under way or the connection is broken, is given up:
    ``fetch`` returns None, and the caller asks as ever; there the failure is told.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None
        self._is_busy = self._is_expired = False
        self._statements: dict[sa.Select[Any], RawStatement] = {}

    def expire(self) -> None:
        """The next ``fetch`` is on a new connection: this one leads to another server than the address does now."""
        self._is_expired = True

    async def fetch(
        self, select: sa.Select[Any], values: Mapping[str, Any]
    ) -> Sequence[Sequence[Any]] | None:
        """The rows, of everything that was committed before this call; None if they are to be asked for elsewhere."""
        if self._is_busy:
            return None
        self._is_busy = True
        try:
            if self._is_expired:
                self._is_expired = False
                await self._drop()
            if self._connection is None:
                self._connection = await self._engine.connect()
                # Its statements are the same again and again, and short. Left to itself the server would plan each
                # anew, which takes longer than to run it: it takes them for worse than they are.
                await driver_of(self._connection).execute("SET plan_cache_mode = force_generic_plan")
            return await self._raw(select).fetch(driver_of(self._connection), values)
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

    def _raw(self, select: sa.Select[Any]) -> RawStatement:
        raw = self._statements.get(select)
        if raw is None:
            raw = self._statements[select] = RawStatement(select)
        return raw

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError, OSError):
                await connection.invalidate()
                await connection.close()


def text_of(statement: Any) -> str:
    """A statement without parameters, as it is sent."""
    return str(statement.compile(dialect=_DIALECT))


def driver_of(connection: AsyncConnection) -> Any:
    """The driver's connection under an engine's."""
    return cast(sa.Connection, connection.sync_connection).connection.driver_connection


def adapter_of(connection: AsyncConnection) -> Any:
    """What stands between the two, and has the driver look like any other to the engine."""
    return cast(sa.Connection, connection.sync_connection).connection.dbapi_connection
