"""Statements of PostgreSQL for a change of a row and its row of the change log: a round trip for both.

The log's row is made from a ``WITH`` that is the change. The server makes key and image of the row after the change;
``append`` in ``log/append.py`` makes the same from the returned row. This needs columns of direct types: see
``is_direct``.
"""

from __future__ import annotations

import datetime
import functools
import operator
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.visitors import iterate

from diptych.log.append import append_in_statement
from diptych.log.capture.table import quoted
from diptych.log.row_id import KeyPart, in_postgresql, kind_of
from diptych.sql.columns import stored_texts
from diptych.sql.entity import MappedEntity
from diptych.sql.statements import RawStatement, is_direct, postgres_type
from diptych.write.defaults import has_sendable_defaults
from diptych.write.statements import Columns, Condition, equal, parameters_of

_LONGEST_NAME = 63
"""Longest name of a column, in bytes: PostgreSQL cuts longer names, which would be missing in the image."""

UNREADABLE = "is not known to diptych"
"""Part of the error of a statement that has met a value which Python can't have."""


@functools.lru_cache(maxsize=1024)
def is_possible(entity: MappedEntity) -> bool:
    """Returns whether rows of this table can be changed by these statements."""
    names = [len(name.encode()) for name in entity.columns]
    return (
        all(is_direct(column.type) for column in entity.table.columns)
        and not entity.is_finished_by_database
        and has_sendable_defaults(entity)
        and all(is_direct(part.type) for part in _constants_in_defaults(entity))
        and max(names) <= _LONGEST_NAME
    )


def _constants_in_defaults(entity: MappedEntity) -> Iterator[sa.BindParameter[Any]]:
    for column in entity.table.columns:
        for default in (column.default, column.onupdate):
            if isinstance(default, sa.ColumnDefault) and default.is_clause_element:
                yield from (part for part in iterate(default.arg) if isinstance(part, sa.BindParameter))


@functools.lru_cache(maxsize=1024)
def insertion(entity: MappedEntity, given: Columns) -> RawStatement:
    """Returns the statement to add a row, which returns the row and the columns of ``appended``."""
    changed = _returning(entity, sa.insert(entity.table).values(parameters_of(given)), "diptych_changed")
    logged = _logged(entity, changed)
    both = sa.select(*changed.c, *logged.c).select_from(changed.join(logged, sa.true()))
    return RawStatement(both, marker=entity.marker)


@functools.lru_cache(maxsize=1024)
def update(entity: MappedEntity, condition: Condition, given: Columns) -> RawStatement:
    """Returns the statement to change the row of this condition.

    It returns the columns that entries name as they were, the row after the change, and the columns of ``appended``;
    no row if there is none of this condition. It fails if there are several.
    """
    before = _before(entity, condition)
    statement = (
        sa.update(entity.table)
        .where(*_is_it(entity, before), _at_most_one(before))
        .values(parameters_of(given))
    )
    changed = _returning(entity, statement, "diptych_changed")
    logged = _logged(entity, changed, before)
    joined = before.outerjoin(changed, sa.true()).outerjoin(logged, sa.true())
    return RawStatement(
        sa.select(*before.c, *changed.c, *logged.c).select_from(joined).where(_at_most_one(changed)),
        marker=entity.marker,
    )


@functools.lru_cache(maxsize=1024)
def deletion(entity: MappedEntity, condition: Condition) -> RawStatement:
    """Returns the statement to delete the row of this condition.

    It returns the deleted row, null where a trigger has kept it, and the columns of ``appended``; no row if there is
    none of this condition. It fails if there are several.
    """
    before = _before(entity, condition)
    change = sa.delete(entity.table).where(*_is_it(entity, before), _at_most_one(before))
    deleted = _returning(entity, change, "diptych_deleted")
    logged = _logged(entity, deleted, before)
    joined = before.outerjoin(deleted, sa.true()).outerjoin(logged, sa.true())
    return RawStatement(
        sa.select(*deleted.c, *logged.c).select_from(joined).where(_at_most_one(deleted)),
        marker=entity.marker,
    )


def _before(entity: MappedEntity, condition: Condition) -> sa.CTE:
    # The transaction is at REPEATABLE READ: a change of the row since its snapshot fails the statement.
    # The names are of its own: text in an ``onupdate`` may name columns, which are to be those of the table.
    columns = (
        entity.columns[name].label(f"diptych_before_{n}") for n, name in enumerate(entity.entry_columns)
    )
    return sa.select(*columns).where(*equal(condition)).limit(2).cte("diptych_before")


def _is_it(entity: MappedEntity, before: sa.CTE) -> Iterator[sa.ColumnElement[bool]]:
    """Yields the conditions for the row of ``before``."""
    for name, column in zip(entity.entry_columns, before.c, strict=True):
        if name in entity.primary_key:
            yield column == entity.columns[name]


def _at_most_one(rows: sa.CTE) -> sa.ColumnElement[bool]:
    """Returns a condition failing for several rows: the server evaluates the condition once a statement."""
    one: Any = sa.select(sa.true()).select_from(rows).scalar_subquery()
    return sa.func.coalesce(one, sa.true())


def _returning(entity: MappedEntity, change: Any, name: str) -> sa.CTE:
    returned = (column.label(name) for name, column in entity.columns.items())
    cte: sa.CTE = change.returning(*returned).cte(name)
    return cte


def _logged(entity: MappedEntity, changed: sa.CTE, before: sa.CTE | None = None) -> sa.CTE:
    """Returns the insert of the log's row, with key and image of the changed row, and the key before."""
    row = sa.select(*(_for_json(column, column.key) for column in changed.c)).cte("diptych_row")
    key = sa.select(*(row.c[name] for name in entity.entry_columns)).cte("diptych_key")
    made: dict[str, sa.ColumnElement[str]] = {"key": _json(key)}
    if entity.row_id:
        made["row_id"] = _row_id(entity, row)
    source: sa.FromClause = row.join(key, sa.true())
    if entity.image_columns:
        image = sa.select(*(row.c[name] for name in entity.image_columns)).cte("diptych_image")
        made["image"] = _json(image)
        source = source.join(image, sa.true())
    if before is not None:
        columns = map(_for_json, before.c, entity.entry_columns)
        old_key = sa.select(*columns).cte("diptych_old_key")
        made["old_key"] = _json(old_key)
        source = source.join(old_key, sa.true())
        if entity.row_id:
            made["old_row_id"] = sa.func.nullif(_row_id(entity, old_key), made["row_id"])
    return append_in_statement(source, made)


def _row_id(entity: MappedEntity, row: sa.CTE) -> sa.ColumnElement[str]:
    table = quoted(str(row.name))
    parts = [KeyPart(f"{table}.{quoted(name)}", kind_of(entity.columns[name])) for name in entity.row_id]
    return sa.literal_column(in_postgresql(parts), sa.Text)


def _for_json(column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[Any]:
    """Returns an expression of whose value the server makes the same JSON as ``log.append`` makes of the driver's."""
    kind = postgres_type(column.type)
    expression = column
    if isinstance(kind, sa.Enum):
        expression = _member(column, kind)
    elif isinstance(kind, sa.Date | sa.DateTime):
        expression = _in_time(column, kind)
    elif isinstance(kind, sa.Time):
        is_known = column <= sa.cast(sa.literal("23:59:59.999999", sa.Text), sa.Time)
        known = (column.is_(None) | is_known, column)
        expression = sa.case(known, else_=sa.cast(_unreadable(column), sa.Time))
    elif isinstance(kind, postgresql.INTERVAL):
        expression = _duration(column)
    elif isinstance(kind, sa.LargeBinary):
        expression = _without_breaks(sa.func.encode(column, "base64"))
    elif isinstance(kind, sa.Float):
        expression = sa.cast(column, sa.Double)  # a real has more digits as Python's float
    elif isinstance(kind, sa.Numeric):
        expression = _decimal(column)
    return expression.label(name)


def _decimal(column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    """Returns a number in the driver's form: a whole number without its last groups of four zeros, as in 12E+4."""
    text, zero = sa.cast(column, sa.Text), sa.literal_column("0", sa.Integer)
    digits = sa.func.rtrim(text, sa.literal_column("'0'"))
    zeros = (sa.func.length(text, type_=sa.Integer) - sa.func.length(digits, type_=sa.Integer)).self_group()
    exponent = (zeros - zeros % sa.literal_column("4", sa.Integer)).self_group()
    first = sa.func.left(text, -exponent, type_=sa.Text)
    short = first.concat(sa.literal_column("'E+'")).concat(sa.cast(exponent, sa.Text))
    is_long = sa.and_(sa.func.scale(column) == zero, column != zero, exponent > zero)
    return sa.case((is_long, short), else_=text)


def _member(column: sa.ColumnElement[Any], kind: sa.Enum) -> sa.ColumnElement[Any]:
    """Returns the value of an enum's member. The statement fails for the text of no member."""
    values = {text: getattr(member, "value", member) for member, text in stored_texts(kind).items()}
    of_numbers = all(type(value) is int for value in values.values())
    json_type = sa.BigInteger if of_numbers else sa.Text
    text = sa.cast(column, sa.Text)
    known = [(text == _constant(one), _constant(value, json_type)) for one, value in values.items()]
    return sa.case((column.is_(None), sa.null()), *known, else_=sa.cast(_unreadable(column), json_type))


def _in_time(column: sa.ColumnElement[Any], kind: sa.Date | sa.DateTime) -> sa.ColumnElement[Any]:
    """Returns the value of Python: the driver turns infinite times into Python's first and last time.

    The statement fails for a time that Python can't have.
    """
    is_day = isinstance(kind, sa.Date)
    plain: Any = sa.Date if is_day else sa.DateTime
    zoned = not is_day and bool(getattr(kind, "timezone", False))
    value = sa.func.timezone("UTC", column, type_=plain) if zoned else column
    first, last = (
        ("0001-01-01", "9999-12-31") if is_day else ("0001-01-01 00:00:00", "9999-12-31 23:59:59.999999")
    )

    def moment(text: str) -> sa.ColumnElement[Any]:
        return sa.cast(sa.literal(text, sa.Text), plain)

    known: sa.ColumnElement[Any] = sa.case(
        (value.between(moment(first), moment(last)), value),
        (value.is_(None), sa.null()),
        else_=sa.cast(_unreadable(column), plain),
    )
    if zoned:
        known = _iso(known).concat("Z")
    # The driver's first and last times have no zone.
    of_infinite = [
        (value == moment(infinite), _iso(moment(text)) if zoned else moment(text))
        for infinite, text in (("-infinity", first), ("infinity", last))
    ]
    return sa.case(*of_infinite, else_=known)


def _iso(moment: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    return sa.func.to_json(moment, type_=sa.Text).op("#>>", return_type=sa.Text())(sa.literal_column("'{}'"))


def _without_breaks(text: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """Returns the text in a single line: PostgreSQL breaks base64 after 76 characters."""
    return sa.func.replace(text, sa.func.chr(sa.literal_column("10")), sa.literal_column("''"), type_=sa.Text)


def _duration(column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    """Returns a duration in the form of ISO 8601, in seconds alone.

    A year has 365 days and a month 30, as the driver reads them. The statement fails for a duration that Python can't
    have.
    """
    numbers = {
        "year": 365 * 86400,
        "month": 30 * 86400,
        "day": 86400,
        "hour": 3600,
        "minute": 60,
        "second": 1,
    }
    parts = (sa.extract(part, column) * sa.literal_column(str(number)) for part, number in numbers.items())
    seconds: sa.ColumnElement[Any] = functools.reduce(operator.add, parts)
    sign = sa.case((seconds < 0, sa.literal_column("'-PT'")), else_=sa.literal_column("'PT'"))
    text = sign.concat(sa.cast(sa.func.abs(seconds), sa.Text)).concat(sa.literal_column("'S'"))
    return sa.case(
        (column.is_(None), sa.null()),
        (seconds.between(_seconds(datetime.timedelta.min), _seconds(datetime.timedelta.max)), text),
        else_=sa.cast(sa.cast(_unreadable(column), postgresql.INTERVAL), sa.Text),
    )


def _seconds(duration: datetime.timedelta) -> sa.ColumnElement[Any]:
    return sa.literal_column(f"{duration.days * 86400 + duration.seconds}.{duration.microseconds:06}")


def _unreadable(column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    """Returns a text of no type: its cast fails, and so does the statement."""
    return sa.cast(column, sa.Text).concat(sa.literal_column(f"' {UNREADABLE}'"))


def _constant(value: str | int, kind: Any = sa.Text) -> sa.ColumnElement[Any]:
    return sa.cast(sa.literal(value, kind), kind)


def _json(row: sa.CTE) -> sa.ColumnElement[str]:
    return sa.cast(sa.func.row_to_json(row.table_valued()), sa.Text)
