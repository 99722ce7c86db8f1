"""The elements of collections in SQL: conditions for their rows, and the values that a list has of them.

A condition is `IN` over the elements, so that a row is there once however many of its elements fulfil it, and the
database may begin with the few elements of a value.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import sqlalchemy as sa

from diptych.read.lists.sorted_columns import SortedColumn, found_by, linking_columns, own_alias
from diptych.sql.comparison import collated_like
from diptych.sql.description import Row, Sorting
from diptych.sql.entity import MappedEntity
from diptych.sql.statements import FewValues

if TYPE_CHECKING:
    from diptych.read.declaration import Collection

Fetch: TypeAlias = Callable[..., Awaitable[Sequence[Sequence[Any]]]]
"""Returns the rows of a SELECT, or of a ``PreparedSelect`` with parameters."""

_MOST_VALUES = 10_000
"""Number of elements' values that are read at once. A single row may have more."""


class _Elements(NamedTuple):
    """The elements of a collection: ``near`` is the column that equals one of the row, ``key`` the primary key."""

    source: sa.FromClause
    near: sa.Column[Any]
    element: sa.FromClause
    key: Sequence[sa.Column[Any]]


class Semijoins:
    """The collections of a read model's lists in SQL. ``entity_of`` returns the entity of a mapped class."""

    def __init__(
        self,
        dialect: sa.Dialect,
        entity_of: Callable[[type], MappedEntity],
        entity: MappedEntity,
        collections: Sequence[Collection] = (),
    ) -> None:
        self.collections = {collection.field: collection for collection in collections}
        self._dialect = dialect
        self._entity_of = entity_of
        self._entity = entity
        self._few = FewValues()
        self._by_name = {collection.name: collection for collection in collections}

    @property
    def tables(self) -> set[str]:
        """The tables of elements and associations."""
        entities = [collection.entity for collection in self._by_name.values()]
        entities += [each.association.entity for each in self._by_name.values() if each.association]
        return {entity.table for entity in entities}

    def column(self, sorting: Sorting) -> SortedColumn:
        """Returns the column that has the values of elements, to be compared for equality alone."""
        name = "" if sorting.element is None else sorting.element.name
        collection = self.collections[f"{sorting.name}.{name}"]
        elements, entity = self._elements(collection), self._entity_of(collection.entity.model)
        column: Any = elements.element.c[entity.columns[collection.value].key]
        value = entity.in_code_points(collection.value, self._dialect, column)
        plain = found_by(column, value, self._dialect)

        def has_element(conditions: Sequence[sa.ColumnElement[bool]]) -> sa.ColumnElement[bool]:
            return self._local(collection).in_(
                sa.select(elements.near).select_from(elements.source).where(*conditions)
            )

        nullable = bool(column.nullable)
        return SortedColumn(
            sorting, value, plain, nullable, column.type, self._dialect, has_element=has_element
        )

    def linked_to(self, name: str, values: Sequence[Any]) -> sa.ColumnElement[bool] | None:
        """Returns the condition for the rows that an association links to elements with these values of theirs.

        None if ``name`` is no collection with an association.
        """
        collection = self._by_name.get(name)
        if collection is None or collection.association is None:
            return None
        through = self._entity_of(collection.association.entity.model)
        between = own_alias(through.table, "link")
        _, near, far = collection.association
        held = [value for value in values if through.holds(far, value)]
        linked = sa.select(between.c[through.columns[near].key])
        return self._local(collection).in_(linked.where(between.c[through.columns[far].key].in_(held)))

    async def added_to(self, rows: list[Row], fetch: Fetch) -> AsyncIterator[list[Row]]:
        """Yields the rows with their elements' values under ``Collection.field``; in parts, if there are many.

        Redis is written from these rows.
        """
        parts = [rows]
        while parts and self.collections:
            some = parts.pop()
            found = await self._with_values(some, fetch, None if len(some) == 1 else _MOST_VALUES)
            if found is None:
                half = len(some) // 2
                parts += [some[half:], some[:half]]
            else:
                yield found
        if not self.collections:
            yield rows

    async def _with_values(self, rows: list[Row], fetch: Fetch, most: int | None) -> list[Row] | None:
        """Returns the rows with their elements' values; None if there are more than ``most`` of these."""
        for field, collection in self.collections.items():
            found = await self._found(collection, rows, fetch, None if most is None else most + 1)
            if most is not None and len(found) > most:
                return None
            values: dict[Any, list[Any]] = {}
            for near, value in found:
                values.setdefault(near, []).append(value)
            rows = [{**row, field: values.get(row[collection.local], [])} for row in rows]
        return rows

    async def _found(
        self, collection: Collection, rows: Iterable[Row], fetch: Fetch, limit: int | None
    ) -> Sequence[Sequence[Any]]:
        """Returns the values of these rows' elements, behind what links them."""
        entity, near = self._near(collection)
        wanted = dict.fromkeys(row[collection.local] for row in rows)
        held = [value for value in wanted if value is not None and entity.holds(near, value)]
        if not held:
            return []
        column_type = entity.columns[near].type
        prepared = self._few.get(
            (collection.field, limit),
            held,
            column_type,
            lambda given: self._values(collection, given).limit(limit),
        )
        if prepared is not None:
            return await fetch(*prepared)
        return await fetch(self._values(collection, held).limit(limit))

    def _values(self, collection: Collection, held: Sequence[Any]) -> sa.Select[Any]:
        """Returns the SELECT of the values of elements, behind what links them."""
        elements = self._elements(collection)
        value = elements.element.c[self._entity_of(collection.entity.model).columns[collection.value].key]
        found = sa.select(elements.near, value).select_from(elements.source)
        return found.where(elements.near.in_(held)).order_by(elements.near, *elements.key)

    def indexed(self, collection: Collection) -> list[tuple[MappedEntity, list[SortedColumn]]]:
        """Returns the columns that indexes have to have: to find elements by values, and from a row to them."""
        elements = self._entity_of(collection.entity.model)
        found = [(elements, [collection.value])]
        if collection.association is None:
            found += [(elements, [collection.remote])]
        else:
            through = self._entity_of(collection.association.entity.model)
            _, near, far = collection.association
            found += [(through, [far, near]), (through, [near])]
        return [(entity, linking_columns(entity, names, self._dialect)) for entity, names in found]

    def _local(self, collection: Collection) -> sa.ColumnElement[Any]:
        entity, near = self._near(collection)
        return collated_like(self._entity.columns[collection.local], entity.columns[near], self._dialect)

    def _near(self, collection: Collection) -> tuple[MappedEntity, str]:
        """Returns the column that equals the row's."""
        if collection.association is None:
            return self._entity_of(collection.entity.model), collection.remote
        return self._entity_of(collection.association.entity.model), collection.association.near

    def _elements(self, collection: Collection) -> _Elements:
        entity = self._entity_of(collection.entity.model)
        element = own_alias(entity.table, "element")
        remote = element.c[entity.columns[collection.remote].key]
        key = [element.c[entity.columns[name].key] for name in entity.primary_key]
        if collection.association is None:
            return _Elements(element, remote, element, key)
        through = self._entity_of(collection.association.entity.model)
        between = own_alias(through.table, "link")
        near, far = (
            between.c[through.columns[name].key]
            for name in (collection.association.near, collection.association.far)
        )
        is_linked = remote == collated_like(far, entity.columns[collection.remote], self._dialect)
        return _Elements(between.join(element, is_linked), near, element, key)
