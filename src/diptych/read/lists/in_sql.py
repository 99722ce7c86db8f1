"""The SQL half of a list: a page is a SELECT in the list's order. The Redis half is ``in_redis.py``.

Both order rows by the same values: text by code point, enums by their text.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import sqlalchemy as sa

from diptych.read.lists.filters import Between, StartsWith
from diptych.read.lists.page import PageRequest
from diptych.read.lists.sorted_columns import Part, SortedColumn, behind, everywhere, found_by
from diptych.sql.comparison import finite, has_ends, is_end
from diptych.sql.conditions.clause import clause_of
from diptych.sql.conditions.tree import Condition
from diptych.sql.description import Row, Sorting
from diptych.sql.entity import MappedEntity
from diptych.sql.statements import PreparedSelect

if TYPE_CHECKING:
    from diptych.read.lists.index import ListIndex
    from diptych.read.lists.outer_joins import OuterJoins
    from diptych.read.lists.semijoins import Semijoins

Order: TypeAlias = tuple[Sorting, ...]
"""The columns of a list, with their directions."""


class _Shape(NamedTuple):
    """All that the SELECTs of a page depend on.

    ``nulls`` tells which values of each leading column are null. ``given`` is the kind of the next column's filter
    with the presence of its ends, ``place`` tells which values of the place are null; None if there is none.
    ``is_behind_start`` and ``is_before_end`` tell where the place is beside that filter's range, in the list's order.
    ``meets_ends``: PostgreSQL may have two values for one of Python's, by which rows are selected or ordered.
    """

    order: Order
    nulls: tuple[tuple[bool, ...], ...]
    given: tuple[type, bool, bool] | None
    place: tuple[bool, ...] | None
    is_backward: bool
    has_offset: bool
    where: Condition | None
    is_behind_start: bool
    is_before_end: bool
    meets_ends: bool = False


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
        *_beside_range(request),
    )


def _beside_range(request: PageRequest) -> tuple[bool, bool]:
    if request.values is None or request.selection.given is None:
        return True, True
    start, end = request.selection.range()
    index, at = request.selection.index, len(request.selection.values)
    place = index.encoded(request.values, at=at)
    return place >= start, end is None or place < end


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


class FieldColumns(Protocol):
    """The nested fields by which lists are sorted."""

    def column(self, sorting: Sorting) -> SortedColumn | None:
        """Returns the column of a field; None for any other name."""


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

    Their parameters are those of ``parameters``. Each reads parts of the list (see ``sorted_columns.py``), of each
    not more than the page's rows, which an index has in their order.
    """

    def __init__(
        self,
        entity: MappedEntity,
        joined: OuterJoins,
        elements: Semijoins,
        nested: FieldColumns | None,
        selected: sa.Select[Any],
        dialect: sa.Dialect,
    ) -> None:
        self._entity = entity
        self._joined = joined
        self._elements = elements
        self._nested = nested
        self._selected = selected
        self._dialect = dialect
        self._unique = entity.describe(dialect).unique
        self._made = functools.lru_cache(maxsize=1024)(self._make)  # it takes its time
        self._ends_of = functools.cache(self._have_ends)

    def page(self, request: PageRequest, *, meets_ends: bool = False) -> PreparedSelect:
        """Returns the SELECT of a page; a backward page is read from its end on.

        ``meets_ends``: a page without it had a row of ``are_at_ends``.
        """
        shape = self._shape_of(request)
        return self._made("page", shape._replace(meets_ends=True) if meets_ends else shape)

    def are_at_ends(self, request: PageRequest, rows: Sequence[Row]) -> bool:
        """Returns whether PostgreSQL may have such rows in another order than Redis, for an end of the calendar.

        No index has the order of both values of an end: the SELECT with ``meets_ends`` sorts all rows selected.
        """
        index, at = request.selection.index, len(request.selection.values)
        have_ends = self._ends_of(index.sorted_by)
        names = [name for name, has in zip(index.columns[at:], have_ends[at:], strict=True) if has]
        return any(is_end(row[name]) for name in names for row in rows)

    def beside(self, request: PageRequest) -> tuple[PreparedSelect | None, PreparedSelect | None]:
        """Returns the SELECTs of the facts that a page tells beside its rows, None for a fact not asked for.

        The first one finds a row if there are selected rows on the other side of the place, the second one returns
        the number of selected rows.
        """
        shape = self._shape_of(request)
        return (
            None if shape.place is None else self._made("other", shape),
            self._made("count", shape._replace(place=None, has_offset=False)) if request.counts else None,
        )

    def order(self, index: ListIndex) -> list[SortedColumn]:
        """Returns the columns that an index has to have in this order, so that it serves a list."""
        columns = [self._sorted(sorting) for sorting in index.sorted_by]
        return columns[: self._decisive((), (), columns)]

    def _have_ends(self, order: Order) -> list[bool]:
        return [has_ends(self._sorted(sorting).type, self._dialect) for sorting in order]

    def _shape_of(self, request: PageRequest) -> _Shape:
        shape = _shape_of(request)
        if self._dialect.name != "postgresql" or not any(map(is_end, _values_in(request))):
            return shape
        return shape._replace(meets_ends=True)

    def _make(self, what: str, shape: _Shape) -> PreparedSelect:
        is_turned = shape.is_backward != (what == "other")
        sorted_by: Iterable[SortedColumn] = map(self._sorted, shape.order)
        if shape.meets_ends:
            sorted_by = (column.with_one_end() for column in sorted_by)
        columns = [column.turned() if is_turned else column for column in sorted_by]
        leading, rest = columns[: len(shape.nulls)], columns[len(shape.nulls) :]
        decisive = self._decisive(leading, shape.nulls, rest)
        ends = self._ends(rest, shape, decisive, is_turned=is_turned, has_place=what == "other")
        shown = (
            Part() if shape.where is None else Part((clause_of(shape.where, self._entity, self._dialect),))
        )
        parts = [start.then(end, shown) for start in self._starts(leading, shape.nulls) for end in ends]
        if what == "count":
            return PreparedSelect(self._counted(parts, columns))
        if what == "other":
            one = self._one("found", columns)
            return PreparedSelect(self._together(one, parts, rest[:decisive], sa.literal_column("1")))
        limit = sa.bindparam("limit", type_=sa.Integer)
        page = self._together(self._selected, parts, rest[:decisive], limit)
        return PreparedSelect(
            page.offset(sa.bindparam("offset", type_=sa.Integer)) if shape.has_offset else page
        )

    def _starts(self, columns: Sequence[SortedColumn], nulls: Sequence[Sequence[bool]]) -> list[Part]:
        """Returns the rows with each value of the leading columns, all but the last of which have one value."""
        starts = [Part()]
        for i, (column, of_values) in enumerate(zip(columns, nulls, strict=True)):
            values = [
                part
                for j, is_null in enumerate(of_values)
                for part in column.all_at(_parameter(f"value_{i}_{j}", column), is_null=is_null)
            ]
            starts = [start.then(value) for start in starts for value in values]
        return starts

    def _ends(
        self,
        columns: Sequence[SortedColumn],
        shape: _Shape,
        decisive: int,
        *,
        is_turned: bool,
        has_place: bool,
    ) -> list[Part]:
        """Returns the rows in the range of the next column and behind the place; ``has_place``: or at the place."""
        place, given = shape.place, shape.given
        sides = (shape.is_behind_start, shape.is_before_end)
        is_behind_near, is_before_far = reversed(sides) if is_turned else sides
        if place is None or not is_behind_near:
            # A place in front of the range has all of the range behind it.
            if given is None:
                return [everywhere(columns[:decisive])]
            within = columns[0].within(*_bounds(columns[0], given))
            return [within.then(everywhere(columns[1:decisive]))]
        if not is_before_far:
            return [Part((sa.false(),))]
        values = [_parameter(f"place_{i}", column) for i, column in enumerate(columns)]
        # SQLite takes one bound of each side for its search, which has to be the place's.
        near = "end" if columns and columns[0].sorting.descending else "start"
        bounds = None if given is None else _bounds(columns[0], given, but=near)
        parts = behind(columns, values, place, decisive, bounds=bounds)
        if has_place:
            at = zip(columns, values, place, strict=True)
            parts.append(Part().then(*(column.at(value, is_null=is_null) for column, value, is_null in at)))
        return parts

    def _together(
        self,
        selected: sa.Select[Any],
        parts: Sequence[Part],
        columns: Sequence[SortedColumn],
        limit: sa.ColumnElement[int],
    ) -> sa.Select[Any]:
        """Returns the SELECT of the first rows of several parts."""
        if len(parts) == 1:
            return _first(selected, parts[0], limit)
        own = [value.label(f"value_{n}") for n, value in enumerate(selected.selected_columns)]
        ordered = [column.value.label(f"order_{n}") for n, column in enumerate(columns)]
        labelled = selected.with_only_columns(*own, *ordered, maintain_column_froms=True)
        # A part alone: both databases take its rows from the index until there are enough.
        each = [_first(labelled, part, limit).subquery(f"part_{n}") for n, part in enumerate(parts)]
        together = sa.union_all(*(sa.select(*part.c) for part in each)).subquery("parts")
        values = list(together.c)
        order = [
            term
            for column, value in zip(columns, values[len(own) :], strict=True)
            for term in column.ordered(value)
        ]
        return sa.select(*values[: len(own)]).order_by(*order).limit(limit)

    def _one(self, label: str, columns: Sequence[SortedColumn]) -> sa.Select[Any]:
        """Returns the SELECT of a 1 for each row, from the tables that these columns are of."""
        has_joined = any(column.is_joined for column in columns)
        source = self._joined.source if has_joined else self._entity.table
        return sa.select(sa.literal_column("1").label(label)).select_from(source)

    def _counted(self, parts: Sequence[Part], columns: Sequence[SortedColumn]) -> sa.Select[Any]:
        one = self._one("counted", columns)
        if len(parts) == 1:
            counted = one.where(*parts[0].conditions)
            return counted.with_only_columns(sa.func.count(), maintain_column_froms=True)
        each = sa.union_all(*(one.where(*part.conditions) for part in parts)).subquery("parts")
        return sa.select(sa.func.count()).select_from(each)

    def _decisive(
        self,
        leading: Sequence[SortedColumn],
        nulls: Sequence[Sequence[bool]],
        columns: Sequence[SortedColumn],
    ) -> int:
        """Returns the number of columns after which no two rows are equal: an index need not have the others."""
        equal = [column for column, of_values in zip(leading, nulls, strict=True) if len(of_values) == 1]
        names: set[str] = set()
        for n, column in enumerate((*equal, *columns)):
            if n >= len(equal) and any(unique <= names for unique in self._unique):
                return n - len(equal)
            if not column.is_nullable:
                names.add(column.sorting.name)
        return len(columns)

    def _sorted(self, sorting: Sorting) -> SortedColumn:
        if sorting.element is not None:
            return self._elements.column(sorting)
        if self._nested is not None and (nested := self._nested.column(sorting)) is not None:
            return nested
        is_joined = sorting.name in self._joined.columns
        column, value = self._joined.in_code_points(sorting.name)
        plain = found_by(column, value, self._dialect)
        is_nullable = is_joined or bool(column.nullable)
        return SortedColumn(sorting, value, plain, is_nullable, column.type, self._dialect, is_joined)


def _values_in(request: PageRequest) -> Iterator[Any]:
    """Yields the values by which the rows of a page are selected."""
    given = request.selection.given
    yield from (value for values in request.selection.values for value in values)
    yield from request.values or ()
    if isinstance(given, Between):
        yield from (given.start, given.end)


def _parameter(name: str, column: SortedColumn) -> sa.ColumnElement[Any]:
    value = sa.bindparam(name, type_=column.type)
    return value if column.apart is None else finite(value, column.type)


def _bounds(
    column: SortedColumn, given: tuple[type, bool, bool], but: str = ""
) -> list[sa.ColumnElement[bool]]:
    """Returns the conditions for the ends of a range, ``but`` for one of them."""
    kind, has_start, has_end = given
    start, end = (column.compared(_parameter(name, column)) for name in ("start", "end"))
    bounds = [column.value >= start] if has_start and but != "start" else []
    if has_end and but != "end":
        bounds.append(column.value < end if kind is StartsWith else column.value <= end)
    return bounds


def _first(selected: sa.Select[Any], part: Part, limit: sa.ColumnElement[int]) -> sa.Select[Any]:
    return selected.where(*part.conditions).order_by(*part.ordered).limit(limit)
