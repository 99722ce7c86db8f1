"""The nested fields of a read model in SQL: their values, the orders by them, the ways back to documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from diptych.read.lists.sorted_columns import SortedColumn
from diptych.read.nested.orders import NestedOrders
from diptych.read.nested.rows import NestedRows
from diptych.read.nested.tree import NestedField, Way, tables_of
from diptych.read.nested.ways import WayBack
from diptych.sql.description import Sorting
from diptych.sql.entity import MappedEntity


class NestedInSql(NestedRows):
    """The nested fields of the rows of ``entity``, with the ``ways`` by which its documents are found.

    ``entity_of`` returns the entity of a mapped class.
    """

    def __init__(
        self,
        dialect: sa.Dialect,
        entity_of: Callable[[type], MappedEntity],
        entity: MappedEntity,
        fields: Sequence[NestedField],
        ways: Mapping[str, Way],
    ) -> None:
        super().__init__(dialect, entity_of, entity, fields)
        self.tables = set(tables_of(fields))
        self._orders = NestedOrders(dialect, entity_of, entity, fields)
        self._ways = {name: WayBack(dialect, entity_of, entity, way) for name, way in ways.items()}

    def column(self, sorting: Sorting) -> SortedColumn | None:
        """Returns the column that lists have of a nested field; None for any other name."""
        return self._orders.column(sorting)

    def leads_to(self, name: str, values: Sequence[Any]) -> sa.ColumnElement[bool] | None:
        """Returns the condition for the rows that lead to these values by the way of this name, None without it."""
        way = self._ways.get(name)
        return None if way is None else way.leads_to(values)
