"""The SQL half of a list: a page is a SELECT in the list's order. The Redis half is ``in_redis.py``.

Both order rows by the same values: text by code point, enums by their text.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import sqlalchemy as sa

from diptych.sql.comparison import enum_as_text
from diptych.sql.entity import MappedEntity
from diptych.sql.sorting import Sorting
from diptych.sql.statements import PreparedSelect

Order: TypeAlias = tuple[Sorting, ...]
"""The columns of a list, with their directions."""


class PageSelects:
    """The SELECTs of pages of an entity's lists, made from ``selected``, the SELECT of rows without an order."""

    def __init__(self, entity: MappedEntity, selected: sa.Select[Any], dialect: sa.Dialect) -> None:
        self._entity = entity
        self._selected = selected
        self._dialect = dialect
        self._made = functools.cache(self._make)  # it takes its time

    def select(self, order: Order, after: Sequence[Any] | None) -> PreparedSelect:
        """Returns the SELECT of a page in this order, from the beginning or ``after`` a place.

        Its parameters are those of ``parameters``.
        """
        return self._made(order, None if after is None else tuple(value is None for value in after))

    def _make(self, order: Order, nulls: tuple[bool, ...] | None) -> PreparedSelect:
        """Makes the SELECT of a page; ``nulls`` tells which values of the place before the page are null."""
        columns = [self._sorted(sorting) for sorting in order]
        page = self._selected.order_by(*(column.ordered for column in columns))
        page = page.limit(sa.bindparam("limit", type_=sa.Integer))
        if nulls is not None:
            page = page.where(self._behind(columns, nulls))
        return PreparedSelect(page)

    def _sorted(self, sorting: Sorting) -> _SortedColumn:
        name = sorting.name
        value = self._entity.in_code_points(name, self._dialect)
        return _SortedColumn(sorting, value, bool(self._entity.columns[name].nullable))

    def _behind(self, columns: Sequence[_SortedColumn], nulls: Sequence[bool]) -> sa.ColumnElement[bool]:
        """Returns the condition for rows behind a place, whose null values are known."""
        types = (self._entity.columns[column.sorting.name].type for column in columns)
        given = (sa.bindparam(f"after_{i}", type_=kind) for i, kind in enumerate(types))
        place = [enum_as_text(value, self._dialect) for value in given]
        if not any(column.is_nullable or column.sorting.descending for column in columns):
            return sa.tuple_(*(column.value for column in columns)) > sa.tuple_(*place)
        behind: sa.ColumnElement[bool] = sa.false()
        for column, value, is_null in reversed(list(zip(columns, place, nulls, strict=True))):
            behind = column.is_behind(value, is_null=is_null) | (
                column.is_at(value, is_null=is_null) & behind
            )
        # An index serves a bound of its first column, and no alternatives.
        return columns[0].is_from(place[0], is_null=nulls[0]) & behind


class _SortedColumn(NamedTuple):
    """A column of a list in SQL: ``value`` is compared, as in Redis."""

    sorting: Sorting
    value: sa.ColumnElement[Any]
    is_nullable: bool

    @property
    def ordered(self) -> sa.ColumnElement[Any]:
        """The column in ``ORDER BY``."""
        ordered = self.value.desc() if self.sorting.descending else self.value
        if not self.is_nullable:
            return ordered
        return ordered.nulls_first() if self.sorting.nulls_first else ordered.nulls_last()

    def is_behind(self, place: sa.ColumnElement[Any], *, is_null: bool) -> sa.ColumnElement[bool]:
        """Returns the condition for values that come after a value."""
        if is_null:
            return self.value.is_not(None) if self.sorting.nulls_first else sa.false()
        behind = self.value < place if self.sorting.descending else self.value > place
        return self._or_null(behind)

    def is_from(self, place: sa.ColumnElement[Any], *, is_null: bool) -> sa.ColumnElement[bool]:
        """Returns the condition for a value and all that come after it."""
        if is_null:
            return sa.true() if self.sorting.nulls_first else self.value.is_(None)
        return self._or_null(self.value <= place if self.sorting.descending else self.value >= place)

    def is_at(self, place: sa.ColumnElement[Any], *, is_null: bool) -> sa.ColumnElement[bool]:
        """Returns the condition for a value."""
        return self.value.is_(None) if is_null else self.value == place

    def _or_null(self, condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
        has_nulls_behind = self.is_nullable and not self.sorting.nulls_first
        return condition | self.value.is_(None) if has_nulls_behind else condition


def parameters(after: Sequence[Any] | None, limit: int) -> dict[str, Any]:
    """Returns the parameters of a page of ``limit`` rows ``after`` a place (None: from the beginning)."""
    place = {f"after_{i}": value for i, value in enumerate(after or ()) if value is not None}
    return {"limit": limit, **place}
