"""Selects and inserts executed again and again, each prepared once for the shortest way to the database."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.visitors import iterate

from diptych.sql.statements.compiled import CompiledStatement
from diptych.sql.statements.raw import RawStatement, is_direct

_FIRST_PAUSE_S = 0.1
"""First pause of a slow select outside of the event loop, in seconds; each further pause is twice as long."""

_LONGEST_PAUSE_S = 10.0

_FORGIVING = 100
"""Number of fast executions that make up for a slow execution."""


class PreparedSelect:
    """A select expected to be short: few rows, found by an index. Compiled at its first use.

    A select that turns out to be slow again and again is kept out of the event loop, each time for twice as long: a
    missing index must not hold up the loop with every query. A slow execution among a hundred fast ones is forgiven.
    """

    def __init__(self, select: sa.Select[Any]) -> None:
        self.select = select
        self.names = [column["name"] for column in select.column_descriptions]
        self._compiled: CompiledStatement | None = None
        self._fast_runs = 0
        self._pause_s = 0.0
        self._resumes = 0.0

    def may_run(self) -> bool:
        """Returns whether the select may run in the event loop now."""
        return time.perf_counter() >= self._resumes

    def mark_fast(self) -> None:
        """Notes an execution in the event loop ended within its budget."""
        self._fast_runs += 1

    def mark_slow(self) -> None:
        """Notes an execution in the event loop interrupted because of its length."""
        if self._fast_runs >= _FORGIVING:
            self._pause_s = 0.0
        self._fast_runs = 0
        self._resumes = time.perf_counter() + self._pause_s
        self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)

    def compiled(self, dialect: sa.Dialect) -> CompiledStatement:
        """Returns the statement for SQLite's driver. The dialect has to be the same at each call."""
        if self._compiled is None:
            types = [column["type"] for column in self.select.column_descriptions]
            self._compiled = CompiledStatement(self.select, dialect, types)
        return self._compiled

    @functools.cached_property
    def raw(self) -> RawStatement:
        """The statement for PostgreSQL's driver."""
        return RawStatement(self.select)

    @functools.cached_property
    def is_direct(self) -> bool:
        """True if PostgreSQL's driver itself has the types of all parameters and columns."""
        types = [column["type"] for column in self.select.column_descriptions]
        types += [part.type for part in iterate(self.select) if isinstance(part, sa.BindParameter)]
        return all(map(is_direct, types))


class PreparedInsert:
    """An insert of a single row, returning columns.

    ``names`` are the columns that get values, where the statement itself gives them none. ``inline`` lets SQLite's
    driver execute the insert in the event loop, ``raw`` PostgreSQL's: allowed where an engine has nothing to add,
    such as a default made by a function.
    """

    def __init__(
        self, statement: Any, names: Sequence[str] | None = None, *, inline: bool = False, raw: bool = False
    ) -> None:
        self.statement = statement
        self.table: str = statement.table.name
        self.inline = inline
        self.raw = RawStatement(statement, names) if raw else None
        self._names = names
        self._compiled: CompiledStatement | None = None

    def compiled(self, dialect: sa.Dialect) -> CompiledStatement:
        """Returns the statement for SQLite's driver. The dialect has to be the same at each call."""
        if self._compiled is None:
            types = [column.type for column in self.statement.exported_columns]
            self._compiled = CompiledStatement(self.statement, dialect, types, self._names)
        return self._compiled
