"""Conditions as SQL, built anew from plain values, so that SQL and Python test the same."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from diptych.sql.comparison import enum_as_text, finite, has_ends, infinite, is_end
from diptych.sql.conditions.tree import ORDERED, AllOf, Compared, Condition, Operator, Unsupported
from diptych.sql.entity import MappedEntity


def clause_of(condition: Condition, entity: MappedEntity, dialect: sa.Dialect) -> sa.ColumnElement[bool]:
    """Returns a fitted condition over the entity's table. Its constants are parameters."""
    if isinstance(condition, Compared):
        return _Comparison(condition, entity, dialect).clause()
    if isinstance(condition, Unsupported):
        raise ValueError(condition.reason)
    parts = [clause_of(part, entity, dialect) for part in condition.parts]
    return sa.and_(sa.true(), *parts) if isinstance(condition, AllOf) else sa.or_(sa.false(), *parts)


class _Comparison:
    """A comparison to become SQL: values are compared as lists order them."""

    def __init__(self, compared: Compared, entity: MappedEntity, dialect: sa.Dialect) -> None:
        self._test, self._values = compared.test, compared.values
        self._column = entity.columns[compared.name]
        self._compared = entity.in_code_points(compared.name, dialect)
        if isinstance(self._column.type, sa.Enum):
            self._compared = enum_as_text(self._compared, dialect)
        self._has_two = has_ends(self._column.type, dialect) and any(map(is_end, self._values))
        self._texts = entity.describe(dialect).columns[compared.name].texts

    def clause(self) -> sa.ColumnElement[bool]:
        if self._test is Operator.NULL:
            return self._column.is_(None)
        if self._test is Operator.NOT_NULL:
            return self._column.is_not(None)
        if self._has_two:
            return self._at_ends()
        if self._test in ORDERED:
            return ORDERED[self._test](self._compared, self._constant(self._values[0]))  # type: ignore[return-value]
        if isinstance(self._column.type, sa.Boolean):
            return self._boolean()
        if len(self._values) == 1:
            [constant] = map(self._constant, self._values)
            return self._compared == constant if self._test is Operator.ONE_OF else self._compared != constant
        constants = list(map(self._constant, self._values))
        return (
            self._compared.in_(constants)
            if self._test is Operator.ONE_OF
            else self._compared.not_in(constants)
        )

    def _at_ends(self) -> sa.ColumnElement[bool]:
        """Returns the clause for values at an end of the calendar, each of which PostgreSQL may have in two forms."""
        kind = self._column.type
        constants = [
            form(self._constant(value), kind) for value in self._values for form in (finite, infinite)
        ]
        if self._test is Operator.ONE_OF:
            return self._compared.in_(constants)
        if self._test is Operator.NONE_OF:
            return self._compared.not_in(constants)
        is_of_first = self._test in (Operator.LESS, Operator.AT_LEAST)
        bound = sa.func.least(*constants) if is_of_first else sa.func.greatest(*constants)
        return ORDERED[self._test](self._compared, bound)  # type: ignore[return-value]

    def _boolean(self) -> sa.ColumnElement[bool]:
        """Returns the clause for truth values: any number but zero is true on SQLite, whoever has stored it."""
        accepted = [
            each for each in (False, True) if (each in self._values) is (self._test is Operator.ONE_OF)
        ]
        column = self._column
        return sa.or_(
            sa.false(), *(column != sa.false() if each else column == sa.false() for each in accepted)
        )

    def _constant(self, value: Any) -> sa.ColumnElement[Any]:
        if self._texts is not None:
            return sa.literal(self._texts[value], sa.Text())
        if isinstance(self._column.type, sa.Float):
            # PostgreSQL would round a constant to the precision of its column; Python compares what a row gives.
            return sa.literal(value, sa.Double())
        return sa.literal(value, self._column.type)
