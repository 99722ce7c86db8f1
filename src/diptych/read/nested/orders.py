"""Orders by nested fields: the columns that lists have of them, for Redis and as subqueries in SQL."""

from __future__ import annotations

import decimal
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.util import ClauseAdapter

from diptych.read.lists.sorted_columns import SortedColumn, found_by, own_alias, sorted_column
from diptych.read.nested.numbers import EXACT
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
        self._table = own_alias(self._entity.table, "related")
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
            # Of no scale: a place between two pages, or a filter, may have all digits of a sum.
            found, kind = self._of_postgresql(value, sa.Numeric() if is_numeric else sa.BigInteger())
        else:
            found, kind = self._of_sqlite(value, scale)
        selected = self._selected(found)
        return selected, selected, kind

    def _of_postgresql(
        self, value: Any, kind: sa.types.TypeEngine[Any]
    ) -> tuple[Any, sa.types.TypeEngine[Any]]:
        """Returns the total, or the average rounded half up, made of whole numbers alone; and its type."""
        if self._field.kind == "total":
            return sa.func.coalesce(sa.func.sum(value), 0), kind
        # Of the sum s of n values: (2·s·10^places + n) div 2·n, of s without its sign.
        scaled = 10 ** (self._field.places or 0)
        summed = sa.cast(sa.func.sum(value), sa.Numeric)
        number = sa.cast(sa.func.nullif(sa.func.count(value), 0), sa.Numeric)
        # From 19 places on, the power of ten has more than 64 bits.
        twice = sa.literal(decimal.Decimal(2 * scaled), sa.Numeric())
        rounded = sa.func.div(sa.func.abs(summed) * twice + number, number * 2)
        signed = sa.case((summed < 0, -rounded), else_=rounded)
        unit = sa.literal(decimal.Decimal(1) / scaled, sa.Numeric())
        return signed * unit, sa.Numeric()

    def _of_sqlite(self, value: Any, scale: int) -> tuple[Any, sa.types.TypeEngine[Any]]:
        """Returns the same as a whole number of the last decimal place: SQLite's other numbers are floats."""
        unit = 10**scale
        summed = _sum_in_sqlite(sa.cast(sa.func.round(value * unit), sa.BigInteger) if scale else value)
        if self._field.kind == "total":
            return sa.func.coalesce(summed, 0), _Units(scale)
        # Divided first: the sum times the power of ten may have more than 64 bits. The least number has no opposite.
        scaled = 10 ** (self._field.places or 0)
        size = sa.func.abs(sa.func.max(summed, sa.literal_column(str(1 - 2**63))))
        number = sa.func.nullif(sa.func.count(value), 0) * sa.literal_column(str(unit))
        rest = (size % number) * sa.literal_column(str(2 * scaled)) + number
        rounded = _whole(size, number) * sa.literal_column(str(scaled)) + _whole(rest, number * 2)
        return sa.case((summed < 0, -rounded), else_=rounded), _Units(self._field.places or 0)

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
        table = own_alias(through.table, "link")
        pair = [table.c[through.columns[name].key] for name in (first.remote, last.local)]
        is_unique = any(unique <= {first.remote, last.local} for unique in first.entity.unique)
        linked = sa.select(*pair)
        return (linked if is_unique else linked.distinct()).subquery("diptych_linked")

    def _ordered(self) -> list[sa.ColumnElement[Any]]:
        columns = (sorted_column(self._entity, sorting, self._dialect) for sorting in self._field.sorted_by)
        terms = (term for column in columns for term in column.ordered())
        return [ClauseAdapter(self._table).traverse(term) for term in terms]


def _sum_in_sqlite(value: Any) -> Any:
    """Returns a sum of whole numbers, as a float beyond 64 bits: SQLite's own fails there, for all rows of a page."""
    bits: Any = sa.literal_column("32")
    mask: Any = sa.literal_column(str(2**32 - 1))
    low = sa.func.sum(value.op("&", precedence=5)(mask))
    high = sa.func.sum(value.op(">>", precedence=5)(bits)) + low.op(">>", precedence=5)(bits)
    exact = high.op("<<", precedence=5)(bits) + low.op("&", precedence=5)(mask)
    fits = high.between(sa.literal_column(str(-(2**31))), sa.literal_column(str(2**31 - 1)))
    return sa.case((fits, exact), else_=high * sa.literal_column(str(2.0**32)))


def _whole(number: Any, divisor: Any) -> Any:
    """Returns a quotient as SQLite divides whole numbers."""
    return number.op("/", precedence=9)(divisor)


class _Units(sa.types.TypeDecorator[decimal.Decimal]):
    """Decimal numbers as whole numbers of their last place; what is none, or has more than 64 bits, as a float."""

    impl = sa.BigInteger
    cache_ok = True

    def __init__(self, places: int) -> None:
        super().__init__()
        self.places = places

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        if value is None:
            return None
        units = decimal.Decimal(value).scaleb(self.places, EXACT)
        # A cursor that somebody has made up may have any exponent: what is far beyond becomes no whole number.
        if (
            units.adjusted() < 20
            and units == (whole := units.to_integral_value())
            and -(2**63) <= whole < 2**63
        ):
            return int(whole)
        return float(str(units))  # infinite, where it is beyond floats
