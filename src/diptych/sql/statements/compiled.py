"""Statements compiled for SQLite's driver, with the bind and result processors of their types.

An engine also makes a context, a cursor and a result for each execution, in several times the time of SQLite itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import StatementError


class CompiledStatement:
    """The text of a statement, with the processors of its parameters and columns.

    ``types`` are those of the columns in its rows; ``names`` the columns of an insert without values.
    """

    def __init__(
        self,
        statement: sa.Select[Any] | sa.Insert,
        dialect: sa.Dialect,
        types: Iterable[sa.types.TypeEngine[Any]],
        names: Sequence[str] | None = None,
    ) -> None:
        compiled: Any = statement.compile(dialect=dialect, column_keys=names)
        binds = [(name, compiled.binds[name]) for name in compiled.positiontup]
        self.text = str(compiled)
        self._stores = [
            (name, bind.effective_value, bind.type.dialect_impl(dialect).bind_processor(dialect))
            for name, bind in binds
        ]
        loads = [kind.dialect_impl(dialect).result_processor(dialect, None) for kind in types]
        self._loads = [(i, load) for i, load in enumerate(loads) if load is not None]

    def parameters(self, values: Mapping[str, Any]) -> list[Any]:
        """Returns these values and the statement's constants in the order of the text, as SQLite stores them.

        Raises ``StatementError``, as an engine does, if a column's type refuses a value.
        """
        found = ((values.get(name, own), store) for name, own, store in self._stores)
        try:
            return [value if store is None else store(value) for value, store in found]
        except Exception as error:
            raise StatementError(str(error), self.text, None, error) from error

    def loaded(self, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Returns rows of the driver with an engine's values for their types."""
        if not self._loads:
            return rows
        loaded = []
        for row in rows:
            values = list(row)
            for i, load in self._loads:
                values[i] = load(values[i])
            loaded.append(values)
        return loaded
