"""The SQL side of a read model: Core selects of just the columns that its documents and lists need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import sqlalchemy as sa

from diptych.errors import WiringError
from diptych.ports import Entity, Row, Unreadable, View
from diptych.write.careful import fetched_carefully, is_of_a_value
from diptych.write.engines import fetched
from diptych.write.entities import MappedEntity
from diptych.write.failures import translated_reading
from diptych.write.held import ShortSelect
from diptych.write.orm import ORMService
from diptych.write.unit_of_work import current_unit_of_work
from diptych.write.view import view_of


class Join(Protocol):
    """A value of another row: the ``value`` of that row of ``entity`` whose ``remote`` equals the own ``local``."""

    @property
    def field(self) -> str: ...
    @property
    def local(self) -> str: ...
    @property
    def entity(self) -> Entity: ...
    @property
    def remote(self) -> str: ...
    @property
    def value(self) -> str: ...


class SqlRows:
    """A ``RowSource``: rows of one entity, with ``columns`` only, looked up by ``key`` and listed in orders.

    Each row has the values of ``joins`` too, under the names of their fields.
    """

    def __init__(
        self,
        orm: ORMService,
        entity: MappedEntity,
        key: str,
        columns: Sequence[str],
        joins: Sequence[Join] = (),
    ) -> None:
        self._orm = orm
        self._entity = entity
        self._names = (*columns, *(join.field for join in joins))
        own = [entity.columns[name] for name in columns]
        source, joined = _outer_joins(orm, entity, joins)
        self._selected = sa.select(*own, *joined).select_from(source)
        self._primary_key = [entity.columns[name] for name in entity.primary_key]
        self._key_name = key
        self._tables = {entity.full_name, *(join.entity.table for join in joins)}
        self._key = entity.columns[key]
        self._one = ShortSelect(self._selected.where(self._key == sa.bindparam("key", type_=self._key.type)))
        self._pages: dict[tuple[tuple[str, ...], bool], ShortSelect] = {}

    def _take_note(self) -> None:
        """A command that asks a query is answered by what SQL holds: it may rest on these tables."""
        unit = current_unit_of_work(self._orm.engines)
        if unit is not None:
            unit.touched |= self._tables

    async def one(self, key: Any) -> Row | None:
        if not self._entity.holds(self._key_name, key):
            return None
        rows = await self._fetch(self._one.select, {"key": key})
        return self._row(rows[0]) if rows else None

    def try_one(self, key: Any) -> list[Row] | None:
        self._take_note()
        if not self._entity.holds(self._key_name, key):
            return []
        return self._try(self._one, {"key": key})

    async def page(self, order: Sequence[str], after: Sequence[Any] | None, limit: int) -> list[Row]:
        short = self._page(order, after is not None)
        return [self._row(found) for found in await self._fetch(short.select, _place(after, limit))]

    def try_page(self, order: Sequence[str], after: Sequence[Any] | None, limit: int) -> list[Row] | None:
        self._take_note()
        return self._try(self._page(order, after is not None), _place(after, limit))

    async def scan(self, batch_size: int) -> AsyncIterator[list[Row]]:
        selected = self._selected.add_columns(*self._primary_key)
        last: Sequence[Any] | None = None
        while True:
            found = await self._fetch(self._batch(selected, last, batch_size))
            if found:
                yield [self._row(values) for values in found]
            if len(found) < batch_size:
                return
            last, batch_size = self._after(found, last, batch_size)

    async def rows_by(
        self, view: View, column: str, values: Sequence[Any], batch_size: int
    ) -> AsyncIterator[list[Row]]:
        wanted = [v for v in dict.fromkeys(values) if v is not None and self._entity.holds(column, v)]
        selected = self._selected.add_columns(*self._primary_key)
        for start in range(0, len(wanted), batch_size):
            some = wanted[start : start + batch_size]
            rows, last, at_once = selected.where(self._entity.columns[column].in_(some)), None, batch_size
            while found := await self._fetch_in(view, self._batch(rows, last, at_once)):
                yield [self._row(values) for values in found]
                if len(found) < at_once:
                    break
                last, at_once = self._after(found, last, at_once)

    async def count(self) -> int:
        found = await self._fetch(sa.select(sa.func.count()).select_from(self._entity.table))
        return int(found[0][0])

    def _batch(self, selected: sa.Select[Any], last: Sequence[Any] | None, batch_size: int) -> sa.Select[Any]:
        """The next rows by the primary key."""
        statement = selected.order_by(*self._primary_key).limit(batch_size)
        if last is None:
            return statement
        after = sa.tuple_(*self._literals(self._entity.primary_key, last))
        return statement.where(sa.tuple_(*self._primary_key) > after)

    def _after(
        self, found: Sequence[Sequence[Any]], last: Sequence[Any] | None, at_once: int
    ) -> tuple[Sequence[Any] | None, int]:
        """The primary key after which the next batch begins, and how many rows it has.

        Where none of this batch can be read, as many more are needed to get past them.
        """
        for values in reversed(found):
            key = values[len(self._names) :]
            if not any(isinstance(value, Unreadable) for value in key):
                return key, at_once
        return last, 2 * at_once

    def _page(self, order: Sequence[str], goes_on: bool) -> ShortSelect:
        """Pages in this order: the first, or those that go on after a place. Made once, which takes its time."""
        shape = (tuple(order), goes_on)
        if shape not in self._pages:
            self._pages[shape] = ShortSelect(self._new_page(order, goes_on))
        return self._pages[shape]

    def _new_page(self, order: Sequence[str], goes_on: bool) -> sa.Select[Any]:
        columns = [self._in_code_points(name) for name in order]
        page = self._selected.order_by(*columns).limit(sa.bindparam("limit", type_=sa.Integer))
        if not goes_on:
            return page
        place = (sa.bindparam(f"after_{i}", type_=self._entity.columns[n].type) for i, n in enumerate(order))
        return page.where(sa.tuple_(*columns) > sa.tuple_(*map(self._enum_as_text, place)))

    def _try(self, short: ShortSelect, values: Mapping[str, Any]) -> list[Row] | None:
        held = self._orm.engines.held
        found = None if held is None else held.fetch(short, values)
        return None if found is None else [self._row(values) for values in found]

    async def _fetch(
        self, statement: sa.Select[Any], values: dict[str, Any] | None = None
    ) -> Sequence[Sequence[Any]]:
        with translated_reading(self._orm.engines, self._entity):
            try:
                return await fetched(self._orm.engines, statement, values)
            except Exception as error:
                if not is_of_a_value(error):
                    raise
            async with view_of(self._orm.engines, self._orm.engines.reader) as view:
                return await fetched_carefully(view, statement, values)

    async def _fetch_in(self, view: View, statement: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        with translated_reading(self._orm.engines, self._entity):
            try:
                return await view.fetch(statement)
            except Exception as error:
                if not is_of_a_value(error):
                    raise
            return await fetched_carefully(view, statement)

    def _row(self, values: Sequence[Any]) -> Row:
        """The first of these values by their names; a key for the next batch may follow."""
        return dict(zip(self._names, values, strict=False))

    def _literals(self, names: Sequence[str], values: Sequence[Any]) -> list[Any]:
        columns = (self._entity.columns[name] for name in names)
        return [sa.literal(value, column.type) for column, value in zip(columns, values, strict=True)]

    def _in_code_points(self, name: str) -> sa.ColumnElement[Any]:
        """The column as Redis orders it; named only where the database would do otherwise, to keep its index."""
        column, dialect = self._entity.columns[name], self._orm.engines.reader.dialect
        if self._entity.has_code_point_order(name, dialect) or not isinstance(column.type, sa.String):
            return column
        return self._enum_as_text(column).collate("C" if dialect.name == "postgresql" else "BINARY")

    def _enum_as_text(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """An enum of PostgreSQL as its text, by which Redis orders it; the database would by their declaration."""
        if isinstance(value.type, sa.Enum) and self._orm.engines.name == "postgresql":
            return sa.cast(value, sa.Text)
        return value


def _place(after: Sequence[Any] | None, limit: int) -> dict[str, Any]:
    """The parameters of a page."""
    return {"limit": limit, **{f"after_{i}": value for i, value in enumerate(after or ())}}


def _outer_joins(
    orm: ORMService, entity: MappedEntity, joins: Sequence[Join]
) -> tuple[sa.FromClause, list[sa.ColumnElement[Any]]]:
    """The tables joined, each once for each of the rows that is meant, and the columns of the values."""
    source: sa.FromClause = entity.table
    values: list[sa.ColumnElement[Any]] = []
    aliases: dict[tuple[str, type, str], sa.FromClause] = {}
    for join in joins:
        other = orm.entity(join.entity.model)
        meant = (join.local, other.model, join.remote)
        if meant not in aliases:
            aliases[meant] = other.table.alias()
            remote = aliases[meant].c[other.columns[join.remote].key]
            local = entity.columns[join.local]
            _check_comparable(local, other.columns[join.remote])
            on = remote == _with_collation_of(other.columns[join.remote], local, orm.engines.reader.dialect)
            source = source.outerjoin(aliases[meant], on)
        values.append(aliases[meant].c[other.columns[join.value].key])
    return source, values


def _check_comparable(local: sa.Column[Any], remote: sa.Column[Any]) -> None:
    kinds = [column.type for column in (local, remote)]
    if any(isinstance(kind, sa.Enum) for kind in kinds) and repr(kinds[0]) != repr(kinds[1]):
        raise WiringError(
            [f"{local} and {remote} can't be joined: PostgreSQL compares an enum only with itself"]
        )


def _with_collation_of(
    remote: sa.Column[Any], local: sa.Column[Any], dialect: sa.Dialect
) -> sa.ColumnElement[Any]:
    """PostgreSQL refuses to compare texts of two collations; the remote one's keeps the index of ``remote``.

    SQLite takes the one of what stands on the left.
    """
    ours, theirs = (getattr(c.type.dialect_impl(dialect), "collation", None) for c in (local, remote))
    if dialect.name != "postgresql" or ours == theirs:
        return local
    return local.collate(theirs or "default")
