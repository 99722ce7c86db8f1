"""Columns of a list in SQL: the conditions for parts of its order, each a range of an index, and ``ORDER BY``.

An index serves equal values of its leading columns with a range of the next one, and no alternatives. So the rows
behind a place are several parts: those equal in all columns but the last, those equal in all but the last two, and so
on, and nulls by themselves. SQLite has null below all values: where a list has it above, whether the value is null is
a column of the order by itself, its rank, and one of the index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from diptych.sql.comparison import enum_as_text, finite, has_ends, infinite
from diptych.sql.description import Sorting
from diptych.sql.entity import MappedEntity


class Part(NamedTuple):
    """Rows that an index has side by side: their conditions, and their order as far as these don't settle it."""

    conditions: tuple[sa.ColumnElement[bool], ...] = ()
    ordered: tuple[sa.ColumnElement[Any], ...] = ()

    def then(self, *others: Part) -> Part:
        """Returns the part with further conditions, on columns that follow in the order."""
        parts = (self, *others)
        return Part(
            tuple(condition for part in parts for condition in part.conditions),
            tuple(column for part in parts for column in part.ordered),
        )


class SortedColumn(NamedTuple):
    """A column of a list in SQL: ``value`` is ordered as in Redis, ``plain`` is compared for equality.

    ``is_joined`` marks a column of another row; it ``is_nested`` if it is computed from such rows. ``has_element`` of
    a column of elements makes conditions on it a condition on their row. ``apart`` is the value itself where
    ``value`` has one in the place of the two that PostgreSQL has for an end of the calendar.
    """

    sorting: Sorting
    value: sa.ColumnElement[Any]
    plain: sa.ColumnElement[Any]
    is_nullable: bool
    type: sa.types.TypeEngine[Any]
    dialect: sa.Dialect
    is_joined: bool = False
    is_nested: bool = False
    has_element: Callable[[Sequence[sa.ColumnElement[bool]]], sa.ColumnElement[bool]] | None = None
    apart: sa.ColumnElement[Any] | None = None

    def with_one_end(self) -> SortedColumn:
        """Returns the column in Python's order, where PostgreSQL may have two values for one of Python's."""
        if not has_ends(self.type, self.dialect):
            return self
        value = finite(self.value, self.type)
        return self._replace(value=value, plain=value, apart=self.value)

    @property
    def is_of_sqlite(self) -> bool:
        """True if SQLite has the column."""
        return self.dialect.name == "sqlite"

    @property
    def has_rank(self) -> bool:
        """True if nulls are where SQLite has none by itself."""
        return self.is_of_sqlite and self.is_nullable and self.sorting.nulls_first == self.sorting.descending

    def turned(self) -> SortedColumn:
        """Returns the column in the opposite order."""
        sorting = self.sorting
        turned = sorting._replace(descending=not sorting.descending, nulls_first=not sorting.nulls_first)
        return self._replace(sorting=turned)

    def ordered(self, value: sa.ColumnElement[Any] | None = None) -> tuple[sa.ColumnElement[Any], ...]:
        """Returns the columns of ``ORDER BY``, for another ``value`` in the place of the column's own."""
        own = self.value if value is None else value
        directed = own.desc() if self.sorting.descending else own
        if self.has_rank:
            return (own.is_(None).desc() if self.sorting.nulls_first else own.is_(None)), directed
        if not self.is_nullable:
            return (directed,)
        return ((directed.nulls_first() if self.sorting.nulls_first else directed.nulls_last()),)

    @property
    def anywhere(self) -> Part:
        """All rows."""
        return Part((), self.ordered())

    def within(self, *bounds: sa.ColumnElement[bool]) -> Part:
        """The rows with a value in these bounds, null not among them."""
        return Part((*self._ranked(0), *(bounds or (self.value.is_not(None),))), self.ordered()[-1:])

    def at(self, value: sa.ColumnElement[Any], *, is_null: bool) -> Part:
        """The rows with this value."""
        if self.has_element is not None:
            own = self._replace(has_element=None).at(value, is_null=is_null)
            return Part((self.has_element(own.conditions),))
        if is_null:
            # PostgreSQL does not see that a column which is null has one value.
            return Part((*self._ranked(1), self.value.is_(None)), () if self.is_of_sqlite else self.ordered())
        if self.has_rank:
            # After `=` SQLite puts the value into the rank, too, which no index has then.
            return Part((*self._ranked(0), self.plain.op("IS", is_comparison=True)(value)))
        return Part((self.plain == (self.compared(value) if self.plain is self.value else value),))

    def all_at(self, value: sa.ColumnElement[Any], *, is_null: bool) -> list[Part]:
        """The rows with this value, side by side in an index each."""
        if self.apart is None or is_null:
            return [self.at(value, is_null=is_null)]
        apart = self._replace(value=self.apart, plain=self.apart)
        other = infinite(value, self.type)
        return [
            apart.at(value, is_null=False),
            Part((other != value,)).then(apart.at(other, is_null=False)),
        ]

    def behind(
        self, value: sa.ColumnElement[Any], *, is_null: bool, in_range: bool = False
    ) -> Iterable[Part]:
        """Yields the conditions for values after this value; ``in_range``: null is not among the values."""
        if is_null:
            if self.sorting.nulls_first:
                yield self.within()
            return
        there = self.compared(value)
        yield self.within(self.value < there if self.sorting.descending else self.value > there)
        if self.is_nullable and not self.sorting.nulls_first and not in_range:
            yield self.at(value, is_null=True)

    def compared(self, value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Returns a parameter as ``value`` is compared with it."""
        return enum_as_text(value, self.dialect)

    def _ranked(self, rank: int) -> tuple[sa.ColumnElement[bool], ...]:
        return (self.value.is_(None) == sa.literal_column(str(rank)),) if self.has_rank else ()


def sorted_column(entity: MappedEntity, sorting: Sorting, dialect: sa.Dialect) -> SortedColumn:
    """Returns an entity's own column in this order."""
    column, value = entity.columns[sorting.name], entity.in_code_points(sorting.name, dialect)
    plain = found_by(column, value, dialect)
    return SortedColumn(sorting, value, plain, bool(column.nullable), column.type, dialect)


def linking_columns(entity: MappedEntity, names: Sequence[str], dialect: sa.Dialect) -> list[SortedColumn]:
    """Returns columns that are compared for equality: an index may have their nulls anywhere."""
    columns = (sorted_column(entity, Sorting(name, entity.model), dialect) for name in names)
    return [column._replace(is_nullable=False) for column in columns]


def found_by(
    column: sa.ColumnElement[Any], value: sa.ColumnElement[Any], dialect: sa.Dialect
) -> sa.ColumnElement[Any]:
    """Returns what is compared for equality, the ``column`` itself or its ordered ``value``.

    PostgreSQL has no index of an enum's texts, but finds a value.
    """
    is_enum = isinstance(column.type, sa.Enum) and column.type.native_enum
    return column if is_enum and dialect.name == "postgresql" else value


def behind(
    columns: Sequence[SortedColumn],
    place: Sequence[sa.ColumnElement[Any]],
    nulls: Sequence[bool],
    decisive: int,
    *,
    bounds: Sequence[sa.ColumnElement[bool]] | None,
) -> list[Part]:
    """Returns the rows behind a place in the order of ``columns``, of which the first ``decisive`` tell rows apart.

    ``nulls`` tells which values of the place are null. With ``bounds``, conditions on the first column that the place
    fulfils, null is not among the rows.
    """
    directions = {column.sorting.descending for column in columns}
    if len(directions) == 1 and not any(column.is_nullable for column in columns):
        own = sa.tuple_(*(column.value for column in columns))
        there = sa.tuple_(*(column.compared(value) for column, value in zip(columns, place, strict=True)))
        is_behind = own < there if directions == {True} else own > there
        return [Part((is_behind, *(bounds or ())), everywhere(columns[:decisive]).ordered)]
    parts: list[Part] = []
    before = Part()
    for n, (column, value, is_null) in enumerate(zip(columns, place, nulls, strict=True)):
        rest = everywhere(columns[n + 1 : decisive])
        in_range = bounds is not None and n == 0
        # Elsewhere, in what is equal to the place, SQLite might take the bounds for its search.
        within = Part(tuple(bounds or ()) if n == 0 else ())
        beyond = column.behind(value, is_null=is_null, in_range=in_range)
        parts += (before.then(within, part, rest) for part in beyond)
        before = before.then(column.at(value, is_null=is_null))
    return parts or [Part((sa.false(),))]


def everywhere(columns: Sequence[SortedColumn]) -> Part:
    """Returns all rows in the order of ``columns``."""
    return Part().then(*(column.anywhere for column in columns))


def own_alias(table: sa.FromClause, name: str) -> Any:
    """Returns an alias of a table. SQLAlchemy's own, ``book_1``, may be the name of another table that is queried."""
    return table.alias(f"diptych_{name}")
