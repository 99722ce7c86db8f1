"""The SQL side of a read model: Core selects of just the columns that its documents and lists need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from typing import Any

import sqlalchemy as sa

from diptych.errors import WiringError
from diptych.read.compiled import JoinedField
from diptych.sql.database import Database
from diptych.sql.description import Row, Unreadable
from diptych.sql.failures import translated_reading
from diptych.sql.mapped.entity import MappedEntity
from diptych.sql.statements.prepared import PreparedSelect
from diptych.sql.unreadable import fetched_carefully, is_of_a_value
from diptych.sql.view import View, view_of


class SqlRows:
    """Rows of one entity, with the ``columns`` that documents and lists need, looked up by ``key`` and in orders.

    Each row has the values of ``joins`` too, under the names of their fields. ``entity_of`` gives the entity of a
    mapped class. ``on_read`` is called with the names of the tables before a query is answered from them.
    """

    def __init__(
        self,
        database: Database,
        entity_of: Callable[[type], MappedEntity],
        entity: MappedEntity,
        key: str,
        columns: Sequence[str],
        joins: Sequence[JoinedField] = (),
        *,
        on_read: Callable[[Set[str]], None] = lambda _tables: None,
    ) -> None:
        self._database = database
        self._on_read = on_read
        self._entity = entity
        self._names = (*columns, *(join.field for join in joins))
        own = [entity.columns[name] for name in columns]
        source, joined = _outer_joins(database.reader.dialect, entity_of, entity, joins)
        self._selected = sa.select(*own, *joined).select_from(source)
        self._primary_key = [entity.columns[name] for name in entity.primary_key]
        self._key_name = key
        self._tables = {entity.full_name, *(join.entity.table for join in joins)}
        self._key = entity.columns[key]
        self._one = PreparedSelect(
            self._selected.where(self._key == sa.bindparam("key", type_=self._key.type))
        )
        self._pages: dict[tuple[tuple[str, ...], bool], PreparedSelect] = {}

    async def one(self, key: Any) -> Row | None:
        """The row with this key."""
        if not self._entity.holds(self._key_name, key):
            return None
        rows = await self._fetch(self._one.select, {"key": key})
        return self._row(rows[0]) if rows else None

    def try_one(self, key: Any) -> list[Row] | None:
        """What ``one`` finds, as a list; None where that would hold up the event loop: ``one`` is to be asked."""
        self._on_read(self._tables)
        if not self._entity.holds(self._key_name, key):
            return []
        return self._try(self._one, {"key": key})

    async def page(self, order: Sequence[str], after: Sequence[Any] | None, limit: int) -> list[Row]:
        """At most ``limit`` rows in the order of these columns, all greater than ``after`` in it."""
        short = self._page(order, after is not None)
        return [self._row(found) for found in await self._fetch(short.select, _place(after, limit))]

    def try_page(self, order: Sequence[str], after: Sequence[Any] | None, limit: int) -> list[Row] | None:
        """What ``page`` finds; None where that would hold up the event loop: ``page`` is to be asked."""
        self._on_read(self._tables)
        return self._try(self._page(order, after is not None), _place(after, limit))

    async def scan(self, batch_size: int) -> AsyncIterator[list[Row]]:
        """Every row, in batches; rows that change while it runs may be seen before or after the change."""
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
        """The rows in this view whose ``column`` (of the read model's own entity) has one of these values.

        In batches, none of them empty.
        """
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
        """How many rows there are, about."""
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

    def _page(self, order: Sequence[str], goes_on: bool) -> PreparedSelect:
        """Pages in this order: the first, or those that go on after a place. Made once, which takes its time."""
        shape = (tuple(order), goes_on)
        if shape not in self._pages:
            self._pages[shape] = PreparedSelect(self._new_page(order, goes_on))
        return self._pages[shape]

    def _new_page(self, order: Sequence[str], goes_on: bool) -> sa.Select[Any]:
        columns = [self._in_code_points(name) for name in order]
        page = self._selected.order_by(*columns).limit(sa.bindparam("limit", type_=sa.Integer))
        if not goes_on:
            return page
        place = (sa.bindparam(f"after_{i}", type_=self._entity.columns[n].type) for i, n in enumerate(order))
        return page.where(sa.tuple_(*columns) > sa.tuple_(*map(self._enum_as_text, place)))

    def _try(self, short: PreparedSelect, values: Mapping[str, Any]) -> list[Row] | None:
        found = self._database.read_now(short, values)
        return None if found is None else [self._row(values) for values in found]

    async def _fetch(
        self, statement: sa.Select[Any], values: dict[str, Any] | None = None
    ) -> Sequence[Sequence[Any]]:
        with translated_reading(self._database, self._entity):
            try:
                return await self._database.read(statement, values)
            except Exception as error:
                if not is_of_a_value(error):
                    raise
            async with view_of(self._database, self._database.reader) as view:
                return await fetched_carefully(view, statement, values)

    async def _fetch_in(self, view: View, statement: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        with translated_reading(self._database, self._entity):
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
        column, dialect = self._entity.columns[name], self._database.reader.dialect
        if self._entity.has_code_point_order(name, dialect) or not isinstance(column.type, sa.String):
            return column
        return self._enum_as_text(column).collate("C" if dialect.name == "postgresql" else "BINARY")

    def _enum_as_text(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """An enum of PostgreSQL as its text, by which Redis orders it; the database would by their declaration."""
        if isinstance(value.type, sa.Enum) and self._database.name == "postgresql":
            return sa.cast(value, sa.Text)
        return value


def _place(after: Sequence[Any] | None, limit: int) -> dict[str, Any]:
    """The parameters of a page."""
    return {"limit": limit, **{f"after_{i}": value for i, value in enumerate(after or ())}}


def _outer_joins(
    dialect: sa.Dialect,
    entity_of: Callable[[type], MappedEntity],
    entity: MappedEntity,
    joins: Sequence[JoinedField],
) -> tuple[sa.FromClause, list[sa.ColumnElement[Any]]]:
    """The tables joined, each once for each of the rows that is meant, and the columns of the values."""
    source: sa.FromClause = entity.table
    values: list[sa.ColumnElement[Any]] = []
    aliases: dict[tuple[str, type, str], sa.FromClause] = {}
    for join in joins:
        other = entity_of(join.entity.model)
        meant = (join.local, other.model, join.remote)
        if meant not in aliases:
            aliases[meant] = other.table.alias()
            remote = aliases[meant].c[other.columns[join.remote].key]
            local = entity.columns[join.local]
            _check_comparable(local, other.columns[join.remote])
            on = remote == _with_collation_of(other.columns[join.remote], local, dialect)
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
