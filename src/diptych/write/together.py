"""A change of a row and its row of the change log in one statement, on PostgreSQL.

The change is a ``WITH`` that the log's row is made from: a command goes to the server and back once less for each.
The image and the key are made there, of the row as it is after the change; ``log.append`` makes the same of the row
that has come back. This can be done where ``has_direct_columns``.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, MultipleResultsFound, NoResultFound
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.visitors import iterate

from diptych.log import table as log
from diptych.log.change import Change, CommandContext
from diptych.log.table import LOG, TOLD
from diptych.sql.entity import MappedEntity
from diptych.sql.failures import TransactionConflict
from diptych.sql.postgres.raw_statements import RawStatement, bound, is_direct
from diptych.write.statements import (
    Columns,
    ColumnValues,
    RowValues,
    condition_of,
    constants_of,
    equal,
    has_direct_columns,
    has_sendable_defaults,
    identity_of,
    in_order,
    named,
    numbered,
    parameters_of,
)

_NOT_SUPPORTED = "0A000"

_LONGEST_NAME = 63
"""In bytes: PostgreSQL cuts longer ones, which would be missing in the image."""


def is_possible(connection: AsyncConnection, entity: MappedEntity) -> bool:
    """Whether rows of this table can be changed like this."""
    return connection.dialect.name == "postgresql" and _is_possible(entity) and entity not in _refused


async def insert(
    connection: AsyncConnection, entity: MappedEntity, values: ColumnValues, context: CommandContext
) -> Change:
    """Adds a row. Raises what its engine does."""
    given = in_order(entity, _constants(entity, "default") | dict(values))
    arguments = log.metadata_columns(entity, "created", None, context) | numbered(given)
    *row, position, number, seen = await _fetch_one(
        entity, _insertion(entity, tuple(given)), connection, arguments
    )
    return Change(entity.describe(connection.dialect), None, entity.row(row), position, number, seen)


async def update(
    connection: AsyncConnection,
    entity: MappedEntity,
    before: RowValues,
    values: ColumnValues,
    context: CommandContext,
) -> Change:
    """Changes this row, which is locked. Raises what its engine does."""
    given = in_order(entity, _constants(entity, "onupdate") | dict(values))
    arguments = log.metadata_columns(entity, "updated", before, context) | numbered(given)
    arguments |= named(identity_of(entity, before))
    *row, position, number, seen = await _fetch_one(
        entity, _update(entity, tuple(given)), connection, arguments
    )
    return Change(entity.describe(connection.dialect), before, entity.row(row), position, number, seen)


async def delete(
    connection: AsyncConnection, entity: MappedEntity, before: RowValues, context: CommandContext
) -> Change:
    """Deletes this row, which is locked. Raises what its engine does."""
    arguments = log.metadata_columns(entity, "deleted", before, context) | log.image_columns(entity, before)
    arguments |= named(identity_of(entity, before))
    told = await _fetch_one(entity, _deletion(entity), connection, arguments)
    return Change(entity.describe(connection.dialect), before, None, *told)


_refused: weakref.WeakSet[MappedEntity] = weakref.WeakSet()
"""Those whose tables have rules, which PostgreSQL does not follow in a ``WITH``."""


async def _fetch_one(
    entity: MappedEntity,
    statement: RawStatement,
    connection: AsyncConnection,
    arguments: Mapping[str, Any],
) -> Sequence[Any]:
    try:
        rows = await statement.fetch_within(connection, arguments)
    except DBAPIError as error:
        # An altered table is told by the same code: the driver has forgotten its statements, and knows them anew.
        is_altered = type(error.orig).__name__ == "InvalidCachedStatementError"
        if getattr(error.orig, "sqlstate", None) == _NOT_SUPPORTED and not is_altered:
            _refused.add(entity)
            raise TransactionConflict("to be run again, with a statement for each") from error
        raise
    if not rows:  # a trigger has kept the row as it was
        raise NoResultFound("No row was found when one was required")
    if len(rows) > 1:  # the mapping's primary key is none of the table's
        raise MultipleResultsFound("Multiple rows were found when exactly one was required")
    return rows[0]


@functools.lru_cache(maxsize=1024)
def _is_possible(entity: MappedEntity) -> bool:
    names = [len(name.encode()) for name in entity.columns]
    return (
        has_direct_columns(entity)
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
def _constants(entity: MappedEntity, kind: Literal["default", "onupdate"]) -> dict[sa.Column[Any], Any]:
    return {column: bound(column.type, value) for column, value in constants_of(entity, kind).items()}


@functools.lru_cache(maxsize=1024)
def _insertion(entity: MappedEntity, given: Columns) -> RawStatement:
    return _with_picture(entity, sa.insert(entity.table).values(parameters_of(given)))


@functools.lru_cache(maxsize=1024)
def _update(entity: MappedEntity, given: Columns) -> RawStatement:
    return _with_picture(entity, sa.update(entity.table).where(*_is_it(entity)).values(parameters_of(given)))


@functools.lru_cache(maxsize=1024)
def _deletion(entity: MappedEntity) -> RawStatement:
    key = entity.columns[entity.primary_key[0]]
    deleted = sa.delete(entity.table).where(*_is_it(entity)).returning(key).cte("diptych_deleted")
    return RawStatement(sa.select(*_logged(deleted, {}).c))


def _with_picture(entity: MappedEntity, change: Any) -> RawStatement:
    """The change, and the log's row with image and key of the row that it returns."""
    returned = (column.label(name) for name, column in entity.columns.items())
    changed = change.returning(*returned).cte("diptych_changed")
    image = sa.select(*(_pictured(column) for column in changed.c)).cte("diptych_image")
    key = sa.select(*(image.c[name] for name in entity.identifying)).cte("diptych_key")
    logged = _logged(image.join(key, sa.true()), {"image": _json(image), "key": _json(key)})
    return RawStatement(sa.select(*changed.c, *logged.c).select_from(changed.join(logged, sa.true())))


def _pictured(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The value as Python has it: the driver takes its first and its last day for PostgreSQL's infinities."""
    if not isinstance(column.type, sa.Date):
        return column
    first, last = (
        (column == _day("-infinity"), _day("0001-01-01")),
        (column == _day("infinity"), _day("9999-12-31")),
    )
    return sa.case(first, last, else_=column).label(column.key)


def _day(text: str) -> sa.ColumnElement[Any]:
    return sa.cast(sa.literal(text, sa.Text), sa.Date)


def _logged(changed: sa.FromClause, image_columns: Mapping[str, sa.ColumnElement[str]]) -> sa.CTE:
    """The log row of the row of ``changed``. Columns that the server does not compute are bound parameters."""
    values = {
        name: image_columns.get(name, sa.bindparam(name, type_=LOG.c[name].type))
        for name in log.BOUND_COLUMNS
    }
    values["recorded_at"] = log.RECORDED_AT
    # ★ The position is drawn for a row that has come out of the change, so while that is locked: the positions of one
    # row are in the order of its commits.
    rows = sa.select(*values.values()).select_from(changed)
    appended = sa.insert(LOG).from_select(list(values), rows, include_defaults=False)
    return appended.returning(*TOLD).cte("diptych_logged")


def _json(row: sa.CTE) -> sa.ColumnElement[str]:
    return sa.cast(sa.func.row_to_json(row.table_valued()), sa.Text)


def _is_it(entity: MappedEntity) -> tuple[sa.ColumnElement[bool], ...]:
    return tuple(equal(condition_of({entity.columns[name]: name for name in entity.primary_key})))
