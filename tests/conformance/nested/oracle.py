"""What documents with nested fields have to be, in plain Python: from the rows alone, and with nothing of diptych."""

from __future__ import annotations

import enum
import functools
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from tests.conformance.nested.tables import Rel, columns_of

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]
"""All rows, by the names of the tables."""

_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


class Order(NamedTuple):
    column: str
    descending: bool
    nulls_first: bool


class Field(NamedTuple):
    """A declared field. ``made`` is what the declaration says, the rest the same for the oracle."""

    name: str
    kind: str
    relation: str
    rel: Rel
    made: Any
    hint: Any
    column: str | None = None
    order: tuple[Order, ...] = ()
    limit: int | None = None
    has: Callable[[Row], bool] = lambda _row: True
    places: int | None = None
    body: Body | None = None
    depth: int | None = None

    @property
    def is_sortable(self) -> bool:
        # Totals beyond 64 bits set their rows aside, and SQLite's averages of such numbers are not exact in SQL.
        if self.kind in ("total", "average") and self.column in ("big", "pages", "size"):
            return False
        if self.kind == "average" and self.column in ("mass", "ratio"):
            return False
        return self.kind not in ("one", "many") or (self.kind == "one" and self.column is not None)


class Body(NamedTuple):
    """The fields of a document: the columns of ``model``, and the nested ones; ``camel`` is how they are called."""

    model: Any
    columns: tuple[str, ...]
    fields: tuple[Field, ...]
    camel: bool
    document: Any = None


def document(body: Body, row: Row, tables: Tables) -> bytes:
    """Returns the document of a row as JSON."""
    return msgspec.json.encode(_made(body, row, tables))


def values(body: Body, row: Row, tables: Tables) -> dict[str, Any]:
    """Returns the row with the values of its nested fields by which lists are sorted."""
    sortable = (field for field in body.fields if field.is_sortable)
    return {**row, **{field.name: _value(field, row, tables, None) for field in sortable}}


def _made(body: Body, row: Row, tables: Tables, again: Field | None = None, depth: int = 0) -> dict[str, Any]:
    """``again`` is the field that goes on for ``depth`` rows."""
    made: dict[str, Any] = {name: row[name] for name in body.columns}
    for field in body.fields:
        found = _value(field, row, tables, field.depth)
        is_float = isinstance(found, Decimal | int) and float in (field.hint, *_parts(field.hint))
        made[field.name] = float(found) if is_float else found
    if again is not None:
        made[again.name] = _value(again, row, tables, depth)
    return {_camel(name) if body.camel else name: value for name, value in made.items()}


def _parts(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__args__", ())


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


def _value(field: Field, row: Row, tables: Tables, depth: int | None) -> Any:
    is_at_end = field.depth is not None and depth == 0
    rows = [] if is_at_end else [each for each in related(field.rel, row, tables) if field.has(each)]
    column = str(field.column)
    if field.kind == "count":
        return len(rows)
    if field.kind in ("total", "average"):
        return _number(field, [each[column] for each in rows if each[column] is not None])
    order = [*field.order, Order("id", descending=False, nulls_first=False)]
    if field.kind in ("minimum", "maximum"):
        rows = [each for each in rows if each[column] is not None]
        order.insert(0, Order(column, field.kind == "maximum", nulls_first=False))
    rows = in_order(rows, order)[: field.limit]
    if field.body is None:
        found = [each[column] for each in rows]
    elif field.depth is None:
        found = [_made(field.body, each, tables) for each in rows]
    else:
        left = field.depth if depth is None else depth
        found = [_made(field.body, each, tables, field, left - 1) for each in rows]
    if field.kind == "many":
        return found
    return found[0] if found else None


def related(rel: Rel, row: Row, tables: Tables) -> list[Row]:
    """Returns the rows to which a relationship leads, each once."""
    own, target = row[rel.local], tables[rel.target.__tablename__]
    if own is None:
        return []
    if not rel.through:
        return [each for each in target if each[rel.near] == own]
    linked = {each[rel.far] for each in tables[rel.through] if each[rel.near] == own} - {None}
    return [each for each in target if each["id"] in linked]


def _number(field: Field, found: Sequence[Any]) -> Any:
    summed = sum(map(Fraction, found), Fraction(0))
    if field.kind == "average":
        return None if not found else _rounded(summed / len(found), field.places or 0)
    column = columns_of(field.rel.target)[str(field.column)]
    if column.type.python_type is int:
        return int(summed)
    if column.type.scale is not None:
        return _rounded(summed, column.type.scale)
    found_sum = _rounded(summed, 40).normalize(_EXACT)
    return found_sum.quantize(Decimal(1), context=_EXACT) if _exponent(found_sum) > 0 else found_sum


def _exponent(value: Decimal) -> int:
    return int(value.as_tuple().exponent)


def _rounded(value: Fraction, places: int) -> Decimal:
    """Rounds half up, away from zero."""
    units = int(abs(value) * 10**places + Fraction(1, 2))
    return Decimal(-units if value < 0 else units).scaleb(-places, _EXACT)


def in_order(rows: Iterable[Row], order: Sequence[Order]) -> list[Row]:
    """Returns the rows in this order, enums by their names, texts by code point."""

    def compared(one: Row, other: Row) -> int:
        for column, descending, nulls_first in order:
            first, second = _sortable(one[column]), _sortable(other[column])
            if first is None or second is None:
                if first is not second:
                    return -1 if (first is None) == nulls_first else 1
            elif first != second:
                return -1 if (first < second) != descending else 1
        return 0

    return sorted(rows, key=functools.cmp_to_key(compared))


def _sortable(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.name
    return value.bytes if isinstance(value, uuid.UUID) else value
