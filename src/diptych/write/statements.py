"""The statements behind ``ORMService``, over the tables of mapped classes. Values are always parameters."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import AmbiguousLookupError, Fault, InvalidValueError, UnreadableRowError
from diptych.sql.description import Unreadable
from diptych.sql.entity import MARKER, MappedEntity
from diptych.sql.execute import CommandView, execute, fetch_few
from diptych.sql.statements import PreparedSelect, PreparedWrite
from diptych.sql.view import fetched_carefully, is_of_a_value
from diptych.write.defaults import has_sendable_defaults

RowValues = dict[str, Any]
"""The values of a row by attribute name."""

ColumnValues = Mapping[sa.Column[Any], Any]

Columns = tuple[sa.Column[Any], ...]

Condition = tuple[tuple[sa.Column[Any], bool], ...]
"""Columns to be compared with parameters; True for a column to be compared with null instead."""


class Lookup:
    """A look-up of the row whose ``lookup_column`` (the primary key, if not given) has this value.

    Raises ``UnknownColumnError``, and ``InvalidValueError`` for a value of a wrong type.
    """

    def __init__(self, entity: MappedEntity, value: Any, lookup_column: str | None) -> None:
        self.entity = entity
        self.value = value
        self.name = " and ".join(entity.primary_key) if lookup_column is None else str(lookup_column)
        self.values: ColumnValues | None = entity.convert_lookup(
            _key(entity, value) if lookup_column is None else {lookup_column: value}
        )

    async def find(self, connection: AsyncConnection, *, lock: bool = False) -> RowValues | None:
        """Returns the row; None without a row. Raises ``AmbiguousLookupError`` if several rows match.

        With ``lock``, for a row to be changed, values may be ``Unreadable``; else ``UnreadableRowError`` is raised.
        """
        if self.values is None:
            return None  # no row can have the value
        condition, values = condition_of(self.values), named(self.values)
        select = _select(self.entity, condition, lock)
        try:
            rows = await fetch_few(connection, select, values)
        except Exception as error:
            if not is_of_a_value(error):
                raise
            rows = await fetched_carefully(CommandView(connection), select.select, values)
            if not lock:
                for row in rows:
                    check_readable(self.entity, self.value, self.entity.row(row))
                # The row was mended meanwhile, maybe between two of these statements.
                rows = await fetch_few(connection, select, values)
        if len(rows) > 1:
            raise AmbiguousLookupError(self.entity.name, self.name)
        return self.entity.row(rows[0]) if rows else None


def check_readable(
    entity: MappedEntity, key: Any, row: RowValues, but: Collection[sa.Column[Any]] = ()
) -> None:
    """Raises ``UnreadableRowError`` if a value of the row can't be loaded, except in the columns ``but``."""
    for name, value in row.items():
        if isinstance(value, Unreadable) and entity.columns[name] not in but:
            raise UnreadableRowError(entity.full_name, key, name, value.reason)


def insert_statement(entity: MappedEntity, values: ColumnValues) -> tuple[PreparedWrite, dict[str, Any]]:
    """Returns the statement adding a row, and its parameters.

    The statement returns the row as the database holds it: with its defaults and conversions.
    """
    if values and has_sendable_defaults(entity):
        given = in_order(entity, values)
        return _insert_given(entity, tuple(given)), numbered(given)
    return _insert(entity), _stored(values)


def insert_many_statement(
    entity: MappedEntity, given: Columns, rows: Sequence[ColumnValues]
) -> tuple[sa.Executable, list[dict[str, Any]]]:
    """Returns the statement adding many rows with values for these columns, and its parameters.

    The rows are returned in the order of the parameters.
    """
    statement = sa.insert(entity.table).returning(*entity.columns.values(), sort_by_parameter_order=True)
    return _own(entity, statement), [{column.key: values[column] for column in given} for values in rows]


def update_statement(
    entity: MappedEntity, row: RowValues, values: ColumnValues
) -> tuple[PreparedWrite, dict[str, Any]]:
    """Returns the statement changing this row, and its parameters. The statement returns the row after the change."""
    identity = identity_of(entity, row)
    condition = condition_of(identity)
    if has_sendable_defaults(entity):
        given = in_order(entity, values)
        return _update_given(entity, condition, tuple(given)), numbered(given) | named(identity)
    return _update(entity, condition), _stored(values) | named(identity)


def delete_statement(entity: MappedEntity, row: RowValues) -> tuple[sa.Executable, dict[str, Any]]:
    """Returns the statement deleting this row, and its parameters."""
    identity = identity_of(entity, row)
    return _delete(entity, condition_of(identity)), named(identity)


async def row_again(connection: AsyncConnection, entity: MappedEntity, row: RowValues) -> RowValues | None:
    """Returns the row after its change and the triggers after the statement; None if a trigger deleted the row."""
    identity = identity_of(entity, row)
    found = await fetch_few(connection, _select(entity, condition_of(identity), False), named(identity))
    return entity.row(found[0]) if found else None


async def rows_after(
    connection: AsyncConnection, entity: MappedEntity, last: RowValues | None, limit: int
) -> list[RowValues]:
    """Returns at most ``limit`` rows after ``last``, in the order of the primary key."""
    key = [entity.columns[name] for name in entity.primary_key]
    statement = sa.select(*entity.columns.values()).order_by(*key).limit(limit)
    if last is not None:
        after = [sa.literal(value, column.type) for column, value in identity_of(entity, last).items()]
        statement = statement.where(sa.tuple_(*key) > sa.tuple_(*after))
    try:
        return [entity.row(values) for values in await execute(connection, statement)]
    except Exception as error:
        if not is_of_a_value(error):
            raise
    for row in map(entity.row, await fetched_carefully(CommandView(connection), statement)):
        names = [row[name] for name in entity.primary_key]
        check_readable(entity, names[0] if len(names) == 1 else tuple(names), row)
    # The rows were mended meanwhile.
    return [entity.row(values) for values in await execute(connection, statement)]


def _key(entity: MappedEntity, value: Any) -> dict[str, Any]:
    names = entity.primary_key
    if len(names) == 1:
        return {names[0]: value}
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len(names):
        fault = Fault(", ".join(names), f"must be looked up by a tuple of {len(names)} values")
        raise InvalidValueError(entity.name, [fault])
    return dict(zip(names, value, strict=True))


def identity_of(entity: MappedEntity, row: RowValues) -> dict[sa.Column[Any], Any]:
    """Returns the primary key of a row by column."""
    return {entity.columns[name]: row[name] for name in entity.primary_key}


# Each statement is made once and executed with its values as parameters: SQLAlchemy takes as long to make a
# statement, and to find its compiled form, as to execute the statement.


@functools.lru_cache(maxsize=1024)
def _select(entity: MappedEntity, condition: Condition, lock: bool) -> PreparedSelect:
    statement = sa.select(*entity.columns.values()).where(*equal(condition)).limit(2)
    # The row is locked before it is read, so that the logged state before the change is the state that was replaced.
    return PreparedSelect(statement.with_for_update() if lock else statement)


def in_order(entity: MappedEntity, given: ColumnValues) -> dict[sa.Column[Any], Any]:
    """Returns the values in the table's order: any order of fields leads to the same statement."""
    return {column: given[column] for column in entity.table.columns if column in given}


def parameters_of(given: Columns) -> dict[sa.Column[Any], sa.BindParameter[Any]]:
    """Returns parameters for values of these columns."""
    return {column: sa.bindparam(_number(n), type_=column.type) for n, column in enumerate(given)}


def numbered(given: ColumnValues) -> dict[str, Any]:
    """Returns the values by the names of the parameters of ``parameters_of``."""
    return {_number(n): value for n, value in enumerate(given.values())}


def _number(number: int) -> str:
    return f"diptych_given_{number}"


@functools.lru_cache(maxsize=1024)
def _insert_given(entity: MappedEntity, given: Columns) -> PreparedWrite:
    statement = sa.insert(entity.table).values(parameters_of(given))
    return PreparedWrite(_own(entity, statement.returning(*entity.columns.values())), inline=True)


@functools.lru_cache(maxsize=1024)
def _insert(entity: MappedEntity) -> PreparedWrite:
    return PreparedWrite(_own(entity, sa.insert(entity.table).returning(*entity.columns.values())))


@functools.lru_cache(maxsize=1024)
def _update_given(entity: MappedEntity, condition: Condition, given: Columns) -> PreparedWrite:
    statement = sa.update(entity.table).where(*equal(condition)).values(parameters_of(given))
    return PreparedWrite(_own(entity, statement.returning(*entity.columns.values())), inline=True)


@functools.lru_cache(maxsize=1024)
def _update(entity: MappedEntity, condition: Condition) -> PreparedWrite:
    statement = sa.update(entity.table).where(*equal(condition))
    return PreparedWrite(_own(entity, statement.returning(*entity.columns.values())))


@functools.lru_cache(maxsize=1024)
def _delete(entity: MappedEntity, condition: Condition) -> sa.Executable:
    return _own(entity, sa.delete(entity.table).where(*equal(condition)))


def _own(entity: MappedEntity, statement: sa.UpdateBase) -> sa.UpdateBase:
    """Returns the statement, marked for triggers as diptych's own: diptych writes its row of the log itself."""
    return statement.execution_options(**{MARKER: entity.marker}) if entity.marker else statement


def condition_of(values: ColumnValues) -> Condition:
    """Returns the condition for columns with these values."""
    return tuple((column, value is None) for column, value in values.items())


def equal(condition: Condition) -> Iterable[sa.ColumnElement[bool]]:
    """Yields the parts of a condition, with a parameter for each value except null."""
    for number, (column, is_null) in enumerate(condition):
        if is_null:
            yield column.is_(None)
        else:
            yield column == sa.bindparam(_name(number), type_=column.type)


def named(values: ColumnValues) -> dict[str, Any]:
    """Returns the values of a condition by the names of its parameters."""
    return {_name(number): value for number, value in enumerate(values.values()) if value is not None}


def _name(number: int) -> str:
    return f"diptych_{number}"  # no column of an application has such a name


def _stored(values: ColumnValues) -> dict[str, Any]:
    return {column.key: value for column, value in values.items()}
