"""The rows of a read model in SQL: Core selects of just the columns in use."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy as sa

from diptych.read.lists.in_sql import Beside, PageSelects, parameters
from diptych.read.lists.outer_joins import OuterJoins
from diptych.read.lists.page import PageRequest
from diptych.read.lists.semijoins import Semijoins
from diptych.read.lists.sorted_columns import linking_columns
from diptych.read.sql.batches import MOST_TUPLES, RowBatches
from diptych.sql.comparison import equal, one_of
from diptych.sql.conditions.clause import clause_of
from diptych.sql.conditions.tree import Condition, predicate_of
from diptych.sql.database import Database
from diptych.sql.description import Row
from diptych.sql.entity import MappedEntity
from diptych.sql.failures import translated_reading
from diptych.sql.statements import PreparedSelect
from diptych.sql.view import (
    NotAtOnceError,
    View,
    fetched_carefully,
    is_of_a_value,
    moment_of,
    read_at_once,
    view_of,
)

if TYPE_CHECKING:
    from diptych.read.declaration import Collection, JoinedField
    from diptych.read.lists.index import ListIndex
    from diptych.read.lists.sorted_columns import SortedColumn
    from diptych.read.nested.in_sql import NestedInSql
    from diptych.read.nested.rows import Fetch

Columns: TypeAlias = tuple[str, ...]
"""Names of the columns of an address. Its values are those of the column, or tuples if there are several."""


class SqlRows:
    """The rows of an entity with the ``columns`` in use: by ``addresses``, in the order of lists, or all.

    Each row has the values of ``joins`` and of ``nested`` fields too, under the names of the fields. Rows that are
    read for Redis, by ``scan`` and ``rows_by``, also have the values of the elements of ``collections``; ``rows_by``
    finds them by the ways back of ``nested`` too. ``entity_of`` returns the
    entity of a mapped class. ``where`` is the condition of the rows that queries and builds see, None for all rows.
    """

    def __init__(
        self,
        database: Database,
        entity_of: Callable[[type], MappedEntity],
        entity: MappedEntity,
        addresses: Sequence[Columns],
        columns: Sequence[str],
        joins: Sequence[JoinedField] = (),
        *,
        collections: Sequence[Collection] = (),
        nested: NestedInSql | None = None,
        where: Condition | None = None,
    ) -> None:
        self._database = database
        self.entity = entity
        self._names = (*columns, *(join.field for join in joins))
        own = [entity.columns[name] for name in columns]
        dialect = database.reader.dialect
        joined = OuterJoins(dialect, entity_of, entity, joins)
        self._joined = joined
        self._selected = sa.select(*own, *joined.columns.values()).select_from(joined.source)
        self._shown = [] if where is None else [clause_of(where, entity, dialect)]
        # What SQL has selected is tested once more: of a value that can't be read, Redis knows no more than that.
        self._predicate = None if where is None else predicate_of(where, entity.describe(dialect))
        self._batches = RowBatches(entity, self._selected, len(self._names), dialect)
        self._elements = Semijoins(dialect, entity_of, entity, collections)
        self._nested = nested
        self._one = {names: self._select_by(names) for names in addresses}
        self._pages = PageSelects(entity, joined, self._elements, nested, self._selected, dialect)

    async def one(self, names: Columns, value: Any) -> Row | None:
        """Returns the row with this value in the columns of an address; None if there is no such row."""
        values = self._parameters(names, value)
        if values is None:
            return None
        rows = self._tested(await self._read(self._one[names], values))
        return rows[0] if rows else None

    def try_one(self, names: Columns, value: Any) -> list[Row] | None:
        """Returns a list with the row of ``one``, or without any; None if reading here would hold up the event loop.

        After None, await ``one``.
        """
        if self._nested is not None:
            return None  # several statements
        values = self._parameters(names, value)
        found = [] if values is None else self._try(self._one[names], values)
        return found if found is None else self._tested(found)

    async def many(self, names: Columns, values: Sequence[Any]) -> list[Row]:
        """Returns the rows with any of these values in the columns of an address, all of one moment."""

        async def read(view: View) -> list[Row]:
            fetch = partial(self._fetch_in, view)
            batches = self._rows_by(fetch, names, values, len(values) + 1)
            found = self._tested([row async for rows in batches for row in rows])
            return found if self._nested is None else await self._nested.whole(found, fetch)

        return await read_at_once(self._database, read)

    async def page(self, request: PageRequest, limit: int) -> list[Row]:
        """Returns at most ``limit`` rows of a page, those of a backward page from its end on."""
        values = parameters(request, limit)
        rows = await self._read(self._pages.page(request), values)
        if self._pages.are_at_ends(request, rows):
            return await self._read(self._pages.page(request, meets_ends=True), values)
        return rows

    def try_page(self, request: PageRequest, limit: int) -> list[Row] | None:
        """Returns the rows of ``page``; None if reading here would hold up the event loop: then await ``page``."""
        return (
            None
            if self._nested is not None
            else self._try(self._pages.page(request), parameters(request, limit))
        )

    async def beside(self, request: PageRequest) -> Beside:
        """Returns what a page tells of its selection beside its rows."""
        found = []
        for prepared in self._pages.beside(request):
            rows = [] if prepared is None else await self._fetch(prepared.select, parameters(request, 1))
            found.append(rows)
        return Beside.of(found)

    def try_beside(self, request: PageRequest) -> Beside | None:
        """Returns the same; None if reading here would hold up the event loop: then await ``beside``."""
        found = []
        for prepared in self._pages.beside(request):
            rows = [] if prepared is None else self._database.read_now(prepared, parameters(request, 1))
            if rows is None:
                return None
            found.append(rows)
        return Beside.of(found)

    def order(self, index: ListIndex) -> list[SortedColumn]:
        """Returns the columns that an index has to have, in this order, to serve a list."""
        return self._pages.order(index)

    def linked(self) -> Iterator[tuple[str, MappedEntity, list[SortedColumn]]]:
        """Yields the fields of other rows, with the columns that indexes have to have.

        By them the rows of a document are found, and the documents of a changed row.
        """
        nested = () if self._nested is None else self._nested.linking()
        for field, entity, name in [*self._joined.linking, *nested]:
            [column] = linking_columns(entity, [name], self._database.reader.dialect)
            own = entity.columns[name]  # compared by its own collation
            yield field, entity, [column._replace(value=own, plain=own)]

    def linking(self, index: ListIndex) -> list[tuple[MappedEntity, list[SortedColumn]]]:
        """Returns the columns that indexes have to have, so that the elements of a list with some are found."""
        return [] if index.collection is None else self._elements.indexed(index.collection)

    async def scan(self, batch_size: int) -> AsyncIterator[list[Row]]:
        """Yields all rows in batches. A row changed meanwhile may be seen before or after its change."""
        async for found in self._batches.all(self._fetch, self._shown, batch_size):
            async for rows in self._elements.added_to(self._rows(found), self._fetch):
                async for whole in self._with_nested(rows, self._fetch):
                    yield whole

    async def rows_by(
        self, view: View, names: Columns, values: Sequence[Any], batch_size: int
    ) -> AsyncIterator[list[Row]]:
        """Yields the rows of this view with any of these values in the columns ``names``, in non-empty batches.

        The columns are of the read model's own entity; or ``names`` is that of a collection whose elements an
        association links by such values, or of a way back that ends with such values. The rows that the read model's
        condition leaves out are among them.
        """
        fetch = partial(self._fetch_in, view)
        async for found in self._rows_by(fetch, names, values, batch_size):
            async for rows in self._elements.added_to(found, fetch):
                async for whole in self._with_nested(rows, fetch):
                    yield whole

    async def _with_nested(self, rows: list[Row], fetch: Fetch) -> AsyncIterator[list[Row]]:
        if self._nested is None:
            yield rows
        else:
            async for whole in self._nested.added_to(rows, fetch):
                yield whole

    async def _rows_by(
        self, fetch: Fetch, names: Columns, values: Sequence[Any], batch_size: int
    ) -> AsyncIterator[list[Row]]:
        there = (value for value in dict.fromkeys(values) if value is not None)
        wanted = [value for value in there if self._parameters(names, value) is not None]
        column = self.entity.columns.get(names[0]) if len(names) == 1 else None
        if column is not None:
            few = await self._batches.having_few(fetch, column, wanted, batch_size)
            if few is not None:
                if few:
                    yield list(map(self._row, few))
                return
        asked_at_once = batch_size if len(names) == 1 else MOST_TUPLES
        for start in range(0, len(wanted), asked_at_once):
            has_one = self._has_one_of(names, wanted[start : start + asked_at_once])
            async for found in self._batches.fulfilling(fetch, has_one, batch_size):
                yield list(map(self._row, found))

    async def count(self) -> int:
        """Returns the approximate number of rows."""
        counted = sa.select(sa.func.count()).select_from(self.entity.table).where(*self._shown)
        found = await self._fetch(counted)
        return int(found[0][0])

    def _select_by(self, names: Columns) -> PreparedSelect:
        """Returns the SELECT of a row by these columns, whose names are those of the parameters."""
        columns = {name: self.entity.columns[name] for name in names}
        dialect = self._database.reader.dialect
        given = (
            equal(column, sa.bindparam(name, type_=column.type), dialect) for name, column in columns.items()
        )
        return PreparedSelect(self._selected.where(*given, *self._shown))

    def _parameters(self, names: Columns, value: Any) -> dict[str, Any] | None:
        """Returns the parameters of the SELECT by these columns; None if they can't hold the value."""
        if len(names) == 1:
            [name] = names
            is_own = name in self.entity.columns
            return {name: value} if not is_own or self.entity.holds(name, value) else None
        values = dict(zip(names, value, strict=True))
        is_held = all(part is not None and self.entity.holds(name, part) for name, part in values.items())
        return values if is_held else None

    def _has_one_of(self, names: Columns, values: Sequence[Any]) -> sa.ColumnElement[bool]:
        if self._nested is not None and (leading := self._nested.leads_to(names[0], values)) is not None:
            return leading
        if (linked := self._elements.linked_to(names[0], values)) is not None:
            return linked
        columns = [self.entity.columns[name] for name in names]
        tuples = values if len(columns) > 1 else [(value,) for value in values]
        return one_of(columns, tuples, self._database.reader.dialect)

    def _try(self, prepared: PreparedSelect, values: Mapping[str, Any]) -> list[Row] | None:
        found = self._database.read_now(prepared, values)
        return None if found is None else [self._row(values) for values in found]

    async def _fetch(
        self, statement: sa.Select[Any] | PreparedSelect, values: Mapping[str, Any] | None = None
    ) -> Sequence[Sequence[Any]]:
        select = statement.select if isinstance(statement, PreparedSelect) else statement
        with translated_reading(self._database, self.entity):
            try:
                return await self._database.read(select, values)
            except Exception as error:
                if not is_of_a_value(error):
                    raise
            async with view_of(self._database, self._database.reader) as view:
                return await fetched_carefully(view, select, values)

    async def _fetch_in(
        self, view: View, statement: sa.Select[Any] | PreparedSelect, values: Mapping[str, Any] | None = None
    ) -> Sequence[Sequence[Any]]:
        select = statement.select if isinstance(statement, PreparedSelect) else statement
        with translated_reading(self._database, self.entity):
            try:
                if isinstance(statement, PreparedSelect):
                    return await view.fetch_prepared(statement, values or {})
                return await view.fetch(statement, values)
            except Exception as error:
                if not is_of_a_value(error):
                    raise
            return await fetched_carefully(view, select, values)

    async def _read(self, prepared: PreparedSelect, values: Mapping[str, Any]) -> list[Row]:
        """Returns the rows of a SELECT with their nested fields, all of one moment."""
        if self._nested is None:
            return list(map(self._row, await self._fetch(prepared.select, values)))
        if self._database.name == "sqlite":
            # In the event loop: the way to a thread and back takes many times as long as each of the statements.
            with contextlib.suppress(NotAtOnceError):
                async with moment_of(self._database) as moment:
                    return await self._read_in(self._nested, prepared, values, moment)
        read = partial(self._read_in, self._nested, prepared, values)
        return await read_at_once(self._database, read)

    async def _read_in(
        self, nested: NestedInSql, prepared: PreparedSelect, values: Mapping[str, Any], view: View
    ) -> list[Row]:
        rows = list(map(self._row, await self._fetch_in(view, prepared, values)))
        return await nested.whole(rows, partial(self._fetch_in, view))

    def _rows(self, found: Sequence[Sequence[Any]]) -> list[Row]:
        return self._tested(list(map(self._row, found)))

    def _tested(self, rows: list[Row]) -> list[Row]:
        return rows if self._predicate is None else list(filter(self._predicate, rows))

    def _row(self, values: Sequence[Any]) -> Row:
        """Names the values of a row; the primary key, for the next batch, may follow at the end."""
        return dict(zip(self._names, values, strict=False))
