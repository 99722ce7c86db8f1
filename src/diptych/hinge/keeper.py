"""The keeper of a read model: makes the passes and so renews the lease, and has lost data built anew.

A pass brings to Redis what commands have not (a process was killed, or cut off), and then lets queries trust Redis
for one more lease. One process makes the passes for the whole deployment; the others look now and then whether it
still does. The steps are those of docs/concepts/hinge.md; a ★ marks a rule of the protocol, with what would go wrong
without the rule.
"""

from __future__ import annotations

import logging
import time

from diptych.aio.tasks import Looper
from diptych.errors import (
    DatabaseUnavailableError,
    DiptychError,
    RedisUnavailableError,
    SchemaError,
    UnavailableError,
)
from diptych.fence.contract import FenceRow
from diptych.fence.fence import Fence
from diptych.fence.rows import FenceRows
from diptych.hinge.builder import Builder
from diptych.hinge.leases import MARGIN, Clocks
from diptych.hinge.passes import DUE, LastPass, Pass, PassRequests, Role, spread
from diptych.hinge.replay import REASONS, UNUSABLE, Refused
from diptych.hinge.replica import Replica
from diptych.hinge.status import Progress, Status
from diptych.read.set_aside import SetAside
from diptych.read.store.source import RedisSource
from diptych.read.store.state import RedisState
from diptych.redis import WrongContentsError
from diptych.redis.service import RedisService
from diptych.statistics import PassCounter

_log = logging.getLogger("diptych.hinge")

_LATE = MARGIN - 0.75
"""Rest of a promise, in leases, below which the passes have ceased: a keeper takes over before the lease ends."""

_FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
"""Longest pause after failures in a row, in seconds."""


class Keeper:
    """The keeper of a read model in this process, from ``start`` to ``stop``.

    ``status`` tells which store answers, ``source`` is the read model as queries see it, and ``set_aside`` the rows
    that do not fit, as of the last ``check`` (None: not known). ``passes`` counts the completed passes.
    """

    def __init__(
        self,
        replica: Replica,
        redis: RedisService,
        fence: Fence,
        rows: FenceRows,
        *,
        lease_s: float,
        probe_interval_s: float,
    ) -> None:
        self.replica = replica
        self.redis = redis
        self.status = Status(replica.name, redis, self.wake)
        replica.store.on_wrong = self.status.broken
        self.source = RedisSource(replica.store, redis, self.status)
        self.builder = Builder(replica, fence, rows, lease_s)
        self.set_aside: SetAside | None = None
        self.passes = PassCounter()
        self.lease_s = lease_s
        self.probe_interval_s = probe_interval_s
        self._fence = fence
        self._rows = rows
        self._role = Role.FOLLOWING
        self._last: LastPass | None = None
        self._requests = PassRequests(self.ask)
        self._clocks = Clocks(tolerance_s=lease_s * (MARGIN - 1))
        self._pause_s = _FIRST_PAUSE_S
        self._looper = Looper(f"keeper of {replica.name}", self._turn, lease_s)
        redis.on_away.append(self.wake)  # from now on the keeper has to probe whether Redis is back

    async def check(self) -> None:
        """Brings ``status`` and ``set_aside`` up to date with the finding of a query at this moment."""
        self.set_aside = await self.source.set_aside()

    def start(self) -> None:
        """Begins to look after the read model."""
        self._looper.start()

    async def stop(self) -> None:
        """Ends the passes of this process. Safe to call twice.

        The lease runs out by itself, unless another process renews it.
        """
        self._requests.stop()
        await self._looper.stop()

    def wake(self) -> None:
        """Has the keeper look at once, instead of at its next turn."""
        self._looper.wake()

    def ask(self, after: int) -> bool:
        """Asks for a pass to begin after pass number ``after``, on behalf of a waiting command.

        Returns True if this keeper can make a pass now. If not, it makes one as soon as it can, unless another keeper
        has by then.
        """
        self._requests.add(after)
        if not self.status.fresh:
            return False
        self.wake()
        return True

    def asked_by_another(self, after: int) -> None:
        """Asks for a pass on behalf of another process, in a moment and together with its other requests."""
        self._requests.add_delayed(after, leads=self._role is Role.LEADING)

    def hinted(self) -> None:
        """Asks for a pass in a moment: somebody else has changed a captured row. Followers leave it to the leader."""
        if self._role is Role.LEADING and self._last is not None:
            self._requests.add_delayed(self._last.row.passes_started, leads=True)

    async def read_row(self) -> FenceRow:
        """Returns the fence row of the read model, added now if there is none."""
        row = (await self._rows.rows()).get(self.replica.id)
        if row is None:
            await self._fence.register(self.replica.id, self.replica.compiled.tables)
            row = (await self._rows.rows())[self.replica.id]
        self.source.is_of(row.history)
        return row

    def resign(self) -> None:
        """Gives up the lead: the fence row is read anew at the next turn."""
        if self._role is Role.LEADING:
            self._role = Role.FOLLOWING

    # A turn

    async def _turn(self) -> float:
        """Looks, and does the work that is due. Returns the pause before the next look, in seconds."""
        try:
            if self.builder.switching:
                return self.lease_s / 20
            if not self.redis.available:
                self.resign()
                self.status.unknown()
                if not await self.redis.probe():
                    return self.probe_interval_s
            pause_s = await self._keep()
        except (Refused, UnavailableError) as error:
            self.resign()
            if isinstance(error, Refused) and error.outcome == "UNCAPTURED":
                await self._capture()
            return self._pause_after(error)
        except SchemaError as error:
            # A migration has changed the table: the process is of another version. SQL says so to who asks.
            _log.error("%s: a pass failed: %s", self.replica.name, error)
            self.status.sql("failing")
            return self._grown_pause()
        except Exception:
            _log.exception("%s: a pass failed", self.replica.name)
            self.status.sql("failing")
            return self._grown_pause()
        self._pause_s = _FIRST_PAUSE_S
        return pause_s

    async def _capture(self) -> None:
        """Has the triggers of the tables made anew, which ends the generation: rows may have changed without them."""
        try:
            await self._fence.capture(self.replica.compiled.tables)
        except DiptychError as error:
            _log.error("%s: its tables can't be captured: %s", self.replica.name, error)
            self.status.sql("uncaptured")

    def _pause_after(self, error: Refused | UnavailableError) -> float:
        """Notes why a turn has failed, and returns the pause before the next turn."""
        match error:
            case Refused(outcome=outcome):
                if self.status.reason != "rebuilding":
                    self.status.sql(REASONS.get(outcome, "lost"))
                _log.info("%s: Redis is not as it should be (%s)", self.replica.name, outcome)
            case WrongContentsError():
                _log.error("%s: a pass failed: %s", self.replica.name, error)
                self.status.sql("failing")
            case RedisUnavailableError():
                return min(self.probe_interval_s, self.lease_s / 4)
            case _:
                if not self.status.fresh:
                    self.status.sql("sql-away" if isinstance(error, DatabaseUnavailableError) else "failing")
        return self._grown_pause()

    def _grown_pause(self) -> float:
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        return pause_s

    # Leading and following

    async def _keep(self) -> float:
        """Makes a pass or has the read model built, if either is needed. Returns the pause before the next look."""
        self._clocks.begin()
        changes = self.status.changes
        last = self._last if self._role is Role.LEADING else None
        if last is not None:
            row = last.row
            is_needed = self._requests.are_open(row) or time.monotonic() >= last.due_at
        else:
            row = await self.read_row()
            is_needed = self.status.is_broken(row) or self._has_to_take_over(row)
            if self.status.fresh and not is_needed:
                return self._until_next_look(row)
        state = await self._look(row)
        if problem := self.status.problem_of(row, state):
            return await self._mend(row, state, problem)
        if is_needed:
            return await self._pass(row, state, last, changes)
        # Which store answers: Redis, if the lease kept by another process is there.
        if state.leased is not None and state.leased.generation == row.generation.encode():
            self._serve(changes)
        else:
            self.status.sql("no-lease")
        if last is not None:
            return self._requests.pause_before(row, last.due_at - time.monotonic())
        return max(0.0, self._until_next_look(row))

    def _has_to_take_over(self, row: FenceRow) -> bool:
        """Returns True if this keeper has to make a pass now, although the last pass was not its own.

        Work that another keeper is at is left to that one while it lives: each would read and write the same backlog
        again.
        """
        if row.ready and row.building_until > row.now:
            return False
        left_s = row.lease_until - row.now
        if self._requests.are_open(row):
            has_begun = row.passes_started > self._requests.latest and left_s > DUE * self.lease_s
            return not (row.ready and has_begun)
        return not (row.ready and left_s > _LATE * self.lease_s)

    def _until_next_look(self, row: FenceRow) -> float:
        """Returns the pause of a following keeper: if the passes cease, the first to look takes over in time."""
        if self._requests.are_open(row) or row.building_until > row.now:
            # Another keeper is at work: it may be done at any time, or die.
            return spread(self.lease_s, 0.1, 0.2)
        late_in_s = row.lease_until - row.now - _LATE * self.lease_s
        # The lease has a quarter left when passes are late: half of it is for the pass of the one that takes over.
        return late_in_s + spread(self.lease_s, 0, 0.125)

    async def _look(self, row: FenceRow) -> RedisState:
        """Step 7. Raises ``RedisUnavailableError`` if this Redis may not be used any more."""
        state = await self.replica.store.inspect(row.generation)
        if not state.is_usable:
            await self.redis.check_server()  # raises, and says why
        return state

    async def _pass(self, row: FenceRow, state: RedisState, last: LastPass | None, changes: int) -> float:
        """Steps 8 to 11."""
        began = time.monotonic()
        this = Pass(
            self.replica,
            self._fence,
            self._requests,
            self._clocks,
            self.lease_s,
            row,
            state,
            self._role,
            last,
        )
        try:
            completed, pause_s = await this.make()
        except Refused as refused:
            if refused.outcome in UNUSABLE:
                self.status.broken_generation = row.generation
            raise
        except WrongContentsError as error:
            self.status.broken(row.generation, str(error))
            return 0.0  # the next turn builds it anew
        finally:
            self._role = this.role
        if completed is not None:
            self._last = completed
            self.passes.add(time.monotonic() - began, this.count)
            self._rows.on_pass_completed()
            self._serve(changes)
        return pause_s

    def _serve(self, changes: int) -> None:
        """Redis has everything, and a lease says so: found by a look that began after ``changes`` of the status."""
        self.status.leased(changes)
        self.redis.is_well()

    # Lost data, step 12

    async def _mend(self, row: FenceRow, state: RedisState, problem: str) -> float:
        """Builds the read model anew, as soon as no query may trust the old data and no other keeper is at work."""
        self.resign()
        if problem == "other-database":
            # The other database's data and lease are left alone. If both are this database's own, from before it was
            # put elsewhere, the lease runs out.
            self.status.sql(problem if row.now > row.lease_until else "lost")
            return self.lease_s / 4
        if self.status.is_broken(row) and row.incarnation == state.incarnation:
            # No query is to trust the generation any more.
            await self.replica.store.drop(row.target, row.history)
        wait_s = max(row.lease_until, row.building_until) - row.now
        if wait_s > 0:
            if self.status.reason != "rebuilding":
                self.status.sql(problem)
            return min(wait_s + spread(self.lease_s, 0.005, 0.05), self.lease_s / 4)
        self.status.sql("rebuilding")
        changes = self.status.changes
        self.status.progress = progress = Progress(self.replica.name, await self.replica.source.count())
        try:
            if not await self.builder.build(row, state, progress):
                return spread(self.lease_s, 0.02, 0.1)
        finally:
            self.status.progress = None
        self._serve(changes)
        return 0.0  # commands that came during the build may wait for a pass: the next turn sees to that
