"""Orders by nested fields: the columns that lists have of them, for Redis and as subqueries in SQL."""

from __future__ import annotations

import decimal
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.util import ClauseAdapter

from diptych.read.lists.sorted_columns import SortedColumn, found_by, sorted_column
from diptych.read.nested.tree import NestedField
from diptych.sql.comparison import collated_like
from diptych.sql.conditions.clause import clause_of
from diptych.sql.description import Sorting
from diptych.sql.entity import MappedEntity


class NestedOrders:
    """The nested fields of an entity's rows as columns of lists in SQL: each is a subquery of its own."""

    def __init__(
        self,
        dialect: sa.Dialect,
        entity_of: Callable[[type], MappedEntity],
        entity: MappedEntity,
        fields: Iterable[NestedField],
    ) -> None:
        self._dialect = dialect
        self._entity_of = entity_of
        self._entity = entity
        self._fields = {field.name: field for field in fields}

    def column(self, sorting: Sorting) -> SortedColumn | None:
        """Returns the column of a nested field; None for any other name."""
        field = self._fields.get(sorting.name)
        if field is None:
            return None
        related = _Related(self._dialect, self._entity_of, self._entity, field)
        value, plain, kind = related.number() if field.kind in _NUMBERS else related.first()
        nullable = field.kind not in ("count", "total")
        return SortedColumn(
            sorting, value, plain, nullable, kind, self._dialect, is_joined=True, is_nested=True
        )


_NUMBERS = ("count", "total", "average")

_Column = tuple[sa.ColumnElement[Any], sa.ColumnElement[Any], sa.types.TypeEngine[Any]]


class _Related:
    """The rows that a nested field is made from, in a subquery."""

    def __init__(
        self,
        dialect: sa.Dialect,
        entity_of: Callable[[type], MappedEntity],
        entity: MappedEntity,
        field: NestedField,
    ) -> None:
        self._dialect = dialect
        self._field = field
        self._own = entity
        self._entity = entity_of(field.entity.model)
        self._table = self._entity.table.alias()
        self._steps = [(step, entity_of(step.entity.model)) for step in field.steps]

    def number(self) -> _Column:
        """Returns the count, total or average."""
        if self._field.kind == "count":
            counted = self._selected(sa.func.count())
            return counted, counted, sa.BigInteger()
        source = self._entity.columns[self._field.column or ""]
        is_numeric = isinstance(source.type, sa.Numeric)
        scale = int(source.type._effective_decimal_return_scale) if is_numeric else 0  # type: ignore[attr-defined]
        value = self._table.c[source.key]
        if self._dialect.name == "postgresql":
            summed, unit = sa.func.sum(value), 1
        else:
            # Sums of SQLite's floats depend on the order of the rows, those of whole numbers don't.
            unit = 10**scale
            whole = sa.cast(sa.func.round(value * unit), sa.BigInteger) if is_numeric else value
            summed = sa.func.sum(whole)
        if self._field.kind == "total":
            return self._total(summed, unit, scale, is_numeric=is_numeric)
        return self._average(summed, sa.func.count(value), unit)

    def _total(self, summed: Any, unit: int, scale: int, *, is_numeric: bool) -> _Column:
        total = sa.func.coalesce(summed, 0)
        kind: Any = sa.Numeric(38, scale) if is_numeric else sa.BigInteger()
        found = self._selected(_divided(total, unit) if is_numeric and unit > 1 else total)
        return found, found, kind

    def _average(self, summed: Any, counted: Any, unit: int) -> _Column:
        """Returns the average rounded half up, made of whole numbers alone; the same as ``Sum.average``."""
        # With s units in n values: (2·s·10^places + n·units) div (2·n·units), of s without its sign.
        scaled = 10 ** (self._field.places or 0)
        number: Any = sa.func.nullif(counted, 0)
        if self._dialect.name == "postgresql":
            summed, number = (sa.cast(each, sa.Numeric) for each in (summed, number))
        rounded = sa.func.abs(summed) * (2 * scaled) + number * unit
        if self._dialect.name == "postgresql":
            rounded = sa.func.div(rounded, number * 2)
        else:
            rounded = rounded.op("/", precedence=9)(
                number * (2 * unit)
            )  # SQLite divides whole numbers to whole numbers
        signed = sa.case((summed < 0, -rounded), else_=rounded)
        if self._dialect.name == "postgresql":
            found = self._selected(signed * sa.literal(decimal.Decimal(1) / scaled, sa.Numeric()))
        else:
            found = self._selected(_divided(signed, scaled))
        return found, found, sa.Numeric(38, self._field.places)

    def first(self) -> _Column:
        """Returns the value of the first row: the least, the greatest, or that of ``one``."""
        name = self._field.column or ""
        column: Any = self._table.c[self._entity.columns[name].key]
        value = self._entity.in_code_points(name, self._dialect, column)
        plain = found_by(column, value, self._dialect)
        there = column.is_not(None) if self._field.kind in ("minimum", "maximum") else sa.true()
        found = self._selected(value, there)
        same = found if plain is value else self._selected(plain, there)
        return found, same, column.type

    def _selected(self, value: Any, *conditions: Any) -> Any:
        """Returns a subquery of one value."""
        field, table = self._field, self._table
        selected = sa.select(value).where(*conditions)
        (first, near_of), (last, _) = self._steps[0], self._steps[-1]
        near: Any = table.c[self._entity.columns[last.remote].key]
        if len(self._steps) == 2:
            through = self._linked()
            far: Any = through.c[1]
            selected = selected.select_from(
                through.join(
                    table, near == collated_like(far, self._entity.columns[last.remote], self._dialect)
                )
            )
            near = through.c[0]
        else:
            selected = selected.select_from(table)
        local = self._own.columns[first.local]
        selected = selected.where(near == collated_like(local, near_of.columns[first.remote], self._dialect))
        if field.where is not None:
            clause = clause_of(field.where, self._entity, self._dialect)
            selected = selected.where(ClauseAdapter(table).traverse(clause))
        if field.kind not in _NUMBERS:
            selected = selected.order_by(*self._ordered()).limit(1)
        return selected.correlate(self._own.table).scalar_subquery()

    def _linked(self) -> sa.Subquery:
        """Returns what links both sides, each pair once, by the columns of either side."""
        (first, through), (last, _) = self._steps
        table = through.table.alias()
        pair = [table.c[through.columns[name].key] for name in (first.remote, last.local)]
        is_unique = any(unique <= {first.remote, last.local} for unique in first.entity.unique)
        linked = sa.select(*pair)
        return (linked if is_unique else linked.distinct()).subquery()

    def _ordered(self) -> list[sa.ColumnElement[Any]]:
        columns = (sorted_column(self._entity, sorting, self._dialect) for sorting in self._field.sorted_by)
        terms = (term for column in columns for term in column.ordered())
        return [ClauseAdapter(self._table).traverse(term) for term in terms]


def _divided(value: Any, unit: int) -> Any:
    """Returns a whole number of units as SQLite's float, the same as it makes of the decimal number."""
    return sa.cast(value, sa.Float).op("/")(sa.literal_column(f"{unit}.0"))
