"""The first and the last day of Python's calendar, and moment, each of which is two values to PostgreSQL.

asyncpg gives an infinite date as Python's first or last day, and sends these days as infinite dates; likewise for
points in time without a zone. Other drivers send the days themselves. So a row may have either, and Python knows no
difference: nor may a condition, or an order, of SQL.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

_ENDS = (datetime.date.min, datetime.date.max, datetime.datetime.min, datetime.datetime.max)


def has_ends(column_type: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> bool:
    """Returns whether a column of this type may have two values for one of Python's.

    A point in time with a zone is sent as it is, and an infinite one is given without a zone, which is no value of
    its column.
    """
    there = column_type.dialect_impl(dialect)
    is_zoned = bool(getattr(there, "timezone", False))
    return dialect.name == "postgresql" and isinstance(there, sa.Date | sa.DateTime) and not is_zoned


def is_end(value: Any) -> bool:
    """Returns whether a value is the first or the last day, or moment."""
    return isinstance(value, datetime.date) and any(
        type(end) is type(value) and end == value for end in _ENDS
    )


def equal(
    column: sa.ColumnElement[Any], value: sa.ColumnElement[Any], dialect: sa.Dialect
) -> sa.ColumnElement[bool]:
    """Returns the condition that a column has this value, in either form."""
    if not has_ends(column.type, dialect):
        return column == value
    return column.in_([finite(value, column.type), infinite(value, column.type)])


def one_of(
    columns: Sequence[sa.ColumnElement[Any]], values: Sequence[Sequence[Any]], dialect: sa.Dialect
) -> sa.ColumnElement[bool]:
    """Returns the condition that columns have one of these tuples of values, in either form."""
    may_have_two = any(has_ends(column.type, dialect) for column in columns)
    with_ends = [given for given in values if any(map(is_end, given))] if may_have_two else []
    conditions = [
        sa.and_(*(equal(column, sa.literal(value, column.type), dialect) for column, value in each))
        for each in (zip(columns, given, strict=True) for given in with_ends)
    ]
    others = values if not with_ends else [given for given in values if given not in with_ends]
    if len(columns) == 1:
        return sa.or_(columns[0].in_([value for (value,) in others]), *conditions)
    return sa.or_(sa.tuple_(*columns).in_([tuple(given) for given in others]), *conditions)


def finite(value: sa.ColumnElement[Any], column_type: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    """Returns the value, with the first and the last one in the place of infinite ones."""
    return _replaced(value, column_type, dict(zip(_INFINITE, _ends_of(column_type), strict=True)))


def infinite(value: sa.ColumnElement[Any], column_type: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    """Returns the value, with infinite ones in the place of the first and the last one."""
    return _replaced(value, column_type, dict(zip(_ends_of(column_type), _INFINITE, strict=True)))


_INFINITE = ("-infinity", "infinity")


def _ends_of(column_type: sa.types.TypeEngine[Any]) -> tuple[str, str]:
    if isinstance(column_type, sa.DateTime):
        return "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"
    return "0001-01-01", "9999-12-31"


def _replaced(
    value: sa.ColumnElement[Any], column_type: sa.types.TypeEngine[Any], texts: dict[str, str]
) -> sa.ColumnElement[Any]:
    def constant(text: str) -> sa.ColumnElement[Any]:
        return sa.cast(sa.literal_column(f"'{text}'", sa.Text), column_type)

    pairs = [(value == constant(text), constant(other)) for text, other in texts.items()]
    return sa.case(*pairs, else_=value)
