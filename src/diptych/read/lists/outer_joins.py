"""The tables of joined rows in SQL: outer joins, so that a row without a joined row keeps its document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa

from diptych.errors import WiringError
from diptych.read.lists.sorted_columns import own_alias
from diptych.sql.comparison import collated_like
from diptych.sql.entity import MappedEntity

if TYPE_CHECKING:
    from diptych.read.declaration import JoinedField


class OuterJoins:
    """The tables joined to an entity's own, and their columns in SELECTs.

    A table is joined once for all fields from the same row, and again for another row of it. ``source`` is the
    entity's table with all of them, ``columns`` has the column of each joined field, ``linking`` the own column by
    which its documents are found. ``entity_of`` returns the entity of a mapped class.
    """

    def __init__(
        self,
        dialect: sa.Dialect,
        entity_of: Callable[[type], MappedEntity],
        entity: MappedEntity,
        joins: Sequence[JoinedField],
    ) -> None:
        self.source: sa.FromClause = entity.table
        self.columns: dict[str, sa.Column[Any]] = {}
        self.linking = [(join.field, entity, join.local) for join in joins]
        self._entity = entity
        self._dialect = dialect
        self._values = {join.field: (entity_of(join.entity.model), join.value) for join in joins}
        aliases: dict[tuple[str, MappedEntity, str], sa.FromClause] = {}
        for join in joins:
            other, value = self._values[join.field]
            row = (join.local, other, join.remote)
            if row not in aliases:
                aliases[row] = self._joined(join, other, f"joined_{len(aliases)}")
            # The columns of a table's alias are columns, although their type does not say so.
            self.columns[join.field] = cast("sa.Column[Any]", aliases[row].c[other.columns[value].key])

    def _joined(self, join: JoinedField, other: MappedEntity, name: str) -> sa.FromClause:
        alias: sa.FromClause = own_alias(other.table, name)
        local, remote = self._entity.columns[join.local], other.columns[join.remote]
        _check_comparable(local, remote)
        on = alias.c[remote.key] == collated_like(local, remote, self._dialect)
        self.source = self.source.outerjoin(alias, on)
        return alias

    def in_code_points(self, name: str) -> tuple[sa.Column[Any], sa.ColumnElement[Any]]:
        """Returns the column of an attribute or joined field, and the same ordered as in Redis."""
        if name not in self.columns:
            return self._entity.columns[name], self._entity.in_code_points(name, self._dialect)
        other, value = self._values[name]
        column = self.columns[name]
        return column, other.in_code_points(value, self._dialect, column)


def _check_comparable(local: sa.Column[Any], remote: sa.Column[Any]) -> None:
    kinds = [column.type for column in (local, remote)]
    if any(isinstance(kind, sa.Enum) for kind in kinds) and repr(kinds[0]) != repr(kinds[1]):
        raise WiringError(
            [f"{local} and {remote} can't be joined: PostgreSQL compares an enum only with itself"]
        )
