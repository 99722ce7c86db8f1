"""The SQL half of a list: a page is a SELECT in the list's order. The Redis half is ``in_redis.py``.

Both order rows by the same values: text by code point, enums by their text.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import sqlalchemy as sa

from diptych.read.lists.filters import Between, StartsWith
from diptych.read.lists.page import PageRequest
from diptych.sql.comparison import enum_as_text
from diptych.sql.conditions.clause import clause_of
from diptych.sql.conditions.tree import Condition
from diptych.sql.description import Sorting
from diptych.sql.entity import MappedEntity
from diptych.sql.statements import PreparedSelect

Order: TypeAlias = tuple[Sorting, ...]
"""The columns of a list, with their directions."""


class _Shape(NamedTuple):
    """All that the SELECTs of a page depend on.

    ``nulls`` tells which values of each leading column are null. ``given`` is the kind of the next column's filter
    with the presence of its ends, ``place`` tells which values of the place are null; None if there is none.
    """

    order: Order
    nulls: tuple[tuple[bool, ...], ...]
    given: tuple[type, bool, bool] | None
    place: tuple[bool, ...] | None
    is_backward: bool
    has_offset: bool
    where: Condition | None


def _shape_of(request: PageRequest) -> _Shape:
    selection, given = request.selection, request.selection.given
    shape_of_given: tuple[type, bool, bool] | None = None
    if isinstance(given, Between):
        shape_of_given = Between, given.start is not None, given.end is not None
    elif isinstance(given, StartsWith):
        shape_of_given = StartsWith, True, following_text(given.text) is not None
    return _Shape(
        selection.index.sorted_by,
        tuple(tuple(value is None for value in values) for values in selection.values),
        shape_of_given,
        None if request.values is None else tuple(value is None for value in request.values),
        request.is_backward,
        request.offset > 0,
        selection.index.where,
    )


def following_text(beginning: str) -> str | None:
    """Returns the first text, by code point, behind all texts with this beginning; None if nothing is behind."""
    cut = beginning.rstrip("\U0010ffff")
    if not cut:
        return None
    last = ord(cut[-1]) + 1
    # No text has the code points of surrogates, nor could a driver send them.
    return cut[:-1] + chr(0xE000 if 0xD800 <= last <= 0xDFFF else last)


def parameters(request: PageRequest, limit: int) -> dict[str, Any]:
    """Returns the parameters of the SELECTs of a page, with ``limit`` rows."""
    selection, given = request.selection, request.selection.given
    values: dict[str, Any] = {"limit": limit, "offset": request.offset}
    for i, each in enumerate(selection.values):
        values |= {f"value_{i}_{j}": value for j, value in enumerate(each)}
    if isinstance(given, StartsWith):
        values |= {"start": given.text, "end": following_text(given.text)}
    elif given is not None:
        values |= {"start": given.start, "end": given.end}
    values |= {f"place_{i}": value for i, value in enumerate(request.values or ())}
    return {name: value for name, value in values.items() if value is not None}


class Beside(NamedTuple):
    """The rest of a page: whether there are rows on the other side of its place, and the number of selected rows."""

    has_other: bool = False
    total: int = 0

    @classmethod
    def of(cls, found: Sequence[Sequence[Sequence[Any]]]) -> Beside:
        """Returns the same of the rows that the SELECTs ``PageSelects.beside`` return."""
        other, counted = found
        return cls(bool(other), int(counted[0][0]) if counted else 0)


class PageSelects:
    """The SELECTs of pages of an entity's lists, made from ``selected``, the SELECT of rows without an order.

    Their parameters are those of ``parameters``.
    """

    def __init__(self, entity: MappedEntity, selected: sa.Select[Any], dialect: sa.Dialect) -> None:
        self._entity = entity
        self._selected = selected
        self._dialect = dialect
        self._made = functools.lru_cache(maxsize=1024)(self._make)  # it takes its time

    def page(self, request: PageRequest) -> PreparedSelect:
        """Returns the SELECT of a page; a backward page is read from its end on."""
        return self._made("page", _shape_of(request))

    def beside(self, request: PageRequest) -> tuple[PreparedSelect | None, PreparedSelect | None]:
        """Returns the SELECTs of what a page tells beside its rows, None for what it does not tell.

        The first one finds a row if there are selected rows on the other side of the place, the second one returns
        the number of selected rows.
        """
        shape = _shape_of(request)
        return (
            None if shape.place is None else self._made("other", shape),
            self._made("count", shape._replace(place=None, has_offset=False)) if request.counts else None,
        )

    def _make(self, what: str, shape: _Shape) -> PreparedSelect:
        columns = [self._sorted(sorting) for sorting in shape.order]
        leading, rest = columns[: len(shape.nulls)], columns[len(shape.nulls) :]
        conditions = [self._equal(i, column, shape.nulls[i]) for i, column in enumerate(leading)]
        if shape.where is not None:
            conditions.append(clause_of(shape.where, self._entity, self._dialect))
        if shape.given is not None:
            conditions += self._ranged(rest[0], shape.given)
        if what == "count":
            return PreparedSelect(
                sa.select(sa.func.count()).select_from(self._entity.table).where(*conditions)
            )
        if what == "other" and shape.place is not None:
            before = rest if shape.is_backward else [column.turned() for column in rest]
            at_place = sa.and_(sa.true(), *self._at_place(rest, shape.place))
            conditions.append(self._behind(before, shape.place) | at_place)
            return PreparedSelect(sa.select(rest[0].value).where(*conditions).limit(sa.literal_column("1")))
        rest = [column.turned() for column in rest] if shape.is_backward else rest
        if shape.place is not None:
            conditions.append(self._behind(rest, shape.place))
        page = self._selected.where(*conditions).order_by(*(column.ordered for column in rest))
        page = page.limit(sa.bindparam("limit", type_=sa.Integer))
        return PreparedSelect(
            page.offset(sa.bindparam("offset", type_=sa.Integer)) if shape.has_offset else page
        )

    def _sorted(self, sorting: Sorting) -> _SortedColumn:
        column = self._entity.columns[sorting.name]
        value = self._entity.in_code_points(sorting.name, self._dialect)
        return _SortedColumn(sorting, value, bool(column.nullable), column.type)

    def _parameter(self, name: str, column: _SortedColumn) -> sa.ColumnElement[Any]:
        return enum_as_text(sa.bindparam(name, type_=column.type), self._dialect)

    def _equal(self, i: int, column: _SortedColumn, nulls: Sequence[bool]) -> sa.ColumnElement[bool]:
        """Returns the condition for the values of a leading column."""
        return sa.or_(
            sa.false(),
            *(
                column.is_at(self._parameter(f"value_{i}_{j}", column), is_null=is_null)
                for j, is_null in enumerate(nulls)
            ),
        )

    def _ranged(self, column: _SortedColumn, given: tuple[type, bool, bool]) -> list[sa.ColumnElement[bool]]:
        kind, has_start, has_end = given
        start, end = self._parameter("start", column), self._parameter("end", column)
        bounds = [column.value >= start] if has_start else []
        if has_end:
            bounds.append(column.value < end if kind is StartsWith else column.value <= end)
        return bounds or [column.value.is_not(None)]

    def _at_place(
        self, columns: Sequence[_SortedColumn], nulls: Sequence[bool]
    ) -> list[sa.ColumnElement[bool]]:
        return [
            column.is_at(self._parameter(f"place_{i}", column), is_null=nulls[i])
            for i, column in enumerate(columns)
        ]

    def _behind(self, columns: Sequence[_SortedColumn], nulls: Sequence[bool]) -> sa.ColumnElement[bool]:
        """Returns the condition for rows behind a place, whose null values are known."""
        if not columns:
            return sa.false()
        place = [self._parameter(f"place_{i}", column) for i, column in enumerate(columns)]
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
    type: sa.types.TypeEngine[Any]

    def turned(self) -> _SortedColumn:
        """Returns the column in the opposite order."""
        sorting = self.sorting
        turned = sorting._replace(descending=not sorting.descending, nulls_first=not sorting.nulls_first)
        return self._replace(sorting=turned)

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
