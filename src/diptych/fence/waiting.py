"""The wait of a command for a pass, or for the end of a lease: step 6 of docs/concepts/hinge.md."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from diptych.errors import DatabaseUnavailableError
from diptych.fence.contract import FenceId, FenceRow
from diptych.fence.fence import Fence
from diptych.fence.rows import NOT_KNOWN, FenceRows

_log = logging.getLogger("diptych.write")

_ASK_AGAIN_S = 1.0
"""Age in seconds from which a request to other processes is repeated for a later command: it may have got lost."""


class Passes:
    """The wait of commands for a pass of a keeper, or for the end of a lease.

    ``patience_s`` is the time that SQL has to answer, in seconds.
    """

    def __init__(self, fence: Fence, rows: FenceRows, patience_s: float) -> None:
        self._fence = fence
        self._rows = rows
        self._patience_s = patience_s
        self._asked: dict[FenceId, tuple[int, float]] = {}
        self._asking: set[asyncio.Task[None]] = set()

    async def wait(self, rows: Sequence[FenceRow]) -> None:
        """Returns when each of these leases is over, or a pass started later than its row was read is completed.

        Keepers of this process are preferred to other processes' keepers. Raises ``DatabaseUnavailableError`` if SQL
        is away for too long.
        """
        self._ask({row.id: row.passes_started for row in rows})
        waited = {row.id: row for row in rows}
        while True:
            try:
                # The command holds no connection to SQL meanwhile, and shares its reads with all that wait.
                now = (await self._rows.sight_within(self._patience_s)).rows
            except Exception as error:
                raise DatabaseUnavailableError(NOT_KNOWN) from error
            for fence, row in waited.items():
                if fence in now and now[fence].history != row.history:
                    # ★ The database was put elsewhere. The lease that was waited for ended by another clock; whoever
                    # was promised something has been given some time by the clock that counts now.
                    waited[fence] = now[fence]
            waited = {fence: row for fence, row in waited.items() if _is_waited_for(row, now.get(fence))}
            if not waited:
                return
            await self._rows.pause()

    async def close(self) -> None:
        """Ends the requests under way. No command waits any more when this is called."""
        for task in list(self._asking):
            task.cancel()
            await asyncio.wait([task])

    def _ask(self, after: Mapping[FenceId, int]) -> None:
        read_side = self._rows.tracker.read_side
        own = read_side.ask(after) if read_side is not None else ()
        now = time.monotonic()
        for fence in after.keys() - set(own):
            # Once for each pass: a command that comes before the next pass begins is served by that pass too. But
            # the request may get lost.
            number, asked_at = self._asked.get(fence, (-1, 0.0))
            if number != after[fence] or now > asked_at + _ASK_AGAIN_S:
                self._asked[fence] = after[fence], now
                task = asyncio.get_running_loop().create_task(self._ask_others(fence, after[fence]))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    async def _ask_others(self, fence: FenceId, after: int) -> None:
        try:
            await self._fence.ask(fence, after)
        except Exception as error:
            _log.debug("a request for a pass got lost: %s", error)
            self._asked.pop(fence, None)


def _is_waited_for(row: FenceRow, now: FenceRow | None) -> bool:
    if now is None or now.now > row.lease_until:
        return False
    # ★ A pass that was under way when the fence was read may have read the log before the commit: a later one counts.
    return now.passes_completed <= row.passes_started
