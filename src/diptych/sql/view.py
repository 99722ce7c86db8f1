"""A moment of SQL, read by several statements: the log, and the rows of its changes.

A value in the rows may be refused by its column's type (an enum's former member, text that is no date), or by the
driver (a date BC), which makes the whole statement fail. Only a statement that has failed like this is executed again
by ``fetched_carefully``, which replaces each such value by ``Unreadable``: the usual way is not slowed.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.types import UserDefinedType

from diptych.errors import DatabaseBusyError, DiptychError
from diptych.sql.database import Database, Moment, Values
from diptych.sql.description import Unreadable
from diptych.sql.failures import TransactionConflict, translated_reading
from diptych.sql.statements import PreparedSelect

_Read = TypeVar("_Read")


class View:
    """A connection for several reads. Within ``view_of`` all see the snapshot of the first statement."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def fetch(self, statement: sa.Select[Any], values: Values | None = None) -> Sequence[sa.Row[Any]]:
        """Returns the rows of a statement."""
        rows: Sequence[sa.Row[Any]] = (await self._connection.execute(statement, values)).all()
        return rows

    async def fetch_prepared(self, select: PreparedSelect, values: Values) -> Sequence[Sequence[Any]]:
        """Returns the rows of a statement that is executed again and again."""
        return await self.fetch(select.select, values)


class NotAtOnceError(DiptychError):
    """Raised for a statement that a ``MomentView`` can't execute: a ``View`` can. Never reaches a user."""


class MomentView(View):
    """A moment of SQL on the shortest way to the database, for prepared statements above all."""

    def __init__(self, moment: Moment) -> None:
        self._moment = moment

    async def fetch(self, statement: sa.Select[Any], values: Values | None = None) -> Sequence[sa.Row[Any]]:
        if self._moment.connection is None:
            raise NotAtOnceError
        rows: Sequence[sa.Row[Any]] = (await self._moment.connection.execute(statement, values)).all()
        return rows

    async def fetch_prepared(self, select: PreparedSelect, values: Values) -> Sequence[Sequence[Any]]:
        found = await self._moment.fetch(select, values)
        if found is None:
            raise NotAtOnceError
        return found


class SecondStatementError(DiptychError):
    """Raised for a second statement in a ``SingleView``. Never reaches a user."""


class SingleView(View):
    """A connection for one read, which needs no transaction."""

    _has_read = False

    async def fetch(self, statement: sa.Select[Any], values: Values | None = None) -> Sequence[sa.Row[Any]]:
        if self._has_read:
            raise SecondStatementError
        self._has_read = True
        return await super().fetch(statement, values)


@contextlib.asynccontextmanager
async def single_view_of(database: Database) -> AsyncIterator[View]:
    """Opens a view for one statement on the hinge's connections."""
    with translated_reading(database):
        async with database.keeper.connect() as connection:
            yield SingleView(connection)


@contextlib.asynccontextmanager
async def view_of(database: Database, engine: AsyncEngine | None = None) -> AsyncIterator[View]:
    """Opens a view of the moment of its first statement, over ``engine`` or the hinge's."""
    with translated_reading(database):
        async with database.snapshot(engine or database.keeper) as moment:
            yield MomentView(moment)


async def read_at_once(database: Database, read: Callable[[View], Awaitable[_Read]]) -> _Read:
    """Returns what ``read`` returns of a view of one moment, for a query.

    The view is opened and read once more if a table was altered under a prepared statement.
    """
    try:
        async with view_of(database, database.reader) as view:
            return await read(view)
    except DatabaseBusyError as error:
        if not isinstance(error.__cause__, TransactionConflict):  # reads are in no other conflict
            raise
    async with view_of(database, database.reader) as view:
        return await read(view)


@contextlib.asynccontextmanager
async def moment_of(database: Database) -> AsyncIterator[View]:
    """Opens a view of the moment of its first statement, for a few short statements.

    Raises ``NotAtOnceError``, here or in the view, where ``view_of`` is needed.
    """
    with translated_reading(database):
        async with database.moment() as moment:
            if moment is None:
                raise NotAtOnceError
            yield MomentView(moment)


def is_of_a_value(error: Exception) -> bool:
    """Returns whether this error is of a value in the rows of an executed statement, impossible to load."""
    if isinstance(error, DBAPIError):
        # Raised by sqlite3 for text that is not UTF-8: without a code, since the error is not SQLite's.
        return "Could not decode to UTF-8" in str(error.orig) and not hasattr(error.orig, "sqlite_errorcode")
    return not isinstance(error, (SQLAlchemyError, DiptychError, OSError))


async def fetched_carefully(
    view: View, select: sa.Select[Any], values: Values | None = None
) -> Sequence[Sequence[Any]]:
    """Returns the rows of a statement, with ``Unreadable`` for each value impossible to load.

    The order of the rows has to be complete: columns may be read one by one, all in the same view, and are put
    together by the numbers of their rows.
    """
    only = functools.partial(select.with_only_columns, maintain_column_froms=True)
    columns = [sa.type_coerce(column, _Guarded(column.type)) for column in select.selected_columns]
    try:
        return await view.fetch(only(*columns), values)
    except Exception as error:
        if not is_of_a_value(error):
            raise
    count = len(await view.fetch(only(sa.literal_column("1")), values))
    read = [await _column(view, only(column), values, count) for column in columns]
    return list(zip(*read, strict=True))


async def _column(
    view: View, select: sa.Select[Any], values: Values | None, count: int, start: int = 0
) -> list[Any]:
    """Returns the only column of ``count`` rows from number ``start`` on. Values at fault are found by halving."""
    if count == 0:
        return []
    own = select._offset_clause  # of a numbered page; a second offset would take the place of the first
    part = select.limit(count).offset(start if own is None else own + start)
    try:
        return [row[0] for row in await view.fetch(part, values)]
    except Exception as error:
        if not is_of_a_value(error):
            raise
        if count == 1:
            return [_unreadable(error)]
    half = count // 2
    first = await _column(view, select, values, half, start)
    return first + await _column(view, select, values, count - half, start + half)


class _Guarded(UserDefinedType[Any]):
    """A column's type, except for loading ``Unreadable`` in place of raising an error."""

    cache_ok = False

    def __init__(self, guarded: sa.types.TypeEngine[Any]) -> None:
        self.guarded = guarded

    def column_expression(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        expression = self.guarded.column_expression(column)
        return column if expression is None else expression

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Any:
        load = self.guarded.dialect_impl(dialect).result_processor(dialect, coltype)
        if load is None:
            return None

        def load_if_possible(value: Any) -> Any:
            try:
                return load(value)
            except Exception as error:
                return _unreadable(error)

        return load_if_possible


def _unreadable(error: Exception) -> Unreadable:
    # The text of the error may quote the value, which is neither for logs nor for clients.
    return Unreadable(f"can't be loaded from its column ({type(error).__name__})")
