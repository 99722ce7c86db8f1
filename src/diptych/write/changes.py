"""Changes of rows, each written with its row of the change log.

On PostgreSQL, for most tables, both are a single statement, of ``write.logged``.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy.exc import DBAPIError, NoResultFound
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import AmbiguousLookupError
from diptych.log import Change, CommandContext
from diptych.log.append import append, append_all, row_values
from diptych.sql import execute
from diptych.sql.entity import MappedEntity
from diptych.sql.failures import TransactionConflict
from diptych.sql.postgres.driver import fetch_raw, is_of_altered_table
from diptych.sql.statements import RawStatement
from diptych.write import logged
from diptych.write.statements import (
    Columns,
    ColumnValues,
    Lookup,
    RowValues,
    condition_of,
    delete_statement,
    in_order,
    insert_many_statement,
    insert_statement,
    named,
    numbered,
    row_again,
    update_statement,
)

Making: TypeAlias = Callable[[AsyncConnection], Awaitable[Change | None]]
"""A change by a single statement, made on a connection. The result is None if there is no row to change."""

Inserting: TypeAlias = Callable[[AsyncConnection], Awaitable[Change]]
"""The insertion of a row by a single statement, made on a connection."""

_NOT_SUPPORTED = "0A000"

_SEVERAL_ROWS = "21000"


async def insert(
    connection: AsyncConnection, entity: MappedEntity, values: ColumnValues, context: CommandContext
) -> Change:
    """Adds a row, by a statement for the row and a second for the log.

    The change has the state in the database: with defaults and conversions.
    """
    inserted = entity.row(await execute.write(connection, "insert", *insert_statement(entity, values)))
    after = await _finished(connection, entity, inserted)
    described = entity.describe(connection.dialect)
    change = Change(described, inserted, None) if after is None else Change(described, None, after)
    return await append(connection, entity, change, context)


async def _finished(connection: AsyncConnection, entity: MappedEntity, row: RowValues) -> RowValues | None:
    """Returns the row as triggers have left ``row``, returned by a statement; None if a trigger deleted the row."""
    if entity.is_finished_by_database or execute.has_triggers(connection, entity):
        return await row_again(connection, entity, row)
    return row


async def insert_all(
    connection: AsyncConnection,
    entity: MappedEntity,
    rows: Sequence[ColumnValues],
    context: CommandContext,
) -> list[Change]:
    """Adds rows. On PostgreSQL by a few statements for all rows, and a few for their rows of the log."""
    # Where triggers may change the rows again, each row has its entry before these changes have theirs.
    is_plain = not entity.is_finished_by_database and not entity.has_effects and all(rows)
    if connection.dialect.name != "postgresql" or not is_plain:
        return [await _insert_one(connection, entity, values, context) for values in rows]
    made: dict[int, Change] = {}
    for given, numbers in _alike(rows).items():
        statement, values = insert_many_statement(entity, given, [rows[number] for number in numbers])
        found = (await execute.execute(connection, statement, values)).all()
        described = entity.describe(connection.dialect)
        made |= {n: Change(described, None, entity.row(row)) for n, row in zip(numbers, found, strict=True)}
    return await append_all(connection, entity, [made[number] for number in range(len(rows))], context)


async def _insert_one(
    connection: AsyncConnection, entity: MappedEntity, values: ColumnValues, context: CommandContext
) -> Change:
    making = one_insert(execute.takes_raw_statements(connection), entity, values, context)
    return await (insert(connection, entity, values, context) if making is None else making(connection))


def _alike(rows: Sequence[ColumnValues]) -> Mapping[Columns, list[int]]:
    """Returns the numbers of the rows by the columns with given values."""
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
    """Changes this row, locked by the transaction, by a statement for the change and a second for the log."""
    changed = entity.row(await execute.write(connection, "change", *update_statement(entity, before, values)))
    after = await _finished(connection, entity, changed)
    change = Change(entity.describe(connection.dialect), before, after)
    return await append(connection, entity, change, context)


async def delete(
    connection: AsyncConnection, entity: MappedEntity, before: RowValues, context: CommandContext
) -> Change:
    """Deletes this row, locked by the transaction, by a statement for the deletion and a second for the log."""
    statement, parameters = delete_statement(entity, before)
    deleted = await execute.delete_row(connection, statement, parameters, entity.table.name)
    if deleted.rowcount != 1:  # a trigger has kept the row
        raise NoResultFound("No row was found when one was required")
    change = Change(entity.describe(connection.dialect), before, None)
    return await append(connection, entity, change, context)


# A change and its row of the log in a single statement


def one_insert(
    takes_raw: bool, entity: MappedEntity, values: ColumnValues, context: CommandContext
) -> Inserting | None:
    """Returns the insertion of a row as a single statement; None where impossible."""
    if not (values and _is_possible(takes_raw, entity)):
        return None
    given = in_order(entity, values)
    arguments = row_values(entity, "created", None, None, context) | numbered(given)
    statement = logged.insertion(entity, tuple(given))

    async def make(connection: AsyncConnection) -> Change:
        rows = await _fetch(connection, entity, statement, arguments)
        [[*row, position, number, snapshot]] = rows or [_kept()]
        return Change(entity.describe(connection.dialect), None, entity.row(row), position, number, snapshot)

    return make


def one_update(
    takes_raw: bool, lookup: Lookup, values: ColumnValues, context: CommandContext
) -> Making | None:
    """Returns the change of the row looked up as a single statement; None where impossible."""
    entity = lookup.entity
    if not (values and lookup.values and _is_possible(takes_raw, entity)):
        return None
    given = in_order(entity, values)
    arguments = row_values(entity, "updated", None, None, context) | numbered(given) | named(lookup.values)
    statement = logged.update(entity, condition_of(lookup.values), tuple(given))
    keys = len(entity.entry_columns)

    async def make(connection: AsyncConnection) -> Change | None:
        rows = await _fetch(connection, entity, statement, arguments, lookup)
        if not rows:
            return None
        [[*values, position, number, snapshot]] = rows
        if position is None:
            _kept()
        before = dict(zip(entity.entry_columns, values[:keys], strict=True))
        described = entity.describe(connection.dialect)
        return Change(described, before, entity.row(values[keys:]), position, number, snapshot)

    return make


def one_deletion(takes_raw: bool, lookup: Lookup, context: CommandContext) -> Making | None:
    """Returns the deletion of the row looked up as a single statement; None where impossible."""
    entity = lookup.entity
    if not (lookup.values and _is_possible(takes_raw, entity)):
        return None
    arguments = row_values(entity, "deleted", None, None, context) | named(lookup.values)
    statement = logged.deletion(entity, condition_of(lookup.values))

    async def make(connection: AsyncConnection) -> Change | None:
        rows = await _fetch(connection, entity, statement, arguments, lookup)
        if not rows:
            return None
        [[*values, position, number, snapshot]] = rows
        if position is None:
            _kept()
        described = entity.describe(connection.dialect)
        return Change(described, entity.row(values), None, position, number, snapshot)

    return make


def _kept() -> Any:
    raise NoResultFound("No row was found when one was required")  # a trigger has kept the row as it was


def _is_possible(takes_raw: bool, entity: MappedEntity) -> bool:
    return takes_raw and logged.is_possible(entity) and entity not in _refused


async def _fetch(
    connection: AsyncConnection,
    entity: MappedEntity,
    statement: RawStatement,
    arguments: Mapping[str, Any],
    lookup: Lookup | None = None,
) -> Sequence[Sequence[Any]]:
    """Executes the statement of a change. Raises an engine's errors, ``AmbiguousLookupError``."""
    try:
        return await fetch_raw(connection, statement, arguments)
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        if state == _SEVERAL_ROWS and lookup is not None:
            raise AmbiguousLookupError(entity.name, lookup.name) from error
        # An altered table has the same code: the driver has forgotten its statements, and another attempt succeeds.
        if (state == _NOT_SUPPORTED and not is_of_altered_table(error)) or logged.UNREADABLE in str(
            error.orig
        ):
            _refused.add(entity)
            raise TransactionConflict("to be run again, with two statements for each change") from error
        raise


_refused: weakref.WeakSet[MappedEntity] = weakref.WeakSet()
"""Entities whose tables have rules, which PostgreSQL does not follow in a ``WITH``, or values unknown to Python."""
