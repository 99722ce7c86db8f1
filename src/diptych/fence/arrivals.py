"""Which committed changes are in Redis, as far as this process knows: what a command may rest on."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from diptych.fence.contract import Applied, Entry, FenceId, FenceRow, Sight, Target
from diptych.log.change import Change
from diptych.log.snapshot import NOTHING, Snapshot

_MOST_LISTS = 64
"""How many sights are remembered whose changes are not all in yet."""

_MOST_HEARD = 4096


class Ending:
    """The end of a command: its changes, the tables it may rest on, and the generations known before its commit.

    It may rest on all changes up to the position ``last``; on all there are, if that is None.

    ``applying`` tells, once ``begun``, for each of those whether the changes are in it.
    """

    def __init__(
        self,
        changes: Sequence[Change],
        touched: Collection[str],
        known: Mapping[FenceId, Target],
        last: int | None = None,
    ) -> None:
        self.changes = changes
        self.touched = touched
        self.known = known
        self.last = last
        seen = changes[0].snapshot if changes else None
        self._snapshot = None if seen is None or last is None else Snapshot.parse(seen)
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.applying: Mapping[FenceId, asyncio.Future[Applied]] = {}
        self.is_over = False

    def may_rest_on(self, entry: Entry) -> bool:
        """Whether the command may have built on this change, or may have made it.

        ★ On PostgreSQL it sees what was committed before it began, and of the rest no more than a unique index does:
        that a value is free again, when it takes one.
        """
        if self.last is not None and entry.position > self.last:
            return False
        if self._snapshot is None or self._snapshot.sees(entry.transaction):
            return True
        if any(change.position == entry.position for change in self.changes):
            return True
        is_freed = entry.kind == "deleted" or (entry.old_key is not None and entry.old_key != entry.key)
        return is_freed and entry.table in self._taking

    @functools.cached_property
    def _taking(self) -> frozenset[str]:
        """The tables in which the command has given a row a value that no other row may have."""
        return frozenset(c.entity.table for c in self.changes if _takes(c))

    def begin(self, applying: Mapping[FenceId, asyncio.Future[Applied]]) -> None:
        """The changes are committed, and on their way."""
        self.applying = applying
        self.begun.set_result(None)

    def end(self) -> None:
        """It is acknowledged, or has failed. Safe to call twice."""
        self.is_over = True
        if not self.begun.done():
            self.begun.set_result(None)

    def pending(self, fence: FenceId, known: Target) -> asyncio.Future[Any] | None:
        """What to wait for until it is known whether the changes are in this generation; None if it is."""
        if not self.begun.done():
            return self.begun
        applied = self.applying.get(fence) if self.known.get(fence) == known else None
        return applied if applied is not None and not applied.done() else None

    def is_in(self, fence: FenceId, known: Target) -> bool:
        """Whether the changes were applied to this generation.

        ★ Only what was applied counts, and ★ only in the incarnation and generation that it was applied to: another
        one was filled from SQL, perhaps before the commit.
        """
        return bool(self.heard(fence, known))

    def heard(self, fence: FenceId, known: Target) -> frozenset[int]:
        """The positions that were told to be in this generation when the changes were applied to it."""
        applied = self.applying.get(fence)
        if applied is None or not applied.done() or self.known.get(fence) != known:
            return frozenset()
        return applied.result() or frozenset()


def _takes(change: Change) -> bool:
    return change.before is None or _moves(change)


def _moves(change: Change) -> bool:
    """Whether the row has another key than before, or another value of which each row has its own."""
    before, after = change.before, change.after
    if before is None or after is None:
        return False
    return any(before[name] != after[name] for name in change.entity.identifying)


def _entry_of(change: Change) -> Entry:
    """The change as a sight lists it, without its keys. ★ That it frees one must show: others may take it."""
    freed = "{}" if _moves(change) else None
    return Entry(change.position, change.transaction, change.entity.table, change.kind, freed, "")


class Own:
    """The endings of this process's commands, by the positions of their changes; ``entries`` by transactions."""

    def __init__(self) -> None:
        self.entries: dict[int, list[Entry]] = {}
        self._by_position: dict[int, Ending] = {}
        self._in_order: deque[Ending] = deque()

    def add(self, ending: Ending) -> None:
        """Takes one before its commit: others may see it committed before this process hears of it."""
        for change in ending.changes:
            self._by_position[change.position] = ending
            self.entries.setdefault(change.transaction, []).append(_entry_of(change))
        if ending.changes:
            self._in_order.append(ending)

    def get(self, position: int) -> Ending | None:
        """Whose change it is; None if another process's."""
        return self._by_position.get(position)

    def drop(self, ending: Ending) -> None:
        """Forgets one. ★ Also if its commit has failed: on SQLite its positions are drawn again, by anybody."""
        for change in ending.changes:
            if self._by_position.get(change.position) is ending:
                del self._by_position[change.position]
                self.entries.pop(change.transaction, None)

    def forget(self, since: Snapshot) -> None:
        """Forgets those that no sight after this snapshot will list."""
        while self._in_order:
            ending = self._in_order[0]
            if not (ending.is_over and since.sees(ending.changes[-1].transaction)):
                return
            self.drop(self._in_order.popleft())


class Arrivals:
    """What is in one generation of one read model: everything that ``seen`` saw, and single changes since.

    ★ What is in stays in, within a generation: documents only give way to later changes, and a tombstone goes when
    the floor has passed it.
    """

    def __init__(self, fence: FenceId, known: Target, own: Own) -> None:
        self.known = known
        self.seen = NOTHING
        self._fence = fence
        self._own = own
        self._heard = set[int]()
        self._latest = frozenset[int]()
        self._brought: dict[int, tuple[Entry, asyncio.Task[bool]]] = {}
        self._lists: deque[Listed] = deque()

    def took(self, sight: Sight, row: FenceRow) -> Listed:
        """Takes note of a sight, in which the fence's row was this one. Returns what it lists of this read model."""
        self.advance(row)
        listed = Listed(sight, row, self)
        if listed.is_whole and len(self._lists) < _MOST_LISTS:
            self._lists.append(listed)
        return listed

    def advance(self, row: FenceRow) -> None:
        """Takes note of what has come, by passes too. ★ A list counts only when all of it is in."""
        if row.cursor is not None and row.cursor.stamp > self.seen.stamp:
            self.seen = row.cursor
        while self._lists and not self._lists[0].left():
            self.seen = max(self.seen, self._lists.popleft().snapshot, key=_stamp)
        for position, (entry, task) in list(self._brought.items()):
            if self.seen.sees(entry.transaction) and task.done():
                del self._brought[position]

    def has(self, entry: Entry) -> bool:
        """Whether this change is in."""
        if entry.position in self._heard or self.seen.sees(entry.transaction):
            return True
        own = self._own.get(entry.position)
        if own is not None and (heard := own.heard(self._fence, self.known)):
            self.hear(heard)
            return True
        _, task = self._brought.get(entry.position, _NOT_BROUGHT)
        return task is not None and _is_true(task)

    def hear(self, positions: frozenset[int]) -> None:
        """Takes note of positions that Redis has told to be in."""
        if positions is not self._latest:
            self._latest = positions
            if len(self._heard) > _MOST_HEARD:
                self._heard = set()
            self._heard |= positions

    def pending(self, entry: Entry) -> asyncio.Future[Any] | None:
        """What to wait for until more is known of a change that is on its way; None if nobody brings it."""
        own = self._own.get(entry.position)
        pending: asyncio.Future[Any] | None = None if own is None else own.pending(self._fence, self.known)
        if pending is None:
            _, task = self._brought.get(entry.position, _NOT_BROUGHT)
            pending = task if task is not None and not task.done() else None
        return pending

    def are_brought(self, entries: Sequence[Entry], task: asyncio.Task[bool]) -> None:
        """Takes note of a task that brings these changes in, and tells whether they are."""
        self._brought.update((entry.position, (entry, task)) for entry in entries)


class Listed:
    """What a sight lists of one read model's changes: those that are not known to be in."""

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
        """Those that are still not in."""
        if self._left:
            self._left = [entry for entry in self._left if not self.arrivals.has(entry)]
        return self._left

    def left_of(self, ending: Ending) -> list[Entry]:
        """Those that this command may rest on."""
        left = self.left()
        return [entry for entry in left if ending.may_rest_on(entry)] if left else left

    def pending(self, left: Sequence[Entry]) -> set[asyncio.Future[Any]]:
        """What to wait for until more is known of these."""
        return {future for entry in left if (future := self.arrivals.pending(entry)) is not None}


_NOT_BROUGHT: tuple[None, None] = (None, None)


def _is_true(task: asyncio.Task[bool]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None and task.result()


def _stamp(snapshot: Snapshot) -> int:
    return snapshot.stamp
