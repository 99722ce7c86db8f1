"""Sorting by a mapped attribute, as SQLAlchemy's ``desc``, ``asc``, ``nulls_first`` and ``nulls_last`` say it."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import UnaryExpression

_DIRECTIONS = {operators.asc_op: False, operators.desc_op: True}
_NULLS = {operators.nulls_first_op: True, operators.nulls_last_op: False}


class Sorting(NamedTuple):
    """Sorting by the attribute ``name`` of the class ``model``.

    What is no mapped attribute has its text as name, and None as class. Nulls come last in ascending order and first
    in descending order, as in PostgreSQL, where the attribute does not say otherwise.
    """

    name: str
    model: type | None
    descending: bool = False
    nulls_first: bool = False

    def __str__(self) -> str:
        direction = ".desc()" if self.descending else ""
        nulls = (".nulls_last()", ".nulls_first()")[self.nulls_first]
        return self.name + direction + (nulls if self.nulls_first != self.descending else "")


def sorting_by(column: Any) -> Sorting:
    """Returns the sorting that an argument of ``by`` asks for."""
    descending, nulls_first = False, None
    while isinstance(column, UnaryExpression) and column.modifier in {**_DIRECTIONS, **_NULLS}:
        descending = _DIRECTIONS.get(column.modifier, descending)
        nulls_first = _NULLS.get(column.modifier, nulls_first)
        column = column.element
    first = descending if nulls_first is None else nulls_first
    annotations = getattr(column, "_annotations", {})
    if hasattr(column, "class_"):
        return Sorting(str(column.key), column.class_, descending, first)
    if "parententity" in annotations and "proxy_key" in annotations:
        return Sorting(annotations["proxy_key"], annotations["parententity"].class_, descending, first)
    return Sorting(str(column), None, descending, first)
