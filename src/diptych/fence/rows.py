"""The fence as known to this process: the latest rows, the targets of changes, and shared reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence

from diptych.aio.sharing import SerialBatcher
from diptych.errors import DatabaseUnavailableError
from diptych.fence.arrivals import ChangeTracker, NotedSight
from diptych.fence.contract import FenceId, FenceRow, Rows, Target
from diptych.fence.fence import Fence

_GATHER_S = 0.000_05
"""Minimum interval between two reads without a pause, in seconds, for each command under way. With many commands,
which wait in line anyway, more of them share a read."""

_RETRY_S = 0.05

_POLL_S = 0.05
"""Interval between two reads of the fence while commands wait, in seconds. A pass of this process ends it early."""

NOT_KNOWN = "SQL went away before it was known whether queries see what this command rests on"


class FenceRows:
    """The latest fence rows known to this process, and shared reads of the fence.

    ``latest`` is None before the first read. ``targets`` are the generations of these rows. ``tracker`` takes note of
    every read. ``commands`` is the number of commands under way.
    """

    def __init__(self, fence: Fence) -> None:
        self.latest: Rows | None = None
        self.targets: Mapping[FenceId, Target] = {}
        self.tracker = ChangeTracker()
        self.commands = 0
        self._fence = fence
        self._pause_over = asyncio.Event()
        self._pausing: asyncio.TimerHandle | None = None
        self._read_at = 0.0
        # ★ A caller shares the next read, never a read that has been sent: it may be older than the caller's commit.
        self._reads: SerialBatcher[bool, NotedSight] = SerialBatcher(
            self._read, self._gathering_s, cut_off=DatabaseUnavailableError(NOT_KNOWN)
        )
        self._looks: SerialBatcher[None, bool] = SerialBatcher(
            self._look, cut_off=DatabaseUnavailableError(NOT_KNOWN)
        )
        # ★ As with the fence: a look at the fingerprints that has been sent may be older than the caller's call.
        self._fingerprints: SerialBatcher[Collection[str], frozenset[str]] = SerialBatcher(
            self._look_for_missed, cut_off=DatabaseUnavailableError(NOT_KNOWN)
        )

    async def rows(self) -> Rows:
        """Returns the fence rows as of a moment after this call. Raises ``DatabaseUnavailableError``."""
        return (await self.sight()).rows

    async def sight(self, *, expects_entries: bool = False) -> NotedSight:
        """Returns the fence and the log as of a moment after this call. Raises ``DatabaseUnavailableError``.

        ``expects_entries`` says that the log has entries of the caller which this process does not know.
        """
        return await self._reads.get(expects_entries)

    async def are_leased(self) -> bool:
        """Returns whether any read model has a lease, at a moment after this call; True if SQL does not answer."""
        try:
            return await self._looks.get(None)
        except DatabaseUnavailableError:
            return True

    async def missed(self, tables: Collection[str]) -> frozenset[str]:
        """Returns those tables that may lack entries of changes in the log, as of a moment after this call.

        Raises ``DatabaseUnavailableError``.
        """
        return await self._fingerprints.get(tables)

    async def sight_within(self, patience_s: float, *, expects_entries: bool = False) -> NotedSight:
        """Returns the same as ``sight``. While SQL is away, tries again for ``patience_s`` seconds."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return await self.sight(expects_entries=expects_entries)
            except DatabaseUnavailableError as error:
                if time.monotonic() > deadline:
                    raise DatabaseUnavailableError(NOT_KNOWN) from error
                await asyncio.sleep(_RETRY_S)

    def on_row_changed(self, row: FenceRow) -> None:
        """Takes note of a fence row changed by a keeper of this process."""
        self._note({**(self.latest or {}), row.id: row})

    def on_pass_completed(self) -> None:
        """Takes note of a pass completed by a keeper of this process: waiting commands look at once."""
        if self._pausing is not None:
            self._pausing.cancel()
            self._pausing = None
        self._pause_over.set()
        self._pause_over.clear()

    async def pause(self) -> None:
        """Waits until the fence may have changed. All commands wait for the same moment, and share a read then."""
        if self._pausing is None:
            self._pausing = asyncio.get_running_loop().call_later(_POLL_S, self.on_pass_completed)
        await self._pause_over.wait()

    async def close(self) -> None:
        """Ends the reading. Waiting callers fail with ``DatabaseUnavailableError``."""
        await self._reads.close()
        await self._looks.close()
        await self._fingerprints.close()

    async def _read(self, callers: Sequence[bool]) -> Sequence[NotedSight]:
        self._read_at = time.monotonic()
        since = self.tracker.since(self.latest or {})
        sight = await self._fence.sight(since, self.tracker.own.entries, expects_entries=any(callers))
        self._note(sight.rows)
        return [self.tracker.on_sight(sight)] * len(callers)

    async def _look(self, callers: Sequence[None]) -> Sequence[bool]:
        return [await self._fence.is_leased()] * len(callers)

    async def _look_for_missed(self, callers: Sequence[Collection[str]]) -> Sequence[frozenset[str]]:
        return [await self._fence.missed({table for tables in callers for table in tables})] * len(callers)

    def _gathering_s(self) -> float:
        return self._read_at + _GATHER_S * self.commands - time.monotonic()

    def _note(self, rows: Rows) -> None:
        self.latest = rows
        self.targets = {row.id: row.target for row in rows.values()}
