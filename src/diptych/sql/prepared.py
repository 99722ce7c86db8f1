"""Selects that are executed again and again, prepared once for the shortest way to the database."""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa

from diptych.sql.compiled import CompiledStatement

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_FORGIVING = 100
"""How many short ones make up for a long one."""


class PreparedSelect:
    """A select that should be short: few rows, found by an index. Compiled once, at its first use in the loop.

    One that is long again and again is left alone, each time for twice as long: a missing index must not hold up the
    loop with every query. One among a hundred is forgiven.
    """

    def __init__(self, select: sa.Select[Any]) -> None:
        self.select = select
        self.names = [column["name"] for column in select.column_descriptions]
        self._compiled: CompiledStatement | None = None
        self._short_ones = 0
        self._pause_s = 0.0
        self._resumes = 0.0

    def may_run(self) -> bool:
        """Whether it is not being left alone."""
        return time.perf_counter() >= self._resumes

    def mark_fast(self) -> None:
        """It ended in time."""
        self._short_ones += 1

    def mark_slow(self) -> None:
        """It did not."""
        if self._short_ones >= _FORGIVING:
            self._pause_s = 0.0
        self._short_ones = 0
        self._resumes = time.perf_counter() + self._pause_s
        self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)

    def compiled(self, dialect: sa.Dialect) -> CompiledStatement:
        """For this dialect, always the same one."""
        if self._compiled is None:
            types = [column["type"] for column in self.select.column_descriptions]
            self._compiled = CompiledStatement(self.select, dialect, types)
        return self._compiled
