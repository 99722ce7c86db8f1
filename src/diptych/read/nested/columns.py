"""Nested fields as columns of lists."""

from __future__ import annotations

import decimal
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from diptych.read.nested.tree import NestedField
from diptych.sql.description import Column

_MOST_DIGITS = 131_072
_MOST_PLACES = 16_383
"""Digits before and behind the decimal point that a number of PostgreSQL's has at most.

https://www.postgresql.org/docs/current/datatype-numeric.html
"""


def sortable(fields: Iterable[NestedField]) -> dict[str, Column]:
    """Returns the nested fields by which lists can be sorted: numbers, and values of one row."""
    return {field.name: column for field in fields if (column := _column(field)) is not None}


def _column(field: NestedField) -> Column | None:
    source = None if field.column is None else field.entity.columns[field.column]
    if field.kind == "count" or (field.kind == "total" and source is not None and source.type is int):
        return _number(field, int, _whole, nullable=False)
    if field.kind in ("total", "average"):
        return _number(field, decimal.Decimal, _decimal, nullable=field.kind == "average")
    if field.kind == "many" or source is None:
        return None
    return msgspec.structs.replace(source, name=field.name, nullable=True, unique=False)


def _number(field: NestedField, kind: type, fit: Callable[[Any], Any], *, nullable: bool) -> Column:
    return Column(
        name=field.name, type=kind, nullable=nullable, unique=False, bytewise=False, logged=True, fit=fit
    )


def _whole(value: Any) -> int:
    return int(_converted(value, int, "must be a whole number"))


def _decimal(value: Any) -> decimal.Decimal:
    found = decimal.Decimal(_converted(value, decimal.Decimal, "must be a number"))
    if not found.is_finite():
        raise ValueError("must be a number")
    if not -_MOST_PLACES <= found.adjusted() < _MOST_DIGITS:
        raise ValueError("is out of range")
    return found


def _converted(value: Any, kind: type, otherwise: str) -> Any:
    """Returns a number, of a text too, as it is for columns."""
    if isinstance(value, bool):
        raise ValueError(otherwise)
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        raise ValueError(otherwise) from None
