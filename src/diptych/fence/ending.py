"""The end of a command: its changes, and the changes by other commands that its result may rest on."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from diptych.fence.contract import Applied, FenceId, Target
from diptych.log.change import Change, Entry, Snapshot


class Ending:
    """A command at its commit, or after a failure.

    ``touched`` are the tables whose rows the command may rest on, ``targets`` the generations known before its
    commit. The command may rest on every change up to the position ``last``; on all changes, if ``last`` is None.

    ``applying`` holds, once ``begun`` is done, a future for each target that the changes are being written to.
    """

    def __init__(
        self,
        changes: Sequence[Change],
        touched: Collection[str],
        targets: Mapping[FenceId, Target],
        last: int | None = None,
    ) -> None:
        self.changes = changes
        self.touched = touched
        self.targets = targets
        self.last = last
        seen = changes[0].snapshot if changes else None
        self._snapshot = None if seen is None or last is None else Snapshot.parse(seen)
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.applying: Mapping[FenceId, asyncio.Future[Applied]] = {}
        self.is_over = False

    def may_rest_on(self, entry: Entry) -> bool:
        """Returns whether the command may rest on this change; every change of its own counts.

        ★ On PostgreSQL a command sees the changes that were committed before it began. Of later changes it notices no
        more than a unique index shows: that a value is free again, when the command takes a value.
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
        """Tables in which the command gives a row a unique value."""
        return frozenset(c.entity.table for c in self.changes if _takes(c))

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


def _takes(change: Change) -> bool:
    return change.before is None or _moves(change)


def _moves(change: Change) -> bool:
    """Returns whether the change gives the row a new key, or a new value in any other unique column."""
    before, after = change.before, change.after
    if before is None or after is None:
        return False
    return any(before[name] != after[name] for name in change.entity.identifying)


def _entry_of(change: Change) -> Entry:
    """Returns the change as a sight lists changes, but without keys.

    ★ ``old_key`` differs from ``key`` where the change frees a unique value: another command may take the value.
    """
    freed = "{}" if _moves(change) else None
    return Entry(change.position, change.transaction, change.entity.table, change.kind, freed, "")


class OwnChanges:
    """Changes by commands of this process. ``entries`` are their log entries, by transaction number."""

    def __init__(self) -> None:
        self.entries: dict[int, list[Entry]] = {}
        self._by_position: dict[int, Ending] = {}
        self._in_order: deque[Ending] = deque()

    def add(self, ending: Ending) -> None:
        """Adds a command. To be called before the commit, which others may see before this process hears of it."""
        for change in ending.changes:
            self._by_position[change.position] = ending
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
