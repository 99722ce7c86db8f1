"""Orders by values of other rows: such a column is called like the document's field that has its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from diptych.read.declaration import DocumentField, Join, JoinedField, ListOrder
from diptych.sql.description import Column, Entity, Sorting


def fields_with(sorting: Sorting, joined: Mapping[str, Join]) -> list[str]:
    """Returns the joined fields that have the values of this column."""
    return [
        field
        for field, join in joined.items()
        if join.value.class_ is sorting.model and join.value.key == sorting.name
    ]


def in_fields(order: ListOrder, entity: Entity, joined: Mapping[str, Join]) -> ListOrder:
    """Returns the order with columns of other rows under the names of their fields; others stay as they are."""

    def named(sorting: Sorting) -> Sorting:
        if sorting.model is DocumentField:
            return sorting._replace(model=entity.model)
        fields = [] if sorting.model is entity.model else fields_with(sorting, joined)
        return sorting._replace(name=fields[0], model=entity.model) if fields else sorting

    return msgspec.structs.replace(order, sorted_by=tuple(map(named, order.sorted_by)))


def with_fields(entity: Entity, joins: Sequence[JoinedField], nested: Mapping[str, Column]) -> Entity:
    """Returns the entity with a further column for each joined field, null without a joined row, and ``nested``."""
    fields = {
        join.field: msgspec.structs.replace(
            join.entity.columns[join.value], name=join.field, nullable=True, unique=False
        )
        for join in joins
    }
    columns = {**entity.columns, **fields, **nested}
    return msgspec.structs.replace(entity, columns=columns) if fields or nested else entity
