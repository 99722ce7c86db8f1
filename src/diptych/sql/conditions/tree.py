"""Conditions over the columns of a row, as plain values, and their test in Python.

SQL's ``NOT`` is taken into the comparisons when a condition is parsed. What is left, ``and`` and ``or``, is true in
SQL's logic of three values if and only if it is true with "false" in the place of "unknown".
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import msgspec

from diptych.sql.description import Column, Entity, Row


class Operator(enum.StrEnum):
    """The test of a comparison."""

    ONE_OF = "in"
    NONE_OF = "not in"
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="
    NULL = "is null"
    NOT_NULL = "is not null"


OPPOSITE = {
    Operator.ONE_OF: Operator.NONE_OF,
    Operator.LESS: Operator.AT_LEAST,
    Operator.AT_MOST: Operator.GREATER,
    Operator.NULL: Operator.NOT_NULL,
}
OPPOSITE |= {other: one for one, other in OPPOSITE.items()}
"""The opposite of each comparison, true where the other is false; of null neither is true."""

ORDERED: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.LESS: operator.lt,
    Operator.AT_MOST: operator.le,
    Operator.GREATER: operator.gt,
    Operator.AT_LEAST: operator.ge,
}
"""The comparisons by the order of values, in Python."""


class Compared(msgspec.Struct, frozen=True, cache_hash=True):
    """A column of the class ``model`` compared with constants, of which none is null."""

    name: str
    model: type
    test: Operator
    values: tuple[Any, ...] = ()

    def __str__(self) -> str:
        if self.test in (Operator.NULL, Operator.NOT_NULL):
            return f"{self.name} {self.test}"
        if self.test in ORDERED:
            return f"{self.name} {self.test} {self.values[0]!r}"
        if len(self.values) == 1:
            return f"{self.name} {'==' if self.test is Operator.ONE_OF else '!='} {self.values[0]!r}"
        return f"{self.name} {self.test} {self.values!r}"


class AllOf(msgspec.Struct, frozen=True, cache_hash=True):
    """A condition that holds if all of its parts do; without parts it always holds."""

    parts: tuple[Any, ...]

    def __str__(self) -> str:
        return f"and_({', '.join(map(str, self.parts))})"


class AnyOf(msgspec.Struct, frozen=True, cache_hash=True):
    """A condition that holds if any of its parts holds; without parts, a condition that never holds."""

    parts: tuple[Any, ...]

    def __str__(self) -> str:
        return f"or_({', '.join(map(str, self.parts))})"


class Unsupported(msgspec.Struct, frozen=True):
    """A part of a condition that is refused, for this reason."""

    reason: str

    def __str__(self) -> str:
        return "…"


Condition: TypeAlias = Compared | AllOf | AnyOf | Unsupported

Predicate: TypeAlias = Callable[[Row], bool]


def leaves_of(condition: Condition) -> Iterator[Compared | Unsupported]:
    """Yields the comparisons of a condition, and what is refused in it."""
    if isinstance(condition, Compared | Unsupported):
        yield condition
    else:
        for part in condition.parts:
            yield from leaves_of(part)


def names_in(condition: Condition | None) -> Iterator[str]:
    """Yields the names of the columns that a condition needs."""
    for leaf in () if condition is None else leaves_of(condition):
        if isinstance(leaf, Compared):
            yield leaf.name


def both(one: Condition | None, other: Condition | None) -> Condition | None:
    """Returns the condition that holds if both do; None always holds."""
    return other if one is None else one if other is None else AllOf((one, other))


def fitted(condition: Condition, entity: Entity) -> Condition:
    """Returns the condition with its constants in the form held by the columns.

    Raises ``ValueError`` for one that its column can't hold.
    """
    if isinstance(condition, AllOf | AnyOf):
        return type(condition)(tuple(fitted(part, entity) for part in condition.parts))
    if isinstance(condition, Unsupported):
        return condition
    column = entity.columns[condition.name]
    values = tuple(map(column.fit, condition.values))
    if column.type is bool and condition.test in ORDERED:
        compare = ORDERED[condition.test]
        accepted = tuple(each for each in (False, True) if compare(each, values[0]))
        return Compared(condition.name, condition.model, Operator.ONE_OF, accepted)
    return Compared(condition.name, condition.model, condition.test, values)


def declared(condition: Condition, entity: Entity) -> Any:
    """Returns a fitted condition for the fingerprint, as values for JSON."""
    if isinstance(condition, AllOf | AnyOf):
        name = "and" if isinstance(condition, AllOf) else "or"
        return [name, *(declared(part, entity) for part in condition.parts)]
    if isinstance(condition, Unsupported):
        return []
    texts = entity.columns[condition.name].texts or {}
    return [condition.name, str(condition.test), *(texts.get(value, value) for value in condition.values)]


def predicate_of(condition: Condition, entity: Entity) -> Predicate:
    """Returns the test of a fitted condition: True for a row for which SQL says the same.

    A value that can't be read is like one of which nothing is known, but that it is not null and is no constant.
    """
    if isinstance(condition, Unsupported):
        raise ValueError(condition.reason)
    if isinstance(condition, Compared):
        return _comparison(condition, entity.columns[condition.name])
    parts = [predicate_of(part, entity) for part in condition.parts]
    if isinstance(condition, AllOf):
        return lambda row: all(part(row) for part in parts)
    return lambda row: any(part(row) for part in parts)


def _comparison(compared: Compared, column: Column) -> Predicate:
    name, values = compared.name, compared.values
    match compared.test:
        case Operator.NULL:
            return lambda row: row[name] is None
        case Operator.NOT_NULL:
            return lambda row: row[name] is not None
        case Operator.ONE_OF:
            return lambda row: row[name] in values
        case Operator.NONE_OF:
            return lambda row: row[name] is not None and row[name] not in values
    compare, texts, bound = ORDERED[compared.test], column.texts, values[0]
    if texts is not None:
        least = texts[bound]
        return lambda row: (text := texts.get(row[name])) is not None and compare(text, least)
    return lambda row: _is_so(compare, row[name], bound)


def _is_so(compare: Callable[[Any, Any], bool], value: Any, bound: Any) -> bool:
    if value is None:
        return False
    if value != value:
        return compare(1, 0)  # PostgreSQL has what is no number (NaN) behind all numbers
    try:
        return compare(value, bound)
    except TypeError:
        return False
