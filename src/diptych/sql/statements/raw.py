"""Statements sent to PostgreSQL's driver past the engine.

An engine makes a context, a cursor and a result for each execution, in more time than the driver takes. Where the
driver has all values of a type itself, an engine has nothing to add.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

_DIALECT = postgresql.asyncpg.dialect()  # type: ignore[no-untyped-call]


class RawStatement:
    """A statement whose parameters and columns are all of the driver's own types: see ``is_direct``.

    ``names`` are the columns of an insert without values.
    """

    def __init__(self, statement: Any, names: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._names = names

    def fetch(self, driver: Any, values: Mapping[str, Any]) -> Awaitable[Sequence[Sequence[Any]]]:
        """Executes the statement on asyncpg's connection; to be awaited for the rows. Raises asyncpg's errors."""
        text, names, constants = self._compiled
        arguments = [values[name] if name in values else constants[name] for name in names]
        return cast("Awaitable[Sequence[Sequence[Any]]]", driver.fetch(text, *arguments))

    @functools.cached_property
    def _compiled(self) -> tuple[str, Sequence[str], Mapping[str, Any]]:
        """The text, the names of its parameters in the order of the text, and the statement's own constants."""
        compiled = self._statement.compile(dialect=_DIALECT, column_keys=self._names)
        return str(compiled), compiled.positiontup or (), compiled.params


def is_direct(column_type: sa.types.TypeEngine[Any]) -> bool:
    """Returns whether the driver gives and takes values of this type unchanged, and PostgreSQL's JSON equals ours.

    So for whole numbers, text, truth values and days: of these the server can make an image for the change log.
    """
    there = column_type.dialect_impl(_DIALECT)
    if isinstance(there, sa.Enum) or not type(there).__module__.startswith("sqlalchemy."):
        return False
    if isinstance(there, sa.Boolean):
        return True  # the engine only checks that each value is a truth value
    return (
        isinstance(there, sa.Integer | sa.String | sa.Date)
        and there.bind_processor(_DIALECT) is None
        and there.result_processor(_DIALECT, None) is None
    )


def bound(column_type: sa.types.TypeEngine[Any], value: Any) -> Any:
    """Returns a value of a direct type in an engine's form: 0 in a Boolean column, say, is False."""
    process = column_type.dialect_impl(_DIALECT).bind_processor(_DIALECT)
    return value if process is None else process(value)


def text_of(statement: Any) -> str:
    """Returns the text, as sent to the server, of a statement without parameters."""
    return str(statement.compile(dialect=_DIALECT))
