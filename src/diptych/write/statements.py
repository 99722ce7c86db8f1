"""The statements behind ``ORMService``, over the tables of mapped classes: no value ever becomes a part of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import AmbiguousLookupError, Fault, InvalidValueError
from diptych.write.entities import MappedEntity

RowValues = dict[str, Any]


class Lookup:
    """Which row is meant: the one whose ``lookup_column`` (the primary key, if not given) has this value.

    Raises ``UnknownColumnError``, and ``InvalidValueError`` for a value of another type than the column's.
    """

    def __init__(self, entity: MappedEntity, value: Any, lookup_column: str | None) -> None:
        self.entity = entity
        self.name = " and ".join(entity.primary_key) if lookup_column is None else str(lookup_column)
        self.values: Mapping[sa.Column[Any], Any] | None = entity.convert_lookup(
            _key(entity, value) if lookup_column is None else {lookup_column: value}
        )

    async def find(self, connection: AsyncConnection, *, lock: bool = False) -> RowValues | None:
        """The row, if there is one. Raises ``AmbiguousLookupError`` if there are several."""
        if self.values is None:
            return None  # a value that no row can have
        statement = sa.select(*self.entity.columns.values()).where(*_equal(self.values)).limit(2)
        if lock:
            # The row is locked before it is read: what is logged as its state before is what the change replaced.
            statement = statement.with_for_update()
        rows = (await connection.execute(statement)).all()
        if len(rows) > 1:
            raise AmbiguousLookupError(self.entity.name, self.name)
        return self.entity.row(rows[0]) if rows else None


async def insert_row(
    connection: AsyncConnection, entity: MappedEntity, values: Mapping[sa.Column[Any], Any]
) -> RowValues:
    """Returns the row as the database holds it: its defaults and conversions are the truth."""
    statement = sa.insert(entity.table).values(dict(values)).returning(*entity.columns.values())
    return entity.row((await connection.execute(statement)).one())


async def update_row(
    connection: AsyncConnection, entity: MappedEntity, row: RowValues, values: Mapping[sa.Column[Any], Any]
) -> RowValues:
    """Changes this row and returns it as the database holds it then."""
    statement = sa.update(entity.table).where(*_equal(_identity(entity, row))).values(dict(values))
    return entity.row((await connection.execute(statement.returning(*entity.columns.values()))).one())


async def delete_row(connection: AsyncConnection, entity: MappedEntity, row: RowValues) -> None:
    """Deletes this row."""
    await connection.execute(sa.delete(entity.table).where(*_equal(_identity(entity, row))))


async def rows_after(
    connection: AsyncConnection, entity: MappedEntity, last: RowValues | None, limit: int
) -> list[RowValues]:
    """At most ``limit`` rows in the order of the primary key, those after ``last``."""
    key = [entity.columns[name] for name in entity.primary_key]
    statement = sa.select(*entity.columns.values()).order_by(*key).limit(limit)
    if last is not None:
        after = [sa.literal(value, column.type) for column, value in _identity(entity, last).items()]
        statement = statement.where(sa.tuple_(*key) > sa.tuple_(*after))
    return [entity.row(values) for values in await connection.execute(statement)]


def _key(entity: MappedEntity, value: Any) -> dict[str, Any]:
    names = entity.primary_key
    if len(names) == 1:
        return {names[0]: value}
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len(names):
        fault = Fault(", ".join(names), f"must be looked up by a tuple of {len(names)} values")
        raise InvalidValueError(entity.name, [fault])
    return dict(zip(names, value, strict=True))


def _identity(entity: MappedEntity, row: RowValues) -> dict[sa.Column[Any], Any]:
    return {entity.columns[name]: row[name] for name in entity.primary_key}


def _equal(values: Mapping[sa.Column[Any], Any]) -> list[sa.ColumnElement[bool]]:
    return [column == value if value is not None else column.is_(None) for column, value in values.items()]
