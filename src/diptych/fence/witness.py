"""Notices that SQL was put back to an earlier state under a process that runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from diptych.fence.contract import FenceId, FenceRow

Passes = Mapping[FenceId, tuple[str, str, int]]
"""History, generation, and how many passes were begun over it."""


class Witness:
    """Remembers how many passes each generation has had: they never become fewer, unless a copy is put back.

    (A copy with another history or generation needs no witness: commands and keepers see that they know another.)
    """

    def __init__(self) -> None:
        self._passes: dict[FenceId, tuple[str, str, int]] = {}

    def remembered(self) -> Passes:
        """What was seen until now. To be taken before the fence is read, and given to ``put_back`` afterwards.

        ★ What was seen meanwhile may be later than what is read.
        """
        return dict(self._passes)

    def on_row_changed(self, rows: Iterable[FenceRow]) -> None:
        """Takes note of rows that were read."""
        for row in rows:
            history, generation, passes = self._passes.get(row.id, ("", "", 0))
            if (history, generation) == (row.history, row.generation):
                passes = max(passes, row.passes_started)
            else:
                passes = row.passes_started
            self._passes[row.id] = row.history, row.generation, passes

    @staticmethod
    def put_back(rows: Iterable[FenceRow], remembered: Passes) -> str | None:
        """The name of the history that has gone back to an earlier state; None if none has."""
        for row in rows:
            history, generation, passes = remembered.get(row.id, ("", "", 0))
            if (
                (history, generation) == (row.history, row.generation)
                and generation
                and row.passes_started < passes
            ):
                return history
        return None
