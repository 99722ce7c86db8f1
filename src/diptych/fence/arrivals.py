"""Committed changes in Redis, as far as this process knows, for every read model of the fence.

A command at its end waits until the changes that it may rest on have arrived.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from diptych.fence.contract import Applied, FenceId, FenceRow, ReadSide, Rows, Sight, Target
from diptych.log import EVERYTHING, NOTHING, Change, Entry, Snapshot

_MOST_LISTS = 64
"""Maximum number of remembered sights of which some changes are not in yet."""

_MOST_HEARD = 4096
"""Number of remembered positions after which all are forgotten."""


class Ending:
    """A command at its commit, or after a failure.

    ``touched`` are the tables whose rows the command may rest on (None: any), ``targets`` the generations known
    before its commit. The command may rest on every change up to the position ``last``; on all changes, if ``last``
    is None. ``is_whole`` says that its transaction has no further entries than those of ``changes``.

    ``missed`` are tables of which it may rest on changes that are in no log: for what is made of them there is a pass
    to wait for, which notices that, or the end of the lease.

    ``applying`` holds, once ``begun`` is done, a future for each target that the changes are being written to.
    """

    def __init__(
        self,
        changes: Sequence[Change],
        touched: Collection[str] | None,
        targets: Mapping[FenceId, Target],
        last: int | None = None,
        *,
        is_whole: bool = True,
    ) -> None:
        self.changes = changes
        self.is_whole = is_whole
        self.touched = touched
        self.targets = targets
        self.last = last
        self.missed: Collection[str] = ()
        seen = changes[0].snapshot if changes else None
        self._snapshot = None if seen is None or last is None else Snapshot.parse(seen)
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.applying: Mapping[FenceId, asyncio.Future[Applied]] = {}
        self.is_over = False

    def may_rest_on(self, entry: Entry) -> bool:
        """Returns whether the command may rest on this change; every change of its own counts.

        ★ On PostgreSQL a command sees the changes that were committed before it began. Of later changes it notices no
        more than a unique index shows: that a value is free again, when the command takes a value. A command that
        has looked at more than that (``Acknowledger.ending``) has no ``last``, and no snapshot here.
        """
        if self.last is not None and entry.position > self.last:
            return False
        if self._snapshot is None or self._snapshot.sees(entry.transaction):
            return True
        if any(change.position == entry.position for change in self.changes):
            return True
        is_kept = entry.kind in ("created", "updated") and entry.old_key in (None, entry.key)
        return not is_kept and entry.table in self._taking

    @functools.cached_property
    def _taking(self) -> frozenset[str]:
        """Tables in which the command gives a row a unique value."""
        return frozenset(c.entity.table for c in self.changes if c.before is None or c.moves)

    def begin(self, applying: Mapping[FenceId, asyncio.Future[Applied]]) -> None:
        """Takes note of the commit: the changes are on their way to Redis."""
        self.applying = applying
        self.begun.set_result(None)

    def end(self) -> None:
        """Takes note of the acknowledgement or the failure of the command. Safe to call twice."""
        self.is_over = True
        if not self.begun.done():
            self.begun.set_result(None)

    def pending(self, fence: FenceId, target: Target) -> asyncio.Future[Any] | None:
        """Returns the future to wait for until the changes are known to be in this target, or not; None if known."""
        if not self.begun.done():
            return self.begun
        applied = self.applying.get(fence) if self.targets.get(fence) == target else None
        return applied if applied is not None and not applied.done() else None

    def heard(self, fence: FenceId, target: Target) -> frozenset[int]:
        """Returns the positions told by Redis to be in this target when the changes were applied.

        ★ A change counts as in only if it was applied, and ★ only in the incarnation and generation that it was
        applied to: any other generation was filled from SQL, perhaps before the commit.
        """
        applied = self.applying.get(fence)
        if applied is None or not applied.done() or self.targets.get(fence) != target:
            return frozenset()
        return applied.result() or frozenset()


def _entry_of(change: Change) -> Entry:
    """Returns the change as a sight lists changes, but without keys.

    ★ ``old_key`` differs from ``key`` where the change frees a unique value: another command may take the value.
    """
    freed = "{}" if change.moves else None
    return Entry(change.position, change.transaction, change.entity.table, change.kind, freed, "")


class OwnChanges:
    """Changes by commands of this process. ``entries`` are their log entries, by transaction number.

    ``committing`` are futures for statements that commit changes of which this process does not know yet.
    """

    def __init__(self) -> None:
        self.entries: dict[int, list[Entry]] = {}
        self.committing: set[asyncio.Future[None]] = set()
        self._by_position: dict[int, Ending] = {}
        self._in_order: deque[Ending] = deque()

    def add(self, ending: Ending) -> None:
        """Adds a command. To be called before the commit, or in the block of ``Acknowledger.committing``."""
        for change in ending.changes:
            self._by_position[change.position] = ending
            # ★ Of a transaction with entries that only triggers know of, a sight reads them all from the log.
            if ending.is_whole:
                self.entries.setdefault(change.transaction, []).append(_entry_of(change))
        if ending.changes:
            self._in_order.append(ending)

    def get(self, position: int) -> Ending | None:
        """Returns the command of the change at this position; None for a change by another process."""
        return self._by_position.get(position)

    def drop(self, ending: Ending) -> None:
        """Forgets a command. ★ A failed one too: on SQLite its positions are drawn again, by any process."""
        for change in ending.changes:
            if self._by_position.get(change.position) is ending:
                del self._by_position[change.position]
                self.entries.pop(change.transaction, None)

    def forget(self, since: Snapshot) -> None:
        """Forgets finished commands whose changes ``since`` sees: later sights list no such change."""
        while self._in_order:
            ending = self._in_order[0]
            if not (ending.is_over and since.sees(ending.changes[-1].transaction)):
                return
            self.drop(self._in_order.popleft())


class Arrivals:
    """Changes in a single generation of a read model: all changes seen by ``seen``, and single changes since.

    ★ Within a generation, a change that is in stays in: documents give way to later changes alone, and a tombstone
    goes when the floor has passed it.
    """

    def __init__(self, fence: FenceId, target: Target, own: OwnChanges) -> None:
        self.target = target
        self.seen = NOTHING
        self._fence = fence
        self.own = own
        self._heard = set[int]()
        self._latest = frozenset[int]()
        self._brought: dict[int, tuple[Entry, asyncio.Task[bool]]] = {}
        self._lists: deque[Listed] = deque()

    def on_sight(self, sight: Sight, row: FenceRow) -> Listed:
        """Takes note of a sight with the fence row ``row``. Returns the sight's changes of the read model."""
        self.advance(row)
        listed = Listed(sight, row, self)
        if listed.is_whole and len(self._lists) < _MOST_LISTS:
            self._lists.append(listed)
        return listed

    def advance(self, row: FenceRow) -> None:
        """Moves ``seen`` forward, to the row's cursor and to earlier sights.

        ★ A sight counts only once its whole list is in.
        """
        if row.cursor is not None and row.cursor.stamp > self.seen.stamp:
            self.seen = row.cursor
        while self._lists and not self._lists[0].left():
            self.seen = max(self.seen, self._lists.popleft().snapshot, key=lambda snapshot: snapshot.stamp)
        for position, (entry, task) in list(self._brought.items()):
            if self.seen.sees(entry.transaction) and task.done():
                del self._brought[position]

    def has(self, entry: Entry) -> bool:
        """Returns whether this change is known to be in."""
        if entry.position in self._heard or self.seen.sees(entry.transaction):
            return True
        own = self.own.get(entry.position)
        if own is not None and (heard := own.heard(self._fence, self.target)):
            self.hear(heard)
            return True
        _, task = self._brought.get(entry.position, (None, None))
        if task is None or not task.done() or task.cancelled():
            return False
        return task.exception() is None and task.result()

    def hear(self, positions: frozenset[int]) -> None:
        """Takes note of positions told by Redis to be in."""
        if positions is not self._latest:
            self._latest = positions
            if len(self._heard) > _MOST_HEARD:
                self._heard = set()
            self._heard |= positions

    def pending(self, entry: Entry) -> asyncio.Future[Any] | None:
        """Returns the future to wait for until more is known of a change; None if nobody brings the change in."""
        own = self.own.get(entry.position)
        pending = None if own is None else own.pending(self._fence, self.target)
        _, task = self._brought.get(entry.position, (None, None))
        return task if pending is None and task is not None and not task.done() else pending

    def may_come(self, entry: Entry) -> bool:
        """Returns whether somebody is most likely bringing the change in.

        Nobody is if a trigger has logged the change, or if it is of a command of this process that had more changes
        than it knew of.
        """
        own = self.own.get(entry.position)
        return not entry.is_captured and (own is None or own.is_whole)

    def are_brought(self, entries: Sequence[Entry], task: asyncio.Task[bool]) -> None:
        """Takes note of a task to bring these changes in. The task's result is whether all are in."""
        self._brought.update((entry.position, (entry, task)) for entry in entries)


class Listed:
    """Changes of a read model, listed by a sight and not known to be in.

    ``is_whole`` is False if changes may be missing from the list: the sight began at a later snapshot than all that
    is known to be in, or found more changes than a sight lists. ``committing`` are the futures, of that moment, for
    statements of this process that may have made changes of the list.
    """

    def __init__(self, sight: Sight, row: FenceRow, arrivals: Arrivals) -> None:
        self.snapshot = sight.snapshot
        self.is_whole = not sight.more and sight.since.stamp <= arrivals.seen.stamp
        self.arrivals = arrivals
        self.committing = tuple(arrivals.own.committing)
        self._left = [
            entry
            for entry in sight.entries
            if entry.table in row.tables and not arrivals.seen.sees(entry.transaction)
        ]

    def left(self) -> list[Entry]:
        """Returns the changes still not known to be in."""
        if self._left:
            self._left = [entry for entry in self._left if not self.arrivals.has(entry)]
        return self._left

    def left_of(self, ending: Ending) -> list[Entry]:
        """Returns the changes still not known to be in, as far as this command may rest on them.

        ★ Of a transaction all, if it may rest on one: brought in alone, a change would show a row as it was before
        the transaction changed it once more.
        """
        left = self.left()
        resting = {entry.transaction for entry in left if ending.may_rest_on(entry)}
        return [entry for entry in left if entry.transaction in resting]


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
        lists = {}
        for row in filter(self._can_look, sight.rows.values()):
            arrivals = self._arrivals.get(row.id)
            if arrivals is None or arrivals.target != row.target:
                arrivals = self._arrivals[row.id] = Arrivals(row.id, row.target, self.own)
            lists[row.id] = arrivals.on_sight(sight, row)
        return NotedSight(sight.rows, lists)

    def _can_look(self, row: FenceRow) -> bool:
        is_there = row.is_leased and row.cursor is not None
        return is_there and self.read_side is not None and self.read_side.can_look(row.id)
