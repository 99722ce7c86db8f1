"""Reading of rows in spite of values impossible to load: each such value is replaced by ``Unreadable``.

A value may be refused by the column's type (an enum's former member, text that is no date), or by the driver (a date
BC), which makes the whole statement fail. Only a statement that has failed like this is executed again here: the
usual way is not slowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.types import UserDefinedType

from diptych.errors import DiptychError
from diptych.sql.database import LOST_ERRORS
from diptych.sql.description import Unreadable
from diptych.sql.view import View

Values = Mapping[str, Any] | None


def is_of_a_value(error: Exception) -> bool:
    """Returns whether this error is of a value in the rows of an executed statement, impossible to load."""
    if isinstance(error, DBAPIError):
        cause = error.orig
        # Raised by sqlite3 for text that is not UTF-8: without a code, since the error is not SQLite's.
        is_no_text = "Could not decode to UTF-8" in str(cause) and not hasattr(cause, "sqlite_errorcode")
        return is_no_text or type(cause) in (ValueError, OverflowError)
    return not isinstance(error, (SQLAlchemyError, DiptychError, *LOST_ERRORS))


async def fetched_carefully(
    view: View, select: sa.Select[Any], values: Values = None
) -> Sequence[Sequence[Any]]:
    """Returns the rows of a statement, with ``Unreadable`` for each value impossible to load.

    The order of the rows has to be complete: columns may be read one by one, all in the same view, and are put
    together by the numbers of their rows.
    """
    reading = _Reading(view, select, values)
    columns = [sa.type_coerce(column, _Guarded(column.type)) for column in select.selected_columns]
    try:
        return await reading.rows(columns)
    except Exception as error:
        if not is_of_a_value(error):
            raise
    count = len(await reading.rows([sa.literal_column("1")]))
    read = [await reading.column(column, 0, count) for column in columns]
    return list(zip(*read, strict=True))


class _Reading:
    """A select, executed for some of its columns or rows."""

    def __init__(self, view: View, select: sa.Select[Any], values: Values) -> None:
        self._view = view
        self._select = select
        self._values = values

    async def rows(self, columns: Sequence[sa.ColumnElement[Any]]) -> Sequence[Sequence[Any]]:
        """Returns all rows, with these columns."""
        return await self._view.fetch(self._with(columns), self._values)

    async def column(self, column: sa.ColumnElement[Any], start: int, count: int) -> list[Any]:
        """Returns a column of ``count`` rows from number ``start`` on. Values at fault are found by halving."""
        if count == 0:
            return []
        try:
            statement = self._with([column]).limit(count).offset(start)
            return [row[0] for row in await self._view.fetch(statement, self._values)]
        except Exception as error:
            if not is_of_a_value(error):
                raise
            if count == 1:
                return [_unreadable(error)]
        half = count // 2
        first = await self.column(column, start, half)
        return first + await self.column(column, start + half, count - half)

    def _with(self, columns: Sequence[sa.ColumnElement[Any]]) -> sa.Select[Any]:
        return self._select.with_only_columns(*columns, maintain_column_froms=True)


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
