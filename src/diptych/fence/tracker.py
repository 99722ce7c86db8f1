"""Committed changes in Redis, as far as this process knows, for every read model of the fence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from diptych.fence.arrivals import Arrivals, Listed
from diptych.fence.contract import FenceId, FenceRow, ReadSide, Rows, Sight
from diptych.fence.ending import OwnChanges
from diptych.log.change import EVERYTHING, Snapshot


class NotedSight(NamedTuple):
    """The fence rows of a sight, and its changes by read models, for read models whose documents can be looked at."""

    rows: Rows
    lists: Mapping[FenceId, Listed]


class ChangeTracker:
    """Tracks the arrival of committed changes in Redis. Sights tell of changes, scripts and cursors of arrivals.

    ``read_side`` are the read models of this process in Redis, None where there are none. ``own`` are the changes by
    commands of this process.
    """

    def __init__(self) -> None:
        self.read_side: ReadSide | None = None
        self.own = OwnChanges()
        self._arrivals: dict[FenceId, Arrivals] = {}
        self._xmax = 0

    def since(self, rows: Rows) -> Snapshot:
        """Returns the snapshot to list changes from in the next sight: earlier changes are in every read model."""
        since = EVERYTHING
        for row in rows.values():
            arrivals = self._arrivals.get(row.id)
            if arrivals is not None and self._can_look(row):
                arrivals.advance(row)
                since = min(since, arrivals.seen, key=lambda snapshot: snapshot.stamp)
        self.own.forget(since)
        return since

    def on_sight(self, sight: Sight) -> NotedSight:
        """Takes note of a sight."""
        if sight.snapshot.xmax < self._xmax:
            # ★ SQL was put back to an earlier state: positions may be drawn again, for other changes.
            self.own, self._arrivals = OwnChanges(), {}
        self._xmax = sight.snapshot.xmax
        looked = filter(self._can_look, sight.rows.values())
        return NotedSight(sight.rows, {row.id: self._arrivals_of(row).on_sight(sight, row) for row in looked})

    def _can_look(self, row: FenceRow) -> bool:
        is_there = row.is_leased and row.cursor is not None
        return is_there and self.read_side is not None and self.read_side.can_look(row.id)

    def _arrivals_of(self, row: FenceRow) -> Arrivals:
        target = row.target
        arrivals = self._arrivals.get(row.id)
        if arrivals is None or arrivals.target != target:
            arrivals = self._arrivals[row.id] = Arrivals(row.id, target, self.own)
        return arrivals
