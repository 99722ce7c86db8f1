"""Rows read although some of their values can't be loaded: each of those is replaced, the others are as ever.

A value may be one that the column's type refuses (an enum's former member, text that is no date), or one that the
driver can't give to Python at all (a date BC), which makes the whole statement fail. This is the way of a statement
that has failed so; the usual one is not slowed by it.
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
    """Whether a statement failed with this at its end: it was executed, and a value in its rows can't be loaded."""
    if isinstance(error, DBAPIError):
        cause = error.orig
        # sqlite3's word for text that is not UTF-8: an error without a code, since it is none of SQLite's.
        is_no_text = "Could not decode to UTF-8" in str(cause) and not hasattr(cause, "sqlite_errorcode")
        return is_no_text or type(cause) in (ValueError, OverflowError)
    return not isinstance(error, (SQLAlchemyError, DiptychError, *LOST_ERRORS))


async def fetched_carefully(
    view: View, select: sa.Select[Any], values: Values = None
) -> Sequence[Sequence[Any]]:
    """The rows of a statement, with ``Unreadable`` for what can't be loaded. Their order has to be complete.

    All is read in one view: the values of one column are told from those of another by the number of their row alone.
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
    """A statement that is executed with some of its columns, or for some of its rows."""

    def __init__(self, view: View, select: sa.Select[Any], values: Values) -> None:
        self._view = view
        self._select = select
        self._values = values

    async def rows(self, columns: Sequence[sa.ColumnElement[Any]]) -> Sequence[Sequence[Any]]:
        """All rows, with these columns."""
        return await self._view.fetch(self._with(columns), self._values)

    async def column(self, column: sa.ColumnElement[Any], start: int, count: int) -> list[Any]:
        """One column of so many rows from the one of this number on. What the driver fails on is found by halving."""
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
    """A column's type, but for values that it refuses to load."""

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
    # What the error says may quote the value: it is not for logs, nor for clients.
    return Unreadable(f"can't be loaded from its column ({type(error).__name__})")
