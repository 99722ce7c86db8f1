"""The SQL side of a read model: Core selects of just the columns that its documents and lists need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import sqlalchemy as sa

from diptych.ports import Row
from diptych.write.engines import reading
from diptych.write.entities import MappedEntity, has_code_point_order
from diptych.write.failures import translated
from diptych.write.orm import ORMService


class SqlRows:
    """A ``RowSource``: rows of one entity, with ``columns`` only, looked up by ``key`` and listed in orders."""

    def __init__(self, orm: ORMService, entity: MappedEntity, key: str, columns: Sequence[str]) -> None:
        self._orm = orm
        self._entity = entity
        self._names = tuple(columns)
        self._selected = sa.select(*(entity.columns[name] for name in columns))
        self._key_name = key
        self._key = entity.columns[key]
        self._one = self._selected.where(self._key == sa.bindparam("key", type_=self._key.type))

    async def one(self, key: Any) -> Row | None:
        if not self._entity.holds(self._key_name, key):
            return None
        rows = await self._fetch(self._one, {"key": key})
        return rows[0] if rows else None

    async def page(self, order: Sequence[str], after: Sequence[Any] | None, limit: int) -> list[Row]:
        columns = [self._in_code_points(self._entity.columns[name]) for name in order]
        statement = self._selected.order_by(*columns).limit(limit)
        if after is not None:
            statement = statement.where(sa.tuple_(*columns) > sa.tuple_(*self._literals(order, after)))
        return await self._fetch(statement)

    async def scan(self, batch_size: int) -> AsyncIterator[list[Row]]:
        key = [self._entity.columns[name] for name in self._entity.primary_key]
        statement = self._selected.add_columns(*key).order_by(*key).limit(batch_size)
        after: Sequence[Any] | None = None
        while True:
            batch = statement
            if after is not None:
                batch = statement.where(
                    sa.tuple_(*key) > sa.tuple_(*self._literals(self._entity.primary_key, after))
                )
            with translated(self._orm.engines, self._entity):
                async with reading(self._orm.engines) as connection:
                    found = (await connection.execute(batch)).all()
            if found:
                yield [dict(zip(self._names, values, strict=False)) for values in found]
            if len(found) < batch_size:
                return
            after = found[-1][len(self._names) :]

    async def settle(self) -> None:
        with translated(self._orm.engines, self._entity):
            await self._orm.engines.settle()

    async def count(self) -> int:
        with translated(self._orm.engines, self._entity):
            async with reading(self._orm.engines) as connection:
                count = sa.select(sa.func.count()).select_from(self._entity.table)
                return int((await connection.execute(count)).scalar_one())

    async def _fetch(self, statement: sa.Select[Any], values: dict[str, Any] | None = None) -> list[Row]:
        with translated(self._orm.engines, self._entity):
            async with reading(self._orm.engines) as connection:
                result = await connection.execute(statement, values)
                return [dict(zip(self._names, row, strict=True)) for row in result]

    def _literals(self, names: Sequence[str], values: Sequence[Any]) -> list[Any]:
        columns = (self._entity.columns[name] for name in names)
        return [sa.literal(value, column.type) for column, value in zip(columns, values, strict=True)]

    def _in_code_points(self, column: sa.Column[Any]) -> sa.ColumnElement[Any]:
        """The column as Redis orders it; named only where the database would do otherwise, to keep its index."""
        dialect = self._orm.engines.reader.dialect
        if has_code_point_order(column, dialect) or not isinstance(column.type, sa.String):
            return column
        return column.collate("C" if dialect.name == "postgresql" else "BINARY")
