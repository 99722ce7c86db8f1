"""The keeper of one read model: makes the passes that renew its lease, and has it built anew when its data are lost.

A pass brings to Redis what commands have not (a process was killed, or cut off), and then lets readers trust it for
one more lease. One process makes it for the whole deployment; the others look now and then whether it still does.
The numbers are those of the steps in docs/concepts/hinge.md; what would go wrong without a rule stands where it is
kept (★).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import Callable

import msgspec

from diptych.errors import (
    DatabaseUnavailableError,
    RebuildFailedError,
    RedisUnavailableError,
    UnavailableError,
)
from diptych.fence.contract import FenceRow, Target
from diptych.fence.fence import Fence
from diptych.fence.rows import FenceRows
from diptych.hinge.at_work import AtWork, Signs
from diptych.hinge.builder import Builder
from diptych.hinge.clocks import MARGIN, Clocks
from diptych.hinge.replica import Refused, Replica
from diptych.hinge.requests import Requests
from diptych.hinge.status import REASONS, Progress, Status
from diptych.log.snapshot import NOTHING
from diptych.read.set_aside import SetAside
from diptych.read.store.source import RedisSource
from diptych.read.store.state import RedisState
from diptych.redis.service import RedisService

_log = logging.getLogger("diptych.hinge")

_DUE = MARGIN - 0.25
"""A pass is due when so much of the promise, in leases, is left: a quarter of a lease after the last one."""

_IDLE = 2 / 3
"""So many leases after the last pass comes the next one while nothing changes: each costs what nobody needs."""

_LATE = MARGIN - 0.75
"""Passes have ceased when less of the promise is left: there is a little time to take over before the lease ends."""

_REASONS = {"ELSEWHERE": "other-server", "FOREIGN": "other-database"}
"""Why SQL answers after a script has refused; of other outcomes: the data are lost."""

_COMPLETED_S = 60.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0


class Keeper:
    """Keeps one read model of this process, from ``start`` to ``stop``."""

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
        self.status = Status(replica.name, redis, self.wake)
        self.builder = Builder(replica, fence, rows, lease_s)
        self._redis = redis
        self._fence = fence
        self._at_work = AtWork(fence, lease_s)
        self._rows = rows
        self._lease_s = lease_s
        self._probe_interval_s = probe_interval_s
        self.set_aside: SetAside | None = None
        self._row: FenceRow | None = None
        self._leads = False
        self._is_unsure = False
        self._is_quiet = False
        self._asked_after = -1
        self._requests = Requests(self.ask)
        self._due_at = 0.0
        self._clocks = Clocks(tolerance_s=lease_s * (MARGIN - 1))
        self._unsteady_until = self._completed = 0.0
        self._pause_s = _FIRST_PAUSE_S
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.source = RedisSource(replica.store, redis, self.status)
        redis.on_away.append(self.wake)  # who has to probe from now on whether it is back

    async def check(self) -> None:
        """Brings ``status`` up to date with what a query would find now, and ``set_aside`` (None: not known)."""
        self.set_aside = await self.source.set_aside()

    def start(self) -> None:
        """Begins to look after the read model."""
        if self._task is None:
            name = f"diptych keeper of {self.replica.name}"
            self._task = asyncio.get_running_loop().create_task(self._run(), name=name)

    async def stop(self) -> None:
        """Ends it. Safe to call twice. The lease runs out by itself, unless another process renews it."""
        task, self._task = self._task, None
        self._requests.stop()
        while task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=0.1)

    def wake(self) -> None:
        """Has it look at once, instead of at its next turn."""
        self._woken.set()

    def ask(self, after: int) -> bool:
        """A command waits for a pass that begins after pass ``after``.

        Returns whether this keeper can make one now; if not, it does as soon as it can, unless another has by then.
        """
        self._asked_after = max(self._asked_after, after)
        if not self.status.fresh:
            return False
        self._woken.set()
        return True

    def asked_by_another(self, after: int) -> None:
        """A command of another process does. It is served in a moment, together with others."""
        self._requests.add(after, leads=self._leads)

    def _is_asked(self, row: FenceRow) -> bool:
        """Whether somebody waits for a pass who is not served by the last one that this row knows to have ended."""
        return row.passes_completed <= self._asked_after

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                pause = await self._turn()
            except Exception:
                _log.exception("%s: a pass failed", self.replica.name)
                self.status.sql("failing")
                pause = self._grown_pause()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def _turn(self) -> float:
        """Looks, and does what is due. Returns after how many seconds to look again."""
        if self.builder.switching:
            return self._lease_s / 20
        if not self._redis.available:
            self._forget()
            self.status.unknown()
            if not await self._redis.probe():
                return self._probe_interval_s
        try:
            pause = await self._keep()
        except Refused as refused:
            if self._row is not None and refused.outcome in ("AHEAD", "UNREADABLE", "BEHIND"):
                self.status.broken_generation = self._row.generation
            self._forget()
            if self.status.reason != "rebuilding":
                self.status.sql(_REASONS.get(refused.outcome, "lost"))
            _log.info("%s: Redis is not as it should be (%s)", self.replica.name, refused.outcome)
            return self._grown_pause()
        except RedisUnavailableError:
            self._forget()
            return min(self._probe_interval_s, self._lease_s / 4)
        except UnavailableError as error:
            self._forget()
            if not self.status.fresh:
                self.status.sql("sql-away" if isinstance(error, DatabaseUnavailableError) else "failing")
            return self._grown_pause()
        self._pause_s = _FIRST_PAUSE_S
        return pause

    async def _keep(self) -> float:
        row = self._row
        self._clocks.begin()
        if row is None or not self._leads:
            row = await self._read()
            self._row = row
            is_needed = self._is_broken(row) or self._has_to_make_one(row)
            if self.status.fresh and not is_needed:
                return self._until_next_look(row)
        else:
            is_needed = self._is_asked(row) or time.monotonic() >= self._due_at
        state = await self.replica.store.inspect(row.generation)
        if not state.is_master or not _keeps_all(state.policy):
            await self._redis.check_server()  # which refuses it, and says why
        if problem := self._problem_of(row, state):
            return await self._mend(row, state, problem)
        if not is_needed:
            # Another process makes the passes: is its lease there for the queries of this one?
            if state.leased is not None and state.leased.generation == row.generation.encode():
                self._serves()
            else:
                self.status.sql("no-lease")
            if self._leads:
                return self._unless_asked(row, self._due_at - time.monotonic())
            return max(0.0, self._until_next_look(row))
        return await self._pass(row, state)

    def _is_broken(self, row: FenceRow) -> bool:
        return self.status.broken_generation == row.generation

    def _has_to_make_one(self, row: FenceRow) -> bool:
        """Whether this keeper, which has not made the last pass, has to make one now.

        What another one is at is left to it while it lives: each would read and write the same backlog again.
        """
        if row.ready and row.building_until > row.now:
            return False
        left_s = row.lease_until - row.now
        if self._is_asked(row):
            has_begun = row.passes_started > self._asked_after and left_s > _DUE * self._lease_s
            return not (row.ready and has_begun)
        return not (row.ready and left_s > _LATE * self._lease_s)

    def _unless_asked(self, row: FenceRow, pause: float) -> float:
        """The pause, or none if somebody has asked: until the read model is fresh ``ask`` wakes nobody."""
        return 0.0 if self._is_asked(row) else max(0.0, pause)

    def _until_next_look(self, row: FenceRow) -> float:
        """If the passes cease, the first of us to look takes over before the lease is over."""
        if self._is_asked(row) or row.building_until > row.now:
            # Another one is at it: it may be done at any time, or die.
            return self._lease_s * random.uniform(0.1, 0.2)  # noqa: S311 - so that not all look at once
        late_in_s = row.lease_until - row.now - _LATE * self._lease_s
        return late_in_s + self._lease_s * random.uniform(0, 0.25)  # noqa: S311

    async def _read(self) -> FenceRow:
        row = (await self._rows.rows()).get(self.replica.id)
        if row is None:
            await self._fence.register(self.replica.id, self.replica.compiled.tables)
            row = (await self._rows.rows())[self.replica.id]
        self.source.is_of(row.history)
        return row

    def _problem_of(self, row: FenceRow, state: RedisState) -> str | None:
        """Why the generation in Redis can't be served, as a reason of ``Status``; None if it can."""
        if state.leased is not None and state.leased.is_of_another(row.history):
            return "other-database"
        if not row.ready:
            return "rebuilding"
        if row.incarnation != state.incarnation:
            return "other-server"
        if state.floor is None or row.cursor is None or self._is_broken(row):
            return "lost"
        return None

    # A pass, steps 7 to 11

    async def _pass(self, row: FenceRow, state: RedisState) -> float:
        if (left_s := self._unsteady_until - time.monotonic()) > 0:
            return left_s
        is_over = row.now > row.lease_until
        if is_over:
            # Whoever is first brings in what has gathered, perhaps for hours; the others wait for its pass.
            claimed = await self._fence.claim(row, self._at_work.seconds)
            if claimed is None:
                return self._outrun()
            row = claimed
        async with self._at_work.on(row, is_said=is_over) as signs:
            return await self._make_a_pass(row, state, signs)

    def _outrun(self) -> float:
        """Another keeper was faster, or the generation has been replaced: looks anew in a moment."""
        self._forget()
        return self._lease_s * random.uniform(0.02, 0.1)  # noqa: S311

    async def _make_a_pass(self, row: FenceRow, state: RedisState, signs: Signs) -> float:
        cursor = row.cursor or NOTHING
        count = 0
        if self._is_unsure or row.now > row.lease_until:
            # Step 8: nothing is promised before it is known that Redis takes what there is: commands would wait for
            # a promise that can't be kept. This does not stand in for what is read after the promise.
            # The floor is written, so that a Redis that refuses writes is found out even if there was no change.
            cursor, count = await self.replica.replay_log(row, cursor, floor=True)
            state = await self.replica.inspect(row)
        # ★ The promise is committed before the log is read: a command that commits after that reading finds the
        # promise when it reads the fence, and waits. Made later, the lease would outlast what the command knows of.
        asked, asked_after = self._is_asked(row), self._asked_after
        due_s = None if asked else _DUE * self._lease_s
        promised = await self._fence.promise(row, self._lease_s * MARGIN, due_s, at_work=signs.given)
        if promised is None:
            # Another was faster, or the generation has been replaced. The other's pass serves who asked: unless
            # this keeper's row is from its last pass, and so the other's may have begun before they asked. (Who
            # asks after a keeper has read the row has woken it.)
            is_late = asked and self._leads
            pause = self._outrun()
            return 0.0 if is_late else pause
        self._is_unsure = True
        if asked_after >= promised.passes_started:
            # Nobody can have seen this pass before it was promised: the number is of a row that is no more. Left as
            # it is, it would be asked for without end.
            self._asked_after = promised.passes_started
        if problem := self._clocks.stepped(state.time_ms / 1000, promised.now):
            _log.warning("%s: %s; the lease is not renewed for a while", self.replica.name, problem)
            self._unsteady_until = time.monotonic() + self._lease_s * MARGIN
            return self._lease_s * MARGIN
        if promised.passes_started <= state.passed:
            # Redis was published by a pass that SQL knows nothing of: SQL was put back to an earlier state.
            raise Refused("AHEAD")
        snapshot, found = await self.replica.replay_log(promised, cursor)
        count += found
        await self.builder.publish(promised, state, snapshot)
        was_quiet, self._is_quiet = self._is_quiet, count == 0 and not (asked or self._is_asked(promised))
        # Who waits for this pass has changed something since the last one began, or has asked. When neither of the
        # two found any change, there is nothing to note: the next pass that matters will. (A command that changed
        # nothing, in a process that can't ask, waits for the end of the lease.) But now and then: what the fence's
        # cursor has not passed is kept in the log.
        is_noted = not (was_quiet and self._is_quiet) or time.monotonic() > self._completed + _COMPLETED_S
        if is_noted:
            if not await self._fence.complete(promised, snapshot):
                self._forget()
                return self._lease_s / 4
            self._completed = time.monotonic()
        self._is_unsure = False
        self._leads = True
        completed = promised.passes_started if is_noted else promised.passes_completed
        self._row = msgspec.structs.replace(promised, cursor=snapshot, passes_completed=completed)
        self._rows.on_pass_completed()
        self._serves()
        pause = self._lease_s * (_IDLE if was_quiet and self._is_quiet else 0.25)
        self._due_at = time.monotonic() + pause
        return self._unless_asked(self._row, pause)

    # A planned rebuild

    async def rebuild(self, tell: Callable[[Progress], None] | None = None) -> Progress:
        """Builds the read model anew beside the one that serves. What ``Diptych.rebuild`` promises."""
        row = await self._read()
        state = await self.replica.store.inspect(row.generation)
        progress = Progress(self.replica.name, await self.replica.source.count(), tell)
        found, moved_at = row, time.monotonic()
        while problem := self._problem_of(row, state):
            # The keepers are about to build it, or one of them is at it. A build that was under way when we came may
            # have read rows before they were changed: it is waited for, and is not enough.
            self.wake()
            await asyncio.sleep(self._probe_interval_s)
            self._redis.check_available()
            before, row = row, await self._read()
            state = await self.replica.store.inspect(row.generation)
            if row.ready and row.generation != found.generation:
                progress.add(await self.replica.source.count())
                return progress
            if row.building_until > row.now or row.generation != before.generation:
                moved_at = time.monotonic()
            elif problem == "other-database":
                raise RebuildFailedError(f"{self.replica.name}: {REASONS[problem]}")
            elif problem == "other-server" and time.monotonic() - moved_at > 3 * self._lease_s:
                raise RebuildFailedError(
                    f"{self.replica.name}: other processes keep it in another Redis than {self._redis.address}"
                )
            elif time.monotonic() - moved_at > 3 * self._lease_s + _LONGEST_PAUSE_S:
                raise RebuildFailedError(
                    f"{self.replica.name}: no process succeeds in building it; their logs, and /health, tell why"
                )
        self.status.progress = progress
        try:
            await self.builder.rebuild(row, state, secrets.token_hex(8), progress)
        except Refused as refused:
            raise RebuildFailedError(
                f"{self.replica.name}: another process has replaced the generation meanwhile, or Redis has lost the "
                f"new one ({refused.outcome})"
            ) from None
        finally:
            self.status.progress = None
            self._forget()
            self.wake()
        _log.info(
            "%s: rebuilt, %d documents in %.1f s", *(self.replica.name, progress.done, progress.seconds)
        )
        return progress

    # What is lost, step 12

    async def _mend(self, row: FenceRow, state: RedisState, problem: str) -> float:
        """Builds the read model anew, as soon as nobody may trust the old one and nobody else is at it."""
        self._forget()
        if problem == "other-database":
            # Nothing of it is touched. If it is this database's of before it was put elsewhere, it runs out.
            self.status.sql(problem if row.now > row.lease_until else "lost")
            return self._lease_s / 4
        if self._is_broken(row) and row.incarnation == state.incarnation:
            # Nobody is to trust it any more.
            await self.replica.store.drop(Target(row.incarnation, row.generation), row.history)
        wait_s = max(row.lease_until, row.building_until) - row.now
        if wait_s > 0:
            if self.status.reason != "rebuilding":
                self.status.sql(problem)
            return min(wait_s + self._lease_s * random.uniform(0.005, 0.05), self._lease_s / 4)  # noqa: S311
        self.status.sql("rebuilding")
        self.status.progress = progress = Progress(self.replica.name, await self.replica.source.count())
        try:
            built = await self.builder.build(row, state, secrets.token_hex(8), progress)
        finally:
            self.status.progress = None
        if built is not None:
            _log.info(
                "%s: rebuilt, %d documents in %.1f s", *(self.replica.name, progress.done, progress.seconds)
            )
            self._serves()
        # Commands that came while it was built may wait for a pass: the next turn sees to it.
        return 0.0 if built is not None else self._lease_s * random.uniform(0.02, 0.1)  # noqa: S311

    def _serves(self) -> None:
        """Redis has all there is, and a lease says so."""
        self.status.answered_by_redis()
        self._redis.is_well()

    def _forget(self) -> None:
        self._row = None
        self._leads = self._is_quiet = False

    def _grown_pause(self) -> float:
        pause, self._pause_s = self._pause_s, min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return pause


def _keeps_all(policy: str) -> bool:
    return policy == "noeviction" or policy.startswith("volatile-")
