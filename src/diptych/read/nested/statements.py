"""The SELECT statements of a nested field: related rows, or numbers, each behind the value that it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from diptych.read.lists.sorted_columns import sorted_column
from diptych.read.nested.tree import NUMBERS, NestedField, Step, columns_of
from diptych.sql.comparison import collated_like
from diptych.sql.conditions.clause import clause_of
from diptych.sql.entity import MappedEntity


class Related(NamedTuple):
    """The rows of a field in SQL: ``near`` equals a column of the row that they belong to."""

    source: sa.FromClause
    near: sa.ColumnElement[Any]
    entity: MappedEntity
    near_of: MappedEntity
    near_name: str


class FieldStatements:
    """The SELECT statements of a field. ``names`` are the columns that they return of each related row.

    ``scale`` is the number of places of the column that is added up; None if it has whole numbers.
    """

    def __init__(
        self, dialect: sa.Dialect, entity_of: Callable[[type], MappedEntity], field: NestedField
    ) -> None:
        self._field = field
        self._dialect = dialect
        self.related = _related(field.steps, entity_of, dialect)
        self.names = columns_of(field)
        self.scale = self._scale_of_column()

    def _scale_of_column(self) -> int | None:
        kind = None if self._field.column is None else self.related.entity.columns[self._field.column].type
        is_numeric = isinstance(kind, sa.Numeric) and not isinstance(kind, sa.Float)
        return (kind.scale or 0) if is_numeric and kind is not None else None  # type: ignore[attr-defined]

    def limited(self, statement: sa.Select[Any], *, is_of_one: bool, limit: int | None) -> sa.Select[Any]:
        """Returns the SELECT with the limit of memory and, for the elements of one row, that of the field."""
        own = self._field.limit if is_of_one and self._field.kind not in NUMBERS else None
        limits = [each for each in (own, limit) if each is not None]
        return statement.limit(min(limits)) if limits else statement

    def select(self, wanted: Any) -> sa.Select[Any]:
        """Returns the SELECT by these values, parameters of one type, or by a parameter for several values."""
        if self._field.kind in NUMBERS:
            return self._numbers(wanted)
        is_one = isinstance(wanted, list) and len(wanted) == 1
        return self._elements_of_one(wanted) if is_one else self._elements(wanted)

    def _numbers(self, wanted: Any) -> sa.Select[Any]:
        """Returns the SELECT of the number of rows; with a column, also of the number and the sum of its values.

        On SQLite each row has, instead of these two, one of the values and the number of rows that have it.
        """
        near, name = self.related.near, self._field.column
        if name is None:
            return self._within(sa.select(near, sa.func.count()), wanted).group_by(near).order_by(near)
        value = self.related.entity.columns[name]
        # SQLite adds numbers as floats, and whole numbers up to 64 bits; the sums of each value's number are exact.
        if self._dialect.name == "postgresql":
            summed = sa.func.sum(sa.cast(value, sa.Numeric) if self.scale is not None else value)
            added = self._within(sa.select(near, sa.func.count(), sa.func.count(value), summed), wanted)
            return added.group_by(near).order_by(near)
        counted = self._within(sa.select(near, sa.func.count(), value), wanted)
        return counted.group_by(near, value).order_by(near, value)

    def _elements(self, wanted: Any) -> sa.Select[Any]:
        near, ordered = self.related.near, self._ordered()
        columns = [self.related.entity.columns[name] for name in self.names]
        if self._field.limit is None:
            return self._within(sa.select(near, *columns), wanted).order_by(near, *ordered)
        number = sa.func.row_number().over(partition_by=near, order_by=ordered)
        labelled = [column.label(f"value_{n}") for n, column in enumerate(columns)]
        numbered = sa.select(near.label("near"), *labelled, number.label("number"))
        inner = self._within(numbered, wanted).subquery("numbered")
        *shown, last = inner.c
        return sa.select(*shown).where(last <= self._field.limit).order_by(inner.c.near, last)

    def _elements_of_one(self, wanted: Any) -> sa.Select[Any]:
        """Returns the same for one row that they belong to, without the limit: an index may have their order."""
        columns = [self.related.entity.columns[name] for name in self.names]
        return self._within(sa.select(self.related.near, *columns), wanted).order_by(*self._ordered())

    def _within(self, selected: sa.Select[Any], wanted: Any) -> sa.Select[Any]:
        field, near = self._field, self.related.near
        found = selected.select_from(self.related.source).where(near.in_(wanted))
        if field.where is not None:
            found = found.where(clause_of(field.where, self.related.entity, self._dialect))
        if field.kind in ("minimum", "maximum") and field.column is not None:
            found = found.where(self.related.entity.columns[field.column].is_not(None))
        return found

    def _ordered(self) -> list[sa.ColumnElement[Any]]:
        entity = self.related.entity
        columns = (sorted_column(entity, sorting, self._dialect) for sorting in self._field.sorted_by)
        return [term for column in columns for term in column.ordered()]


def _related(
    steps: Sequence[Step], entity_of: Callable[[type], MappedEntity], dialect: sa.Dialect
) -> Related:
    first, last = steps[0], steps[-1]
    entity, near_of = entity_of(last.entity.model), entity_of(first.entity.model)
    if len(steps) == 1:
        return Related(entity.table, entity.columns[last.remote], entity, entity, last.remote)
    near, far = near_of.columns[first.remote], near_of.columns[last.local]
    through: Any = near_of.table
    if not any(unique <= {first.remote, last.local} for unique in first.entity.unique):
        # A row that is linked twice is there once.
        linked = sa.select(near, far).distinct().subquery("diptych_linked")
        through, near, far = linked, linked.c[0], linked.c[1]  # type: ignore[assignment]
    remote = entity.columns[last.remote]
    source = through.join(entity.table, remote == collated_like(far, remote, dialect))
    return Related(source, near, entity, near_of, first.remote)
