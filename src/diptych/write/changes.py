"""Changes of rows, each written with its row of the change log.

On PostgreSQL, for most tables, both are a single statement: the log's row is made from a ``WITH`` that is the change,
which saves a round trip to the server for each change. The server makes key and image of the row after the change;
``append`` in ``log/table.py`` makes the same from the returned row. This needs columns of direct types: see
``is_direct``.
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

from diptych.log import Change, CommandContext
from diptych.log.table import append, append_all, append_in_statement, row_values
from diptych.sql import execute
from diptych.sql.entity import MappedEntity
from diptych.sql.failures import TransactionConflict
from diptych.sql.postgres_driver import fetch_raw
from diptych.sql.statements import RawStatement, bound, is_direct
from diptych.write.statements import (
    Columns,
    ColumnValues,
    RowValues,
    condition_of,
    constants_of,
    delete_statement,
    equal,
    has_sendable_defaults,
    identity_of,
    in_order,
    insert_many_statement,
    insert_statement,
    named,
    numbered,
    parameters_of,
    row_again,
    update_statement,
)

_NOT_SUPPORTED = "0A000"

_LONGEST_NAME = 63
"""Longest name of a column, in bytes: PostgreSQL cuts longer names, which would be missing in the image."""


async def insert(
    connection: AsyncConnection, entity: MappedEntity, values: ColumnValues, context: CommandContext
) -> Change:
    """Adds a row. The change has the state in the database: with defaults and conversions."""
    if values and is_possible_together(connection, entity):
        given = in_order(entity, _constants(entity, "default") | dict(values))
        arguments = row_values(entity, "created", None, None, context) | numbered(given)
        return await _together(connection, entity, None, _insertion(entity, tuple(given)), arguments)
    inserted = entity.row(await execute.insert(connection, *insert_statement(entity, values)))
    after = await _finished(connection, entity, inserted)
    described = entity.describe(connection.dialect)
    change = Change(described, inserted, None) if after is None else Change(described, None, after)
    return await append(connection, entity, change, context)


async def _finished(connection: AsyncConnection, entity: MappedEntity, row: RowValues) -> RowValues | None:
    """Returns the row after a statement that returned ``row``, and after its triggers; None if one deleted it."""
    if entity.is_finished_by_database or execute.has_triggers(connection, entity):
        return await row_again(connection, entity, row)
    return row


async def insert_all(
    connection: AsyncConnection,
    entity: MappedEntity,
    rows: Sequence[ColumnValues],
    context: CommandContext,
) -> list[Change]:
    """Adds rows. On PostgreSQL by a few statements for all of them, and a few for their rows of the log."""
    # Where triggers may change the rows again, each row has its entry before these changes have theirs.
    is_plain = not entity.is_finished_by_database and not entity.has_effects and all(rows)
    if connection.dialect.name != "postgresql" or not is_plain:
        return [await insert(connection, entity, values, context) for values in rows]
    made: dict[int, Change] = {}
    for given, numbers in _alike(rows).items():
        statement, values = insert_many_statement(entity, given, [rows[number] for number in numbers])
        found = (await execute.execute(connection, statement, values)).all()
        described = entity.describe(connection.dialect)
        made |= {n: Change(described, None, entity.row(row)) for n, row in zip(numbers, found, strict=True)}
    return await append_all(connection, entity, [made[number] for number in range(len(rows))], context)


def _alike(rows: Sequence[ColumnValues]) -> Mapping[Columns, list[int]]:
    """Returns the numbers of the rows by the columns that they have values for."""
    found: dict[Columns, list[int]] = {}
    for number, values in enumerate(rows):
        found.setdefault(tuple(values), []).append(number)
    return found


async def update(
    connection: AsyncConnection,
    entity: MappedEntity,
    before: RowValues,
    values: ColumnValues,
    context: CommandContext,
) -> Change:
    """Changes this row, locked by the transaction."""
    if is_possible_together(connection, entity):
        given = in_order(entity, _constants(entity, "onupdate") | dict(values))
        arguments = row_values(entity, "updated", before, None, context) | numbered(given)
        arguments |= named(identity_of(entity, before))
        return await _together(connection, entity, before, _update(entity, tuple(given)), arguments)
    statement, parameters = update_statement(entity, before, values)
    changed = await execute.change_row(connection, statement, parameters, entity.table.name)
    after = await _finished(connection, entity, entity.row(changed.one()))
    change = Change(entity.describe(connection.dialect), before, after)
    return await append(connection, entity, change, context)


async def delete(
    connection: AsyncConnection, entity: MappedEntity, before: RowValues, context: CommandContext
) -> Change:
    """Deletes this row, locked by the transaction."""
    if is_possible_together(connection, entity):
        arguments = row_values(entity, "deleted", before, before, context)
        arguments |= named(identity_of(entity, before))
        return await _together(connection, entity, before, _deletion(entity), arguments)
    statement, parameters = delete_statement(entity, before)
    deleted = await execute.change_row(connection, statement, parameters, entity.table.name)
    if deleted.rowcount != 1:  # a trigger has kept the row
        raise NoResultFound("No row was found when one was required")
    change = Change(entity.describe(connection.dialect), before, None)
    return await append(connection, entity, change, context)


# A change and its row of the log in a single statement


def is_possible_together(connection: AsyncConnection, entity: MappedEntity) -> bool:
    """Returns whether rows of this table can be changed together with their rows of the log."""
    return execute.takes_raw_statements(connection) and _is_possible(entity) and entity not in _refused


async def _together(
    connection: AsyncConnection,
    entity: MappedEntity,
    before: RowValues | None,
    statement: RawStatement,
    arguments: Mapping[str, Any],
) -> Change:
    """Changes a single row by this statement, which returns the row after the change. Raises an engine's errors."""
    try:
        rows = await fetch_raw(connection, statement, arguments)
    except DBAPIError as error:
        # An altered table has the same code: the driver has forgotten its statements, and another attempt succeeds.
        is_altered = type(error.orig).__name__ == "InvalidCachedStatementError"
        if getattr(error.orig, "sqlstate", None) == _NOT_SUPPORTED and not is_altered:
            _refused.add(entity)
            raise TransactionConflict("to be run again, with two statements for each change") from error
        raise
    if not rows:  # a trigger has kept the row as it was
        raise NoResultFound("No row was found when one was required")
    if len(rows) > 1:  # the mapping's primary key is none of the table's
        raise MultipleResultsFound("Multiple rows were found when exactly one was required")
    *row, position, number, snapshot = rows[0]
    after = entity.row(row) if row else None
    return Change(entity.describe(connection.dialect), before, after, position, number, snapshot)


_refused: weakref.WeakSet[MappedEntity] = weakref.WeakSet()
"""Entities whose tables have rules, which PostgreSQL does not follow in a ``WITH``."""


@functools.lru_cache(maxsize=1024)
def _is_possible(entity: MappedEntity) -> bool:
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
def _constants(entity: MappedEntity, kind: Literal["default", "onupdate"]) -> dict[sa.Column[Any], Any]:
    return {column: bound(column.type, value) for column, value in constants_of(entity, kind).items()}


@functools.lru_cache(maxsize=1024)
def _insertion(entity: MappedEntity, given: Columns) -> RawStatement:
    return _with_log_row(entity, sa.insert(entity.table).values(parameters_of(given)))


@functools.lru_cache(maxsize=1024)
def _update(entity: MappedEntity, given: Columns) -> RawStatement:
    return _with_log_row(entity, sa.update(entity.table).where(*_is_it(entity)).values(parameters_of(given)))


@functools.lru_cache(maxsize=1024)
def _deletion(entity: MappedEntity) -> RawStatement:
    key = entity.columns[entity.primary_key[0]]
    deleted = sa.delete(entity.table).where(*_is_it(entity)).returning(key).cte("diptych_deleted")
    return RawStatement(sa.select(*append_in_statement(deleted, {}).c), marker=entity.marker)


def _with_log_row(entity: MappedEntity, change: Any) -> RawStatement:
    """Returns the statement of a change and of the log's row, with key and image of the row after the change."""
    returned = (column.label(name) for name, column in entity.columns.items())
    changed = change.returning(*returned).cte("diptych_changed")
    image = sa.select(*(_as_in_python(column) for column in changed.c)).cte("diptych_image")
    key = sa.select(*(image.c[name] for name in entity.entry_columns)).cte("diptych_key")
    logged = append_in_statement(image.join(key, sa.true()), {"image": _json(image), "key": _json(key)})
    both = sa.select(*changed.c, *logged.c).select_from(changed.join(logged, sa.true()))
    return RawStatement(both, marker=entity.marker)


def _as_in_python(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Returns the value of Python: the driver turns infinite days into Python's first and last day."""
    if not isinstance(column.type, sa.Date):
        return column
    first, last = (
        (column == _day("-infinity"), _day("0001-01-01")),
        (column == _day("infinity"), _day("9999-12-31")),
    )
    return sa.case(first, last, else_=column).label(column.key)


def _day(text: str) -> sa.ColumnElement[Any]:
    return sa.cast(sa.literal(text, sa.Text), sa.Date)


def _json(row: sa.CTE) -> sa.ColumnElement[str]:
    return sa.cast(sa.func.row_to_json(row.table_valued()), sa.Text)


def _is_it(entity: MappedEntity) -> tuple[sa.ColumnElement[bool], ...]:
    return tuple(equal(condition_of({entity.columns[name]: name for name in entity.primary_key})))
