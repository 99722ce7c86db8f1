"""Detection of an SQL database put back to an earlier state under a running process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from diptych.fence.contract import FenceId, FenceRow

Passes = Mapping[FenceId, tuple[str, str, int]]
"""History, generation, and number of passes that were begun over the generation."""


class Witness:
    """Remembers how many passes each generation has had. The number never falls, unless a copy is put back.

    A copy with another history or generation needs no witness: commands and keepers compare these.
    """

    def __init__(self) -> None:
        self._passes: dict[FenceId, tuple[str, str, int]] = {}

    def remembered(self) -> Passes:
        """Returns the numbers seen until now, for ``put_back``. To be called before the fence is read.

        ★ Numbers that are seen meanwhile may be later than the rows that are read.
        """
        return dict(self._passes)

    def on_rows_read(self, rows: Iterable[FenceRow]) -> None:
        """Takes note of rows."""
        for row in rows:
            history, generation, passes = self._passes.get(row.id, ("", "", 0))
            if (history, generation) == (row.history, row.generation):
                passes = max(passes, row.passes_started)
            else:
                passes = row.passes_started
            self._passes[row.id] = row.history, row.generation, passes

    @staticmethod
    def put_back(rows: Iterable[FenceRow], remembered: Passes) -> str | None:
        """Returns the name of a history gone back to an earlier state; None if none has."""
        for row in rows:
            history, generation, passes = remembered.get(row.id, ("", "", 0))
            is_same = (history, generation) == (row.history, row.generation)
            if is_same and generation and row.passes_started < passes:
                return history
        return None
