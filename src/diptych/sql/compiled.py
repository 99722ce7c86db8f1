"""Statements as SQLite's driver takes them, with the conversions of their types, as an engine has them.

What an engine does beside for each statement (its context, its cursor, its result) takes several times as long as
SQLite itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa


class CompiledStatement:
    """A statement whose rows have columns of these ``types``. ``names`` are those of an insert without values."""

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
        """These values, and those that it has itself, as SQLite stores them and in the text's order."""
        found = ((values.get(name, own), store) for name, own, store in self._stores)
        return [value if store is None else store(value) for value, store in found]

    def loaded(self, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """The rows with Python's values."""
        if not self._loads:
            return rows
        loaded = []
        for row in rows:
            values = list(row)
            for i, load in self._loads:
                values[i] = load(values[i])
            loaded.append(values)
        return loaded
