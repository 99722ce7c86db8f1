"""Passes of a keeper over a read model, steps 8 to 11 of the protocol, and requests for passes."""

from __future__ import annotations

import asyncio
import enum
import logging
import random
import time
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import msgspec

from diptych.fence.contract import FenceRow
from diptych.fence.fence import Fence
from diptych.hinge.leases import CLAIM_LEASES, MARGIN, Clocks, WorkClaim
from diptych.hinge.pace import Pace
from diptych.hinge.replay import Refused
from diptych.hinge.replica import Replica
from diptych.log import NOTHING, Snapshot
from diptych.read.store.state import RedisState

SOON_S = 0.025
"""Delay of the first request of another process, in seconds: requests that come meanwhile share its pass."""

APART_S = 0.2
"""Minimum interval between two requests of other processes that are served, in seconds.

A process that writes a lot while it is cut off from Redis would otherwise have the other keepers make nothing but
passes.
"""


class PassRequests:
    """Requests of commands for a pass later than a numbered pass.

    ``latest`` is the highest number asked for. Requests of this process count at once, with ``add``. Requests of
    other processes wait for their turn, with ``add_delayed``; ``serve`` is then called with the number.
    """

    def __init__(self, serve: Callable[[int], object]) -> None:
        self.latest = -1
        self._serve = serve
        self._served_at = 0.0
        self._next = -1
        self._timer: asyncio.TimerHandle | None = None

    def add(self, after: int) -> None:
        """Adds a request for a pass to begin after pass number ``after``."""
        self.latest = max(self.latest, after)

    def are_open(self, row: FenceRow) -> bool:
        """Returns True if the last pass to have ended, as far as ``row`` knows, has left a request unserved."""
        return row.passes_completed <= self.latest

    def pause_before(self, row: FenceRow, pause_s: float) -> float:
        """Returns ``pause_s``, or 0 while a request is open.

        A keeper whose read model is not fresh is not woken by requests, and would sleep over them.
        """
        return 0.0 if self.are_open(row) else max(0.0, pause_s)

    def add_delayed(self, after: int, *, leads: bool) -> None:
        """Adds a request of a different process, to be served in a moment.

        A keeper that ``leads`` serves first; the other keepers find then that its pass has been made.
        """
        if self._timer is not None:
            # Kept for the turn after: a keeper that does not lead would otherwise always be given a number that
            # no keeper has had the time to serve, and would make the pass.
            self._next = max(self._next, after)
            return
        pause_s = max(SOON_S, self._served_at + APART_S - time.monotonic())
        if not leads:
            pause_s += APART_S * random.uniform(1, 2)  # noqa: S311 - to spread the keepers
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._serve_delayed, after, leads)

    def stop(self) -> None:
        """Forgets the delayed requests. Safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._next = None, -1

    def _serve_delayed(self, after: int, leads: bool) -> None:
        self._timer = None
        self._served_at = time.monotonic()
        self._serve(after)
        following, self._next = self._next, -1
        if following > after:
            self.add_delayed(following, leads=leads)


_log = logging.getLogger("diptych.hinge")

_INTERVAL = 0.25
"""Interval between two passes, in leases."""

_IDLE_INTERVAL = 2 / 3
"""Interval between two passes while nothing changes, in leases."""

DUE = MARGIN - _INTERVAL
"""Rest of a promise, in leases, from which on a pass is due."""

_NOTED_S = 60.0
"""Interval after which a pass is noted in the fence although nothing changes, in seconds."""


class Role(enum.Enum):
    """The part of a keeper in the passes over its read model."""

    FOLLOWING = enum.auto()
    """The passes are made by another keeper, or by none yet. The fence row is read anew at each look."""

    LEADING = enum.auto()
    """The keeper's own pass is the last one that it knows of. Its fence row is at hand, until the next is due."""

    UNSURE = enum.auto()
    """As ``FOLLOWING``, after a promise of the keeper's own that was not followed by a completed pass: the log is
    replayed before the next promise."""


class LastPass(NamedTuple):
    """The record of a leading keeper's last pass.

    ``row`` is the fence row that the pass left. ``is_quiet`` if it found neither a change nor a request. ``noted_at``
    is the time at which a pass was last noted in the fence, ``due_at`` that of the next pass, by ``time.monotonic``.
    """

    row: FenceRow
    is_quiet: bool
    noted_at: float
    due_at: float


PassResult: TypeAlias = tuple[LastPass | None, float]
"""The record of a pass (None: not completed), and the pause in seconds before the next look."""


class Pass:
    """A pass: promise, catch up with the log, publish the lease, complete.

    Made from the fence row, the look at Redis (step 7), the keeper's role and, if the keeper leads, its last pass.
    The attribute ``role`` is the keeper's role after the pass, as far as the pass has got, ``count`` the number of
    changes that it has found.
    """

    def __init__(
        self,
        replica: Replica,
        fence: Fence,
        requests: PassRequests,
        clocks: Clocks,
        lease_s: float,
        row: FenceRow,
        state: RedisState,
        role: Role,
        last: LastPass | None,
    ) -> None:
        self._replica = replica
        self._fence = fence
        self._requests = requests
        self._clocks = clocks
        self._lease_s = lease_s
        self._row = row
        self._state = state
        self.role: Role = Role.FOLLOWING if role is Role.LEADING else role
        self._last = last
        self._has_lapsed = row.now > row.lease_until
        self._cursor = row.cursor or NOTHING
        self.count = 0
        self._is_asked = False

    async def make(self) -> PassResult:
        """Makes the pass. Raises ``Refused``, ``RedisUnavailableError``, ``DatabaseUnavailableError``."""
        if self._clocks.unsteady_s > 0:
            return None, self._clocks.unsteady_s
        claim_s = CLAIM_LEASES * self._lease_s
        if self._has_lapsed:
            # The first keeper brings in what has gathered, perhaps for hours; the others wait for its pass.
            claimed = await self._fence.claim(self._row, claim_s)
            if claimed is None:
                return self._overtaken()
            self._row = claimed
        async with WorkClaim(self._fence, self._row, claim_s, is_made=self._has_lapsed) as claim:
            if self._has_lapsed or self.role is Role.UNSURE:
                await self._replay_before_promise()
            promised = await self._promise(claim)
            if promised is None:
                return self._overtaken()
            if self._have_clocks_stepped(promised):
                return None, self._clocks.unsteady_s
            await self._catch_up(promised)
            # Step 10: the lease, from which on queries trust Redis.
            await self._replica.publish(promised, self._state, self._cursor, lease_s=self._lease_s)
            return await self._complete(promised)

    async def _replay_before_promise(self) -> None:
        """Finds out whether Redis takes writes: commands would wait for a promise that can't be kept.

        This does not stand in for the replay after the promise.
        """
        # The floor is written, so that a Redis that refuses writes is found out even if there was no change.
        self._cursor, self.count = await self._replica.replay_log(
            self._row, self._cursor, carried=self._carried, floor=True
        )
        self._state = await self._replica.inspect(self._row)

    async def _promise(self, claim: WorkClaim) -> FenceRow | None:
        """Step 8. Returns the fence row with the promise; None if overtaken (see ``_overtaken``)."""
        # ★ The promise is committed before the log is read: a command that commits after that reading finds the
        # promise when it reads the fence, and waits. Made later, the lease would outlast what the command knows of.
        self._is_asked, asked_after = self._requests.are_open(self._row), self._requests.latest
        due_s = None if self._is_asked else DUE * self._lease_s
        promised = await self._fence.promise(self._row, self._lease_s * MARGIN, due_s, at_work=claim.is_made)
        if promised is None:
            return None
        self.role = Role.UNSURE
        if asked_after >= promised.passes_started:
            # No process can have seen this pass before it was promised: the number is of a row that is no more. Left
            # as it is, it would be asked for without end.
            self._requests.latest = promised.passes_started
        return promised

    def _have_clocks_stepped(self, promised: FenceRow) -> bool:
        problem = self._clocks.stepped(self._state.time_ms / 1000, promised.now)
        if problem is None:
            return False
        _log.warning("%s: %s; the lease is not renewed for a while", self._replica.name, problem)
        self._clocks.distrust(self._lease_s * MARGIN)
        return True

    async def _catch_up(self, promised: FenceRow) -> None:
        """Step 9. Raises ``Refused`` if Redis was brought to a later state of SQL than there is now."""
        if promised.passes_started <= self._state.passed:
            # Redis was published by a pass that SQL knows nothing of: SQL was put back to an earlier state.
            raise Refused("AHEAD")
        # From when the lease is over, and SQL answers. ★ Only a pass that began with a lease rests: with rests in
        # each, passes would never catch up with changes that take them more than half of the time.
        pace = None if self._state.leased is None else Pace(1.0, 0.0, longest_s=0.2, after_s=self._lease_s)
        self._cursor, count = await self._replica.replay_log(
            promised, self._cursor, carried=self._carried, pace=pace
        )
        self.count += count

    @property
    def _carried(self) -> Snapshot:
        # ★ Of another generation, or of another Redis, nothing counts.
        return self._state.carried if self._state.target == self._row.target else NOTHING

    async def _complete(self, promised: FenceRow) -> PassResult:
        """Step 11, left out while nothing changes.

        A command that waits for this pass has changed something since the last one began, or has asked. When neither
        of the two passes found any change, there is nothing to note: the next pass that matters will. (A command that
        changed nothing, in a process that can't ask, waits for the end of the lease.) But from time to time the pass
        is noted all the same: the log is kept from the fence's cursor on.
        """
        is_quiet = self.count == 0 and not (self._is_asked or self._requests.are_open(promised))
        is_idle = is_quiet and self._last is not None and self._last.is_quiet
        noted_at = 0.0 if self._last is None else self._last.noted_at
        passes_completed = promised.passes_completed
        if not is_idle or time.monotonic() > noted_at + _NOTED_S:
            if not await self._fence.complete(promised, self._cursor):
                return None, self._lease_s * _INTERVAL
            noted_at, passes_completed = time.monotonic(), promised.passes_started
        self.role = Role.LEADING
        row = msgspec.structs.replace(promised, cursor=self._cursor, passes_completed=passes_completed)
        pause_s = self._lease_s * (_IDLE_INTERVAL if is_idle else _INTERVAL)
        last = LastPass(row, is_quiet, noted_at, due_at=time.monotonic() + pause_s)
        return last, self._requests.pause_before(row, pause_s)

    def _overtaken(self) -> PassResult:
        """Returns the result if a different keeper was faster, or the generation has been replaced.

        The other keeper's pass serves the requests: unless this keeper's row is from its own last pass, so that the
        other pass may have begun before they were made. (A request after a keeper has read the row has woken it.)
        """
        if self._is_asked and self._last is not None:
            return None, 0.0
        return None, spread(self._lease_s, 0.02, 0.1)


def spread(lease_s: float, least: float, most: float) -> float:
    """Returns a random part of a lease, in seconds: the keepers of several processes must not act at once."""
    return lease_s * random.uniform(least, most)  # noqa: S311
