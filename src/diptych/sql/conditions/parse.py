"""Conditions as SQLAlchemy expresses them, read into plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.sql import elements, operators

from diptych.sql.conditions.tree import (
    OPPOSITE,
    ORDERED,
    AllOf,
    AnyOf,
    Compared,
    Condition,
    Operator,
    Unsupported,
)

_TESTS: dict[Any, Operator] = {
    operators.eq: Operator.ONE_OF,
    operators.ne: Operator.NONE_OF,
    operators.lt: Operator.LESS,
    operators.le: Operator.AT_MOST,
    operators.gt: Operator.GREATER,
    operators.ge: Operator.AT_LEAST,
    operators.in_op: Operator.ONE_OF,
    operators.not_in_op: Operator.NONE_OF,
}
_TURNED = {
    Operator.LESS: Operator.GREATER,
    Operator.AT_MOST: Operator.AT_LEAST,
    Operator.GREATER: Operator.LESS,
    Operator.AT_LEAST: Operator.AT_MOST,
}
"""The comparisons with their sides exchanged."""

_IN = (operators.in_op, operators.not_in_op)
_BETWEEN = (operators.between_op, operators.not_between_op)
_IS = (operators.is_, operators.is_not)

_ADMITTED = (
    "`where` compares columns of the class with constants, by ==, !=, <, <=, >, >=, between, in_, not_in, is_ and "
    "is_not, joined by and_, or_ and not_; for anything else add a column that the database computes or commands "
    "fill, and compare that one"
)

_Attribute: TypeAlias = tuple[str, type]


class _RefusedError(Exception):
    """Raised for what a condition may not have."""


def condition_of(expression: Any) -> Condition:
    """Returns the condition that ``where`` of a declaration is; ``Unsupported`` for an expression that is refused."""
    try:
        return _condition(expression, holds=True)
    except _RefusedError as refused:
        return Unsupported(str(refused))


def _condition(given: Any, *, holds: bool) -> Condition:
    """Returns the condition for ``given`` to be true or, unless it ``holds``, to be false."""
    expression = given.__clause_element__() if hasattr(given, "__clause_element__") else given
    match expression:
        case elements.Grouping():
            return _condition(expression.element, holds=holds)
        case elements.True_() | elements.False_():
            return AllOf(()) if isinstance(expression, elements.True_) is holds else AnyOf(())
        case elements.BooleanClauseList():
            parts = tuple(_condition(part, holds=holds) for part in expression.clauses)
            return AllOf(parts) if (expression.operator is operators.and_) is holds else AnyOf(parts)
        case elements.AsBoolean():
            return _condition(expression.element, holds=(expression.operator is operators.is_true) is holds)
        case elements.UnaryExpression() if expression.operator is operators.inv:
            return _condition(expression.element, holds=not holds)
        case elements.BinaryExpression():
            return _binary(expression, holds=holds)
        case sa.ColumnClause() if isinstance(expression.type, sa.Boolean):
            return Compared(*_attribute(expression, expression), Operator.ONE_OF, (holds,))
    raise _refused(expression)


def _binary(expression: elements.BinaryExpression[Any], *, holds: bool) -> Condition:
    left, right, operator = expression.left, expression.right, expression.operator
    if operator in _IS:
        return _identical(expression, holds=holds is (operator is operators.is_))
    if operator in _BETWEEN and not expression.modifiers.get("symmetric"):
        return _between(expression, holds=holds is (operator is operators.between_op))
    if operator not in _TESTS:
        raise _refused(expression)
    test = _TESTS[operator]
    if isinstance(left, sa.BindParameter):
        left, right, test = right, left, _TURNED.get(test, test)
    attribute = _attribute(left, expression)
    values = _constants(right, expression) if operator in _IN else [_constant(right, expression)]
    return _compared(attribute, test if holds else OPPOSITE[test], values)


def _between(expression: elements.BinaryExpression[Any], *, holds: bool) -> Condition:
    attribute = _attribute(expression.left, expression)
    least, most = (_constant(bound, expression) for bound in expression.right.clauses)
    if holds:
        parts = (
            _compared(attribute, Operator.AT_LEAST, [least]),
            _compared(attribute, Operator.AT_MOST, [most]),
        )
        return AllOf(parts)
    return AnyOf(
        (_compared(attribute, Operator.LESS, [least]), _compared(attribute, Operator.GREATER, [most]))
    )


def _identical(expression: elements.BinaryExpression[Any], *, holds: bool) -> Condition:
    """Returns the condition for ``IS``, of which SQL always knows whether it is true."""
    attribute, value = _attribute(expression.left, expression), _constant(expression.right, expression)
    if value is None:
        return Compared(*attribute, Operator.NULL if holds else Operator.NOT_NULL)
    if not isinstance(value, bool):
        raise _RefusedError(
            f"`where` has {_shown(expression)}: `is_` is for None, True and False; compare by =="
        )
    if holds:
        return Compared(*attribute, Operator.ONE_OF, (value,))
    return AnyOf((Compared(*attribute, Operator.NONE_OF, (value,)), Compared(*attribute, Operator.NULL)))


def _compared(attribute: _Attribute, test: Operator, values: Sequence[Any]) -> Condition:
    """Returns a comparison as SQL means it: nothing is known to be equal to null, nor to differ from it."""
    there = tuple(value for value in values if value is not None)
    if len(there) < len(values):
        if test in ORDERED:
            raise _RefusedError(
                f"`where` compares {attribute[0]!r} with null by its order, which is never true"
            )
        if test is Operator.NONE_OF:
            return AnyOf(())
    if not there:
        return AnyOf(()) if test is Operator.ONE_OF else AllOf(())
    return Compared(*attribute, test, there)


def _attribute(column: Any, expression: Any) -> _Attribute:
    """Returns the name of a mapped attribute, and its class."""
    annotations = getattr(column, "_annotations", {})
    if isinstance(column, sa.ColumnClause) and {"parententity", "proxy_key"} <= annotations.keys():
        return annotations["proxy_key"], annotations["parententity"].class_
    if isinstance(column, sa.ColumnClause):
        raise _RefusedError(
            f"`where` has {column}, which is no mapped attribute: write it with its class, Book.archived"
        )
    raise _refused(expression)


def _constants(given: Any, expression: Any) -> list[Any]:
    """Returns the constants of ``IN``."""
    given = given.element if isinstance(given, elements.Grouping) else given
    if isinstance(given, elements.ClauseList):
        return [_constant(each, expression) for each in given.clauses]
    values = _constant(given, expression)
    if not isinstance(values, list | tuple | set | frozenset):
        raise _refused(expression)
    return list(values)


def _constant(given: Any, expression: Any) -> Any:
    match given:
        case elements.Null():
            return None
        case elements.True_() | elements.False_():
            return isinstance(given, elements.True_)
        case sa.BindParameter() if given.callable is None and not given.required:
            return given.value
    raise _refused(expression)


def _refused(expression: Any) -> _RefusedError:
    return _RefusedError(
        f"{_shown(expression)} is no condition that both stores can decide alike. {_ADMITTED}"
    )


def _shown(expression: Any) -> str:
    """Returns an expression as text, with names in the place of constants."""
    if not isinstance(expression, sa.ClauseElement):
        return f"`where` = {expression!r}"
    try:
        text = str(expression)
    except Exception:  # it has no text without a dialect
        text = type(expression).__name__
    return "`" + " ".join(text.split())[:200] + "`"
