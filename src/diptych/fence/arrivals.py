"""Committed changes in a single generation of a read model, as far as this process knows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from diptych.fence.contract import FenceId, FenceRow, Sight, Target
from diptych.fence.ending import Ending, OwnChanges
from diptych.log.change import NOTHING, Entry, Snapshot

_MOST_LISTS = 64
"""Maximum number of remembered sights of which some changes are not in yet."""

_MOST_HEARD = 4096
"""Number of remembered positions after which all are forgotten."""


class Arrivals:
    """Changes in a single generation of a read model: all changes seen by ``seen``, and single changes since.

    ★ Within a generation, a change that is in stays in: documents give way to later changes alone, and a tombstone
    goes when the floor has passed it.
    """

    def __init__(self, fence: FenceId, target: Target, own: OwnChanges) -> None:
        self.target = target
        self.seen = NOTHING
        self._fence = fence
        self._own = own
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
            self.seen = max(self.seen, self._lists.popleft().snapshot, key=_stamp)
        for position, (entry, task) in list(self._brought.items()):
            if self.seen.sees(entry.transaction) and task.done():
                del self._brought[position]

    def has(self, entry: Entry) -> bool:
        """Returns whether this change is known to be in."""
        if entry.position in self._heard or self.seen.sees(entry.transaction):
            return True
        own = self._own.get(entry.position)
        if own is not None and (heard := own.heard(self._fence, self.target)):
            self.hear(heard)
            return True
        _, task = self._brought.get(entry.position, _NOT_BROUGHT)
        return task is not None and _is_true(task)

    def hear(self, positions: frozenset[int]) -> None:
        """Takes note of positions told by Redis to be in."""
        if positions is not self._latest:
            self._latest = positions
            if len(self._heard) > _MOST_HEARD:
                self._heard = set()
            self._heard |= positions

    def pending(self, entry: Entry) -> asyncio.Future[Any] | None:
        """Returns the future to wait for until more is known of a change; None if nobody brings the change in."""
        own = self._own.get(entry.position)
        pending: asyncio.Future[Any] | None = None if own is None else own.pending(self._fence, self.target)
        if pending is None:
            _, task = self._brought.get(entry.position, _NOT_BROUGHT)
            pending = task if task is not None and not task.done() else None
        return pending

    def are_brought(self, entries: Sequence[Entry], task: asyncio.Task[bool]) -> None:
        """Takes note of a task to bring these changes in. The task's result is whether all are in."""
        self._brought.update((entry.position, (entry, task)) for entry in entries)


class Listed:
    """Changes of a read model, listed by a sight and not known to be in.

    ``is_whole`` is False if changes may be missing from the list: the sight began at a later snapshot than all that
    is known to be in, or found more changes than a sight lists.
    """

    def __init__(self, sight: Sight, row: FenceRow, arrivals: Arrivals) -> None:
        self.snapshot = sight.snapshot
        self.is_whole = not sight.more and sight.since.stamp <= arrivals.seen.stamp
        self.arrivals = arrivals
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
        """Returns the changes still not known to be in, as far as this command may rest on them."""
        left = self.left()
        return [entry for entry in left if ending.may_rest_on(entry)] if left else left

    def pending(self, left: Sequence[Entry]) -> set[asyncio.Future[Any]]:
        """Returns the futures to wait for until more is known of these changes."""
        return {future for entry in left if (future := self.arrivals.pending(entry)) is not None}


_NOT_BROUGHT: tuple[None, None] = (None, None)


def _is_true(task: asyncio.Task[bool]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None and task.result()


def _stamp(snapshot: Snapshot) -> int:
    return snapshot.stamp
