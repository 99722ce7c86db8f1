"""The documents that a changed row may have altered, found in SQL from the row's linking values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from diptych.read.lists.sorted_columns import own_alias
from diptych.read.nested.tree import Way
from diptych.sql.comparison import collated_like
from diptych.sql.entity import MappedEntity


class WayBack:
    """A way back over several steps, from the values of a changed row to the rows of ``entity`` that lead to it."""

    def __init__(
        self,
        dialect: sa.Dialect,
        entity_of: Callable[[type], MappedEntity],
        entity: MappedEntity,
        way: Way,
    ) -> None:
        self._dialect = dialect
        self._way = way
        self._entities = [entity, *(entity_of(step.entity.model) for step in way.steps)]

    def leads_to(self, values: Sequence[Any]) -> sa.ColumnElement[bool]:
        """Returns the condition for the rows that lead to a row with any of these values."""
        last = self._entities[-1]
        table = own_alias(last.table, "related")
        held = [value for value in values if last.holds(self._way.local, value)]
        condition: sa.ColumnElement[bool] = table.c[last.columns[self._way.local].key].in_(held)
        for n in range(len(self._way.steps) - 1, -1, -1):
            step, there, here = self._way.steps[n], self._entities[n + 1], self._entities[n]
            found = sa.select(table.c[there.columns[step.remote].key]).where(condition)
            if n == 0:
                local: Any = here.columns[step.local]
            else:
                table = own_alias(here.table, "related")
                local = table.c[here.columns[step.local].key]
            condition = collated_like(local, there.columns[step.remote], self._dialect).in_(found)
        return condition
