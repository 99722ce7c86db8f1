"""The statements behind ``ORMService``, over the tables of mapped classes: no value ever becomes a part of one."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import AmbiguousLookupError, Fault, InvalidValueError, UnreadableRowError
from diptych.sql.compiled import CompiledStatement
from diptych.sql.description import Unreadable
from diptych.sql.entity import MappedEntity
from diptych.sql.execute import change_row, execute, insert_here, select_few
from diptych.sql.postgres.raw_statements import RawStatement, is_direct
from diptych.sql.prepared import PreparedSelect
from diptych.sql.unreadable import fetched_carefully, is_of_a_value
from diptych.sql.view import View

RowValues = dict[str, Any]

ColumnValues = Mapping[sa.Column[Any], Any]

Columns = tuple[sa.Column[Any], ...]

Condition = tuple[tuple[sa.Column[Any], bool], ...]
"""Columns that are to have certain values, each with whether it is to be null."""


class Lookup:
    """Which row is meant: the one whose ``lookup_column`` (the primary key, if not given) has this value.

    Raises ``UnknownColumnError``, and ``InvalidValueError`` for a value of another type than the column's.
    """

    def __init__(self, entity: MappedEntity, value: Any, lookup_column: str | None) -> None:
        self.entity = entity
        self.value = value
        self.name = " and ".join(entity.primary_key) if lookup_column is None else str(lookup_column)
        self.values: ColumnValues | None = entity.convert_lookup(
            _key(entity, value) if lookup_column is None else {lookup_column: value}
        )

    async def find(self, connection: AsyncConnection, *, lock: bool = False) -> RowValues | None:
        """The row, if there is one. Raises ``AmbiguousLookupError`` if there are several.

        Of one that is locked, to be changed, values may be ``Unreadable``; else ``UnreadableRowError`` is raised.
        """
        if self.values is None:
            return None  # a value that no row can have
        condition, values = condition_of(self.values), named(self.values)
        rows: Sequence[Sequence[Any]]
        try:
            rows = await self._rows(connection, condition, values, lock)
        except Exception as error:
            if not is_of_a_value(error):
                raise
            select = _select(self.entity, condition, lock).select
            rows = await fetched_carefully(View(connection), select, values)
            if not lock:
                for row in rows:
                    self.check_readable(self.entity.row(row))
                # It has been mended meanwhile, maybe between two of these statements.
                rows = await self._rows(connection, condition, values, lock)
        if len(rows) > 1:
            raise AmbiguousLookupError(self.entity.name, self.name)
        return self.entity.row(rows[0]) if rows else None

    def check_readable(self, row: RowValues, but: Collection[sa.Column[Any]] = ()) -> None:
        """Raises ``UnreadableRowError`` for a row with a value that can't be loaded, ``but`` in these columns."""
        check_readable(self.entity, self.value, row, but)

    async def _rows(
        self, connection: AsyncConnection, condition: Condition, values: dict[str, Any], lock: bool
    ) -> Sequence[Sequence[Any]]:
        if connection.dialect.name == "postgresql" and has_direct_columns(self.entity):
            return await _direct_select(self.entity, condition, lock).fetch_within(connection, values)
        return await select_few(connection, _select(self.entity, condition, lock), values)


def check_readable(
    entity: MappedEntity, key: Any, row: RowValues, but: Collection[sa.Column[Any]] = ()
) -> None:
    """Raises ``UnreadableRowError`` for a row with a value that can't be loaded, ``but`` in these columns."""
    for name, value in row.items():
        if isinstance(value, Unreadable) and entity.columns[name] not in but:
            raise UnreadableRowError(entity.full_name, key, name, value.reason)


async def insert_row(connection: AsyncConnection, entity: MappedEntity, values: ColumnValues) -> RowValues:
    """Returns the row as the database holds it: its defaults and conversions are the truth."""
    if values and has_sendable_defaults(entity):
        given = in_order(entity, constants_of(entity, "default") | dict(values))
        prepare = functools.partial(_insert_here, entity, tuple(given))
        row = insert_here(connection, entity.table.name, prepare, numbered(given))
        if row is not None:
            return entity.row(row)
    inserted = await change_row(
        connection, _insert(entity), _stored(values), kind="insert", table=entity.table.name
    )
    return entity.row(inserted.one())


async def update_row(
    connection: AsyncConnection, entity: MappedEntity, row: RowValues, values: ColumnValues
) -> RowValues:
    """Changes this row and returns it as the database holds it then."""
    identity = identity_of(entity, row)
    statement = _update(entity, condition_of(identity))
    changed = await change_row(
        connection, statement, _stored(values) | named(identity), kind="change", table=entity.table.name
    )
    return entity.row(changed.one())


async def delete_row(connection: AsyncConnection, entity: MappedEntity, row: RowValues) -> None:
    """Deletes this row."""
    identity = identity_of(entity, row)
    statement = _delete(entity, condition_of(identity))
    deleted = await change_row(connection, statement, named(identity), kind="change", table=entity.table.name)
    if deleted.rowcount != 1:  # a trigger has kept it
        raise NoResultFound("No row was found when one was required")


async def row_again(connection: AsyncConnection, entity: MappedEntity, row: RowValues) -> RowValues:
    """The row as it is now that the statement which has changed it is over, and its triggers."""
    identity = identity_of(entity, row)
    found = await select_few(connection, _select(entity, condition_of(identity), False), named(identity))
    if len(found) != 1:
        raise NoResultFound("No row was found when one was required")
    return entity.row(found[0])


async def rows_after(
    connection: AsyncConnection, entity: MappedEntity, last: RowValues | None, limit: int
) -> list[RowValues]:
    """At most ``limit`` rows in the order of the primary key, those after ``last``."""
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
    for row in map(entity.row, await fetched_carefully(View(connection), statement)):
        names = [row[name] for name in entity.primary_key]
        check_readable(entity, names[0] if len(names) == 1 else tuple(names), row)
    # They have been mended meanwhile.
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
    """The primary key of a row, by column."""
    return {entity.columns[name]: row[name] for name in entity.primary_key}


# Each statement is made once and executed with its values as parameters: SQLAlchemy takes as long to make one, and to
# find out that it has compiled such a one before, as to execute it.


@functools.lru_cache(maxsize=1024)
def _select(entity: MappedEntity, condition: Condition, lock: bool) -> PreparedSelect:
    statement = sa.select(*entity.columns.values()).where(*equal(condition)).limit(2)
    # The row is locked before it is read: what is logged as its state before is what the change replaced.
    return PreparedSelect(statement.with_for_update() if lock else statement)


@functools.lru_cache(maxsize=1024)
def _direct_select(entity: MappedEntity, condition: Condition, lock: bool) -> RawStatement:
    return RawStatement(_select(entity, condition, lock).select)


@functools.lru_cache(maxsize=1024)
def has_direct_columns(entity: MappedEntity) -> bool:
    """Whether all of the table's columns are."""
    return all(is_direct(column.type) for column in entity.table.columns)


@functools.lru_cache(maxsize=1024)
def has_sendable_defaults(entity: MappedEntity) -> bool:
    """Whether those that the columns have in Python are constants, or parts of statements.

    A function is SQLAlchemy's to call, with its context.
    """
    columns = entity.table.columns
    defaults = [default for column in columns for default in (column.default, column.onupdate)]
    return not any(default is not None and default.is_callable for default in defaults)


def in_order(entity: MappedEntity, given: ColumnValues) -> dict[sa.Column[Any], Any]:
    """The values in the table's order: in whichever order somebody names the fields, there is one statement."""
    return {column: given[column] for column in entity.table.columns if column in given}


@functools.lru_cache(maxsize=1024)
def constants_of(entity: MappedEntity, kind: Literal["default", "onupdate"]) -> dict[sa.Column[Any], Any]:
    """The defaults that are values of Python."""
    defaults = {column: getattr(column, kind) for column in entity.table.columns}
    return {column: one.arg for column, one in defaults.items() if one is not None and one.is_scalar}


def parameters_of(given: Columns) -> dict[sa.Column[Any], sa.BindParameter[Any]]:
    """Parameters for values of these columns."""
    return {column: sa.bindparam(_number(n), type_=column.type) for n, column in enumerate(given)}


def numbered(given: ColumnValues) -> dict[str, Any]:
    """The values by the names of these parameters."""
    return {_number(n): value for n, value in enumerate(given.values())}


def _number(number: int) -> str:
    return f"diptych_given_{number}"


@functools.lru_cache(maxsize=1024)
def _insert_here(entity: MappedEntity, given: Columns, dialect: sa.Dialect) -> CompiledStatement:
    columns = entity.columns.values()
    statement = sa.insert(entity.table).values(parameters_of(given)).returning(*columns)
    return CompiledStatement(statement, dialect, [column.type for column in columns])


@functools.lru_cache(maxsize=1024)
def _insert(entity: MappedEntity) -> sa.Executable:
    return sa.insert(entity.table).returning(*entity.columns.values())


@functools.lru_cache(maxsize=1024)
def _update(entity: MappedEntity, condition: Condition) -> sa.Executable:
    return sa.update(entity.table).where(*equal(condition)).returning(*entity.columns.values())


@functools.lru_cache(maxsize=1024)
def _delete(entity: MappedEntity, condition: Condition) -> sa.Executable:
    return sa.delete(entity.table).where(*equal(condition))


def condition_of(values: ColumnValues) -> Condition:
    """That the columns have these values."""
    return tuple((column, value is None) for column, value in values.items())


def equal(condition: Condition) -> Iterable[sa.ColumnElement[bool]]:
    """The condition, with a parameter for each value that is not null."""
    for number, (column, is_null) in enumerate(condition):
        if is_null:
            yield column.is_(None)
        else:
            yield column == sa.bindparam(_name(number), type_=column.type)


def named(values: ColumnValues) -> dict[str, Any]:
    """The values of a condition, by the names of its parameters."""
    return {_name(number): value for number, value in enumerate(values.values()) if value is not None}


def _name(number: int) -> str:
    return f"diptych_{number}"  # no column of the application's is called so


def _stored(values: ColumnValues) -> dict[str, Any]:
    return {column.key: value for column, value in values.items()}
