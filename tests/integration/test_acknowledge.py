"""The acknowledgement: a command is held back until every query is answered with its changes, and no longer.

The rules are tried on a fence that the tests change as they like; the last tests run with real stores.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConfigService, DatabaseUnavailableError, Diptych, ORMService, ReadModel
from diptych.fence import waiting
from diptych.fence.acknowledge import Acknowledger
from diptych.fence.arrivals import Ending
from diptych.fence.contract import Applied, FenceId, FenceRow, Sight, Target
from diptych.fence.rows import FenceRows
from diptych.log import Change, Entry, Snapshot
from diptych.redis import RedisIdentity
from diptych.sql.description import Entity
from tests.books import AddBook, Base, Book
from tests.catalogue import (
    Held,
    Recorded,
    answered_by,
    catalogue,
    eventually,
    fail_to_apply,
    fence_row,
    keeper_of,
    sees,
    sees_in_redis,
    set_author,
)
from tests.configuration import configured
from tests.servers import free_port

BOOKS = FenceId("test:Books", "1")
HERE = RedisIdentity("a" * 40, "b" * 40)
ROW = FenceRow(
    id=BOOKS,
    tables=frozenset({"books"}),
    incarnation=HERE,
    generation="one",
    ready=True,
    lease_until=100.0,
    building_until=0.0,
    cursor=Snapshot(1, 1),
    passes_started=5,
    passes_completed=5,
    history="h",
    now=99.0,
)
CHANGE = Change(Entity(object, "Book", "books", ("id",), {}), None, {"id": 1}, 1, 1)


OWN = Entry(1, 1, "books", "created", None, '{"id": 1}')
LEFT = Entry(2, 2, "books", "updated", '{"id": 1}', '{"id": 1}')
"""A change of another process, before that of the command ``LATER``."""
LATER = Change(CHANGE.entity, None, {"id": 3}, 3, 3)


class FakeFence:
    """A fence in memory. A read that has been sent answers once ``answering`` is set."""

    def __init__(self, *rows: FenceRow) -> None:
        self.table = {row.id: row for row in rows}
        self.log = [OWN]
        self.reads = 0
        self.since: list[Snapshot] = []
        self.more = False
        self.asked: list[tuple[FenceId, int]] = []
        self.error: Exception | None = None
        self.asking: Exception | None = None
        self.answering = asyncio.Event()
        self.answering.set()

    async def sight(
        self, since: Snapshot, own: Mapping[int, Entry], *, expects_entries: bool = False
    ) -> Sight:
        self.reads += 1
        self.since.append(since)
        if self.error is not None:
            raise self.error
        entries = [entry for entry in self.log if not since.sees(entry.transaction)]
        seen = Sight(dict(self.table), since, self.snapshot, entries, self.more)
        await asyncio.sleep(0)
        await self.answering.wait()
        return seen

    async def has_unseen(self, row: FenceRow, position: int | None) -> bool:
        return any(
            entry.table in row.tables and not row.cursor.sees(entry.transaction)  # type: ignore[union-attr]
            for entry in self.log
            if position is None or entry.position <= position
        )

    @property
    def snapshot(self) -> Snapshot:
        xmax = 1 + max((entry.transaction for entry in self.log), default=0)
        return Snapshot(xmax, xmax)

    def change(self, fence: FenceId = BOOKS, **fields: Any) -> None:
        self.table[fence] = msgspec.structs.replace(self.table[fence], **fields)

    async def ask(self, fence: FenceId, after: int) -> None:
        self.asked.append((fence, after))
        if self.asking is not None:
            raise self.asking


class FakeReadSide:
    """A read side whose scripts succeed or fail as the test says."""

    def __init__(
        self, applies: bool = True, keeps: bool = False, brings: bool = False, looks: bool = True
    ) -> None:
        self.applies = applies
        self.brings = brings
        self.looks = looks
        self.brought: list[list[int]] = []
        self.tells: frozenset[int] = frozenset()
        self.bringing = asyncio.Event()
        self.bringing.set()
        self.keeps = keeps
        self.asked: list[tuple[FenceId, int]] = []
        self.on_apply: Callable[[], None] | None = None

    def apply(
        self, changes: Sequence[Change], targets: Mapping[FenceId, Target]
    ) -> Mapping[FenceId, asyncio.Future[Applied]]:
        positions = frozenset(change.position for change in changes) | self.tells
        return {fence: asyncio.ensure_future(self._apply(positions)) for fence in targets}

    async def _apply(self, positions: frozenset[int]) -> Applied:
        await asyncio.sleep(0)
        if self.on_apply is not None:
            self.on_apply()
        return positions if self.applies else None

    def write_anew(self, fence: FenceId, target: Target) -> asyncio.Future[bool] | None:
        return None

    def can_look(self, fence: FenceId) -> bool:
        return self.looks

    async def bring_in(
        self, fence: FenceId, target: Target, entries: Sequence[Entry], snapshot: Snapshot, *, expected: bool
    ) -> bool:
        self.brought.append([entry.position for entry in entries])
        await self.bringing.wait()
        return self.brings

    def ask(self, after: Mapping[FenceId, int]) -> Collection[FenceId]:
        self.asked += after.items()
        return list(after) if self.keeps else []


def acknowledging(
    fence: FakeFence, read_side: FakeReadSide | None = None, patience_s: float = 5.0
) -> Acknowledger:
    acknowledger = Acknowledger(fence, FenceRows(fence), patience_s)  # type: ignore[arg-type]
    acknowledger.tracker.read_side = read_side
    return acknowledger


async def begun(acknowledger: Acknowledger, *changes: Change) -> asyncio.Task[None]:
    """Begins an acknowledgement, with the targets known before."""
    await acknowledger.prepare()
    ending = acknowledger.ending(changes or (CHANGE,), {"books"})
    return asyncio.create_task(acknowledger.acknowledge(ending))


async def is_held(task: asyncio.Task[None]) -> bool:
    """Returns whether the command still waits after the fence was read some times more."""
    await asyncio.wait([task], timeout=0.2)
    return not task.done()


async def test_what_was_applied_to_the_generation_that_the_fence_shows_is_acknowledged_at_once():
    fence, side = FakeFence(ROW), FakeReadSide()
    await (await begun(acknowledging(fence, side)))
    assert (fence.asked, side.asked) == ([], [])


@pytest.mark.parametrize("side", [FakeReadSide(applies=False), None], ids=["apply failed", "no Redis here"])
async def test_what_was_not_applied_waits_for_a_pass_that_starts_later(side):
    fence = FakeFence(ROW)
    task = await begun(acknowledging(fence, side))
    assert await is_held(task)
    fence.change(passes_started=6)
    assert await is_held(task)
    fence.change(passes_completed=6)
    await task


async def test_a_pass_that_was_under_way_does_not_count():
    """★ Such a pass may have read the log before the commit."""
    fence = FakeFence(msgspec.structs.replace(ROW, passes_started=6))
    task = await begun(acknowledging(fence, FakeReadSide(applies=False)))
    fence.change(passes_completed=6)
    assert await is_held(task)
    fence.change(passes_started=7, passes_completed=7)
    await task


async def test_past_the_lease_nobody_waits():
    fence = FakeFence(msgspec.structs.replace(ROW, now=100.1))
    await (await begun(acknowledging(fence, FakeReadSide(applies=False))))


async def test_who_waits_goes_on_when_the_lease_that_was_promised_then_is_over():
    """A later promise does not count: its pass carries the change."""
    fence = FakeFence(ROW)
    task = await begun(acknowledging(fence, FakeReadSide(applies=False)))
    assert await is_held(task)
    fence.change(now=100.05, lease_until=200.0, passes_started=6)
    await task


async def test_who_waits_while_the_database_is_put_elsewhere_waits_by_its_clock():
    """★ By the new clock the lease promised before may seem to be over."""
    fence = FakeFence(ROW)
    task = await begun(acknowledging(fence, FakeReadSide(applies=False)))
    assert await is_held(task)
    fence.change(history="other", generation="", ready=False, cursor=None, now=500.0, lease_until=502.4)
    assert await is_held(task)
    fence.change(now=502.5)
    await task


async def test_a_moment_before_the_end_of_the_lease_still_waits():
    fence = FakeFence(msgspec.structs.replace(ROW, now=100.0))
    task = await begun(acknowledging(fence, FakeReadSide(applies=False)))
    assert await is_held(task)
    fence.change(now=100.01)
    await task


@pytest.mark.parametrize(
    "other",
    [
        {"generation": "two"},
        {"incarnation": RedisIdentity("c" * 40, "b" * 40)},
        {"incarnation": HERE._replace(replication_id="d" * 40)},
    ],
)
async def test_a_generation_replaced_between_apply_and_fence_read_makes_it_wait(other):
    """★ The new one was filled from SQL, perhaps before the commit."""
    fence, side = FakeFence(ROW), FakeReadSide()
    acknowledger = acknowledging(fence, side)
    await acknowledger.prepare()
    fence.change(**other)
    task = await begun(acknowledger)
    assert await is_held(task)
    fence.change(passes_started=6, passes_completed=6)
    await task


async def test_only_read_models_made_from_the_changed_tables_are_waited_for():
    other = msgspec.structs.replace(ROW, id=FenceId("test:Loans", "1"), tables=frozenset({"loans"}))
    await (await begun(acknowledging(FakeFence(other), FakeReadSide(applies=False))))


async def test_every_declaration_of_a_read_model_is_waited_for():
    """The change was applied to this process's declaration; of the other declaration the process knows nothing."""
    old = msgspec.structs.replace(ROW, id=FenceId("test:Books", "0"), generation="other")
    fence, side = FakeFence(ROW), FakeReadSide()
    acknowledger = acknowledging(fence, side)
    await acknowledger.prepare()
    fence.table[old.id] = old
    task = await begun(acknowledger)
    assert await is_held(task)
    assert fence.asked == [(old.id, 5)]
    fence.change(old.id, passes_started=6, passes_completed=6)
    await task


async def test_the_fence_is_read_after_the_commit_never_joined_to_a_read_that_was_sent_before():
    """★ The read sent before may not see the lease promised meanwhile."""
    fence = FakeFence(msgspec.structs.replace(ROW, lease_until=0.0))
    acknowledger = acknowledging(fence, FakeReadSide(applies=False))
    await acknowledger.prepare()
    fence.answering.clear()
    sent = asyncio.create_task(acknowledger.rows.rows())
    while fence.reads < 2:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)
    fence.change(lease_until=100.0)
    task = asyncio.create_task(acknowledger.acknowledge(acknowledger.ending([CHANGE], {"books"})))
    await asyncio.sleep(0.02)
    fence.answering.set()
    await sent
    assert await is_held(task)
    fence.change(passes_started=6, passes_completed=6)
    await task


async def test_those_who_come_together_share_their_reads_of_the_fence():
    fence = FakeFence(ROW)
    acknowledger = acknowledging(fence, FakeReadSide())
    await acknowledger.prepare()
    before = fence.reads
    await asyncio.gather(*[await begun(acknowledger) for _ in range(50)])
    assert fence.reads - before <= 3


async def test_nobody_is_left_waiting_when_the_reader_is_cut_off():
    fence = FakeFence(ROW)
    acknowledger = acknowledging(fence)
    fence.answering.clear()
    first = asyncio.create_task(acknowledger.rows.rows())
    await eventually(lambda: _has_read(fence), "the fence is being read")
    second = asyncio.create_task(acknowledger.rows.rows())
    await asyncio.sleep(0)
    await acknowledger.close()
    for task in (first, second):
        with pytest.raises(DatabaseUnavailableError):
            await task


async def _has_read(fence: FakeFence) -> bool:
    return fence.reads > 0


async def test_all_who_wait_share_their_reads_of_the_fence():
    fence = FakeFence(ROW)
    acknowledger = acknowledging(fence, FakeReadSide(applies=False))
    tasks = [await begun(acknowledger) for _ in range(50)]
    assert await is_held(tasks[0])
    before = fence.reads
    assert await is_held(tasks[0])
    assert fence.reads - before < 30
    fence.change(passes_started=6, passes_completed=6)
    await asyncio.gather(*tasks)


async def test_a_keeper_of_this_process_that_can_is_asked_else_the_others():
    for keeps in (True, False):
        fence, side = FakeFence(ROW), FakeReadSide(applies=False, keeps=keeps)
        task = await begun(acknowledging(fence, side))
        assert await is_held(task)
        assert side.asked == [(BOOKS, 5)]
        assert fence.asked == ([] if keeps else [(BOOKS, 5)])
        fence.change(passes_started=6, passes_completed=6)
        await task


async def test_the_others_are_asked_once_for_each_pass(monkeypatch):
    """A command before the pass begins is served by the pass too; a later command asks for the next pass."""
    monkeypatch.setattr(waiting, "_ASK_AGAIN_S", 60.0)  # however slow the machine
    fence = FakeFence(ROW)
    acknowledger = acknowledging(fence)
    tasks = [await begun(acknowledger) for _ in range(20)]
    assert await is_held(tasks[0])
    assert fence.asked == [(BOOKS, 5)]
    fence.change(passes_started=6)
    late = [await begun(acknowledger) for _ in range(20)]
    assert await is_held(late[0])
    assert fence.asked == [(BOOKS, 5), (BOOKS, 6)]
    monkeypatch.setattr(waiting, "_ASK_AGAIN_S", 0.0)
    late.append(await begun(acknowledger))
    assert await is_held(late[-1])
    assert fence.asked == [(BOOKS, 5), (BOOKS, 6), (BOOKS, 6)], "the last may have got lost"
    fence.change(passes_completed=6)
    await asyncio.gather(*tasks)
    assert await is_held(late[0])
    fence.change(passes_started=7, passes_completed=7)
    await asyncio.gather(*late)


async def test_a_request_that_did_not_get_away_is_made_again(monkeypatch):
    monkeypatch.setattr(waiting, "_ASK_AGAIN_S", 60.0)
    fence = FakeFence(ROW)
    acknowledger = acknowledging(fence)
    fence.asking = DatabaseUnavailableError("away")
    first = await begun(acknowledger)
    assert await is_held(first)
    fence.asking = None
    second = await begun(acknowledger)
    assert await is_held(second)
    assert fence.asked == [(BOOKS, 5), (BOOKS, 5)]
    fence.change(passes_started=6, passes_completed=6)
    await asyncio.gather(first, second)


async def test_an_apply_that_takes_long_is_left_to_a_pass_as_well():
    fence, side = FakeFence(ROW), FakeReadSide()
    held = Held(side, "_apply")
    task = await begun(acknowledging(fence, side))
    await eventually(lambda: _asked(side), "a pass is asked for")
    fence.change(passes_started=6, passes_completed=6)
    await task
    held.go_on.set()


async def _asked(side: FakeReadSide) -> bool:
    return bool(side.asked)


async def test_who_is_cancelled_while_waiting_is_forgotten_and_the_others_go_on():
    fence = FakeFence(ROW)
    acknowledger = acknowledging(fence, FakeReadSide(applies=False))
    tasks = [await begun(acknowledger) for _ in range(3)]
    assert await is_held(tasks[0])
    tasks[0].cancel()
    fence.change(passes_started=6, passes_completed=6)
    assert [type(e) for e in await asyncio.gather(*tasks, return_exceptions=True)] == [
        asyncio.CancelledError,
        type(None),
        type(None),
    ]


async def test_a_row_that_is_gone_is_not_waited_for():
    fence = FakeFence(ROW)
    task = await begun(acknowledging(fence, FakeReadSide(applies=False)))
    assert await is_held(task)
    del fence.table[BOOKS]
    await task


@pytest.mark.parametrize("waiting", [True, False])
async def test_while_sql_is_away_it_is_told_that_the_change_may_not_be_visible(waiting):
    fence = FakeFence(ROW)
    acknowledger = acknowledging(fence, FakeReadSide(applies=False), patience_s=0.1)
    await acknowledger.prepare()
    if not waiting:
        fence.error = DatabaseUnavailableError("away")
    task = await begun(acknowledger)
    if waiting:
        assert await is_held(task)
        fence.error = DatabaseUnavailableError("away")
    with pytest.raises(DatabaseUnavailableError):
        await task
    # And when it is back, the next one is served again.
    fence.error = None
    task = await begun(acknowledger)
    assert await is_held(task)
    fence.change(passes_started=6, passes_completed=6)
    await task


async def test_an_error_that_nobody_expected_does_not_leave_a_command_waiting_for_ever():
    fence = FakeFence(ROW)
    acknowledger = acknowledging(fence, FakeReadSide(applies=False), patience_s=0.1)
    task = await begun(acknowledger)
    assert await is_held(task)
    fence.error = RuntimeError("of a driver, say")
    await asyncio.wait([task], timeout=2)
    is_over = task.done()
    task.cancel()
    assert is_over


# What a command rests on


def ending(acknowledger: Acknowledger, *changes: Change, **options: Any) -> Ending:
    return acknowledger.ending(changes, {"books"}, **options)


async def acknowledged(acknowledger: Acknowledger, *changes: Change) -> asyncio.Task[None]:
    await acknowledger.prepare()
    return asyncio.create_task(acknowledger.acknowledge(ending(acknowledger, *changes)))


def left_behind(**options: Any) -> tuple[FakeFence, FakeReadSide, Acknowledger]:
    """A killed process has left ``LEFT``; this process's command is ``LATER``, or the earlier ``CHANGE``."""
    fence, side = FakeFence(ROW), FakeReadSide(**options)
    fence.log = [OWN, LEFT, entry_of(LATER)]
    return fence, side, acknowledging(fence, side)


def entry_of(change: Change) -> Entry:
    return Entry(change.position, change.transaction, change.entity.table, change.kind, None, "{}")


async def test_what_another_process_has_left_is_brought_in_first():
    """★ By whichever process, of whichever row."""
    fence, side, acknowledger = left_behind(brings=True)
    side.bringing.clear()
    task = await acknowledged(acknowledger, LATER)
    assert await is_held(task)
    assert side.brought == [[OWN.position, LEFT.position]], "its own change is on its way already"
    assert fence.asked == []
    side.bringing.set()
    await task


async def test_what_cannot_be_brought_in_is_left_to_a_pass():
    fence, _side, acknowledger = left_behind(brings=False)
    task = await acknowledged(acknowledger, LATER)
    assert await is_held(task)
    fence.change(passes_started=6, passes_completed=6)
    await task


async def test_a_command_does_not_wait_for_what_came_after_its_last_change():
    fence, side, acknowledger = left_behind(brings=False)
    await (await acknowledged(acknowledger, CHANGE))
    assert (side.brought, fence.asked) == ([], [])


@pytest.mark.parametrize(("changes", "late"), [((), False), ((CHANGE,), True)])
async def test_one_without_a_change_or_with_a_late_check_waits_for_all_that_is_there(changes, late):
    """★ "There is one already", or "nothing to do", may be the work of a killed command."""
    _fence, side, acknowledger = left_behind(brings=True)
    await acknowledger.prepare()
    await acknowledger.acknowledge(ending(acknowledger, *changes, looks_late=late))
    expected = {OWN.position, LEFT.position, LATER.position} - {change.position for change in changes}
    assert set(side.brought[0]) == expected


async def test_what_is_known_to_be_in_is_neither_listed_nor_brought_again():
    fence, side, acknowledger = left_behind(brings=True)
    await (await acknowledged(acknowledger, LATER))
    await (await acknowledged(acknowledger, LATER))
    assert len(side.brought) == 1
    assert fence.since[-1] == Snapshot(4, 4)


async def test_a_list_that_is_not_all_in_is_listed_again():
    """★ The whole list, not only the changes waited for by the process's own commands."""
    fence, _, acknowledger = left_behind(brings=True)
    await (await acknowledged(acknowledger, CHANGE))  # the rest of the list is after it, and is nowhere
    await acknowledger.rows.rows()
    assert fence.since[-1] == ROW.cursor


async def test_what_a_pass_has_carried_is_in():
    fence, side, acknowledger = left_behind(brings=False)
    fence.change(cursor=Snapshot(3, 3))
    await (await acknowledged(acknowledger, LATER))
    assert side.brought == []


async def test_a_change_that_was_running_when_the_cursor_was_taken_is_not_in():
    fence, side, acknowledger = left_behind(brings=True)
    fence.change(cursor=Snapshot(2, 3, (2,)))
    await (await acknowledged(acknowledger, LATER))
    assert side.brought == [[LEFT.position]]


async def test_in_another_generation_nothing_is_known_to_be_in():
    fence, side, acknowledger = left_behind(brings=True)
    await (await acknowledged(acknowledger, LATER))
    fence.change(generation="two")
    await (await acknowledged(acknowledger, LATER))
    assert len(side.brought) == 2


async def test_when_sql_was_put_back_nothing_is_known_to_be_in():
    fence, side, acknowledger = left_behind(brings=True)
    await (await acknowledged(acknowledger, LATER))
    fence.log = [OWN, LEFT]
    await (await acknowledged(acknowledger))
    assert side.brought[-1] == [OWN.position, LEFT.position]
    fence.log = [OWN, LEFT, entry_of(LATER)]  # another change, at the position of this process's own
    await (await acknowledged(acknowledger))
    assert side.brought[-1] == [LATER.position]


async def test_a_command_of_this_process_that_commits_meanwhile_is_waited_for_and_not_brought_in():
    """Its commit was seen before this process heard of success."""
    fence, side, acknowledger = left_behind(brings=True)
    fence.change(cursor=Snapshot(2, 2))
    await acknowledger.prepare()
    other = ending(acknowledger, Change(CHANGE.entity, None, {"id": 2}, LEFT.position, LEFT.transaction))
    task = await acknowledged(acknowledger, LATER)
    assert not (await asyncio.wait([task], timeout=0.05))[0]
    await acknowledger.acknowledge(other)
    await task
    assert side.brought == []


async def test_a_command_of_this_process_whose_commit_failed_is_like_one_of_another():
    fence, side, acknowledger = left_behind(brings=True)
    fence.change(cursor=Snapshot(2, 2))
    await acknowledger.prepare()
    change = Change(CHANGE.entity, None, {"id": 2}, LEFT.position, LEFT.transaction)
    acknowledger.failed(ending(acknowledger, change))
    await (await acknowledged(acknowledger, LATER))
    assert side.brought == [[LEFT.position]]


async def test_a_read_model_that_cannot_be_looked_at_is_waited_for_only_if_it_may_lack_something():
    fence, _, acknowledger = left_behind(looks=False)
    await acknowledger.prepare()
    for touched, cursor, waits in [
        ({"books"}, Snapshot(2, 2), True),
        ({"books"}, Snapshot(4, 4), False),
        ({"loans"}, Snapshot(2, 2), False),
    ]:
        fence.change(cursor=cursor)
        task = asyncio.create_task(acknowledger.acknowledge(acknowledger.ending((), touched)))
        assert await is_held(task) is waits, (touched, cursor)
        fence.change(passes_started=6, passes_completed=6)
        await task
        fence.change(passes_started=5, passes_completed=5)


@pytest.mark.parametrize("changes", [(), (CHANGE,)])
async def test_under_a_lease_without_a_generation_everybody_waits(changes):
    """★ The database was put elsewhere: the generation still trusted is of a former history, unknown to this log."""
    fence, _, acknowledger = left_behind(brings=True)
    fence.log = []
    fence.change(generation="", ready=False, cursor=None)
    await acknowledger.prepare()
    task = asyncio.create_task(acknowledger.acknowledge(acknowledger.ending(changes, {"loans"})))
    assert await is_held(task)
    fence.change(now=100.1)
    await task


async def test_what_redis_tells_to_be_in_is_not_looked_for():
    """Earlier changes by other processes: the script of the command's own change tells that these are in."""
    _, side, acknowledger = left_behind(brings=False)
    side.tells = frozenset({OWN.position, LEFT.position})
    await (await acknowledged(acknowledger, LATER))
    assert side.brought == []


TAKES = Change(CHANGE.entity, None, {"id": 3}, 3, 3, "1:2:")
KEEPS = Change(
    msgspec.structs.replace(CHANGE.entity, identifying=("id",)), {"id": 3}, {"id": 3}, 3, 3, "1:2:"
)


@pytest.mark.parametrize(
    ("change", "left", "waits"),
    [
        pytest.param(TAKES, LEFT, False, id="another row's columns"),
        pytest.param(TAKES, LEFT._replace(key='{"id": 9}'), True, id="another row's key is free again"),
        pytest.param(TAKES, LEFT._replace(kind="deleted"), True, id="another row is gone"),
        pytest.param(KEEPS, LEFT._replace(kind="deleted"), False, id="which leaves its key alone"),
        pytest.param(TAKES, LEFT._replace(transaction=1), True, id="seen by its transaction"),
    ],
)
async def test_of_what_was_committed_after_it_began_a_command_rests_on_freed_keys_alone(change, left, waits):
    """★ PostgreSQL's snapshot hides the rest; a unique index looks at committed rows."""
    fence, _, acknowledger = left_behind(brings=False)
    fence.log = [left, entry_of(change)]
    fence.change(cursor=Snapshot(1, 1))
    task = await acknowledged(acknowledger, change)
    assert await is_held(task) is waits
    fence.change(passes_started=6, passes_completed=6)
    await task


@pytest.mark.parametrize("change", [TAKES, KEEPS])
async def test_its_own_change_counts_though_its_snapshot_does_not_see_it(change):
    fence, side = FakeFence(ROW), FakeReadSide(applies=False)
    fence.log = [entry_of(change)]
    task = await acknowledged(acknowledging(fence, side), change)
    assert await is_held(task)
    fence.change(passes_started=6, passes_completed=6)
    await task


async def test_too_many_changes_to_look_at_are_left_to_a_pass():
    fence, side, acknowledger = left_behind(brings=True)
    fence.more = True
    task = await acknowledged(acknowledger, LATER)
    assert await is_held(task)
    assert side.brought == []
    fence.change(passes_started=6, passes_completed=6)
    await task


async def test_the_memory_of_own_changes_does_not_grow():
    fence, side = FakeFence(ROW), FakeReadSide()
    acknowledger = acknowledging(fence, side)
    for number in range(2, 300):
        change = Change(CHANGE.entity, None, {"id": number}, number, number)
        fence.log = [entry_of(change)]
        fence.change(cursor=Snapshot(number - 1, number - 1))
        await (await acknowledged(acknowledger, change))
    assert len(acknowledger.rows.tracker.own._by_position) < 10


# With real stores


async def test_what_is_known_is_taken_before_the_commit(sqlite_url, valkey):
    """★ Applied to a generation begun after the commit, a change might go over a later change there."""
    async with catalogue(sqlite_url, valkey.url) as app:
        await app.execute(AddBook("Dune", "first"))
        await sees_in_redis(app, "Dune", "first")
        units, acknowledger = app.orm.side.units, app.orm.side.acknowledger
        former = (await fence_row(app)).generation
        commit = units._commit_transaction

        async def committing(transaction: Any) -> bool:
            is_known = await commit(transaction)
            acknowledger.rows.on_row_changed(
                msgspec.structs.replace(await fence_row(app), generation="later")
            )
            return is_known

        units._commit_transaction = committing  # type: ignore[method-assign]
        applied = Recorded(keeper_of(app).replica, "apply")
        await set_author(app, "Dune", "second")
        assert [arguments[1].generation for arguments, _ in applied.calls] == [former]
        await sees(app, "Dune", "second")


async def test_an_apply_that_fails_waits_for_the_pass_that_carries_it(database_url, valkey):
    async with catalogue(database_url, valkey.url) as app, catalogue(database_url, valkey.url) as other:
        await app.execute(AddBook("Dune", "0"))
        await sees_in_redis(other, "Dune", "0")
        fail_to_apply(app)
        for number in range(1, 10):
            await set_author(app, "Dune", str(number))
            await sees(other, "Dune", str(number))
        await sees_in_redis(other, "Dune", "9")


@pytest.mark.parametrize("kind", ["without Redis", "cut off from Redis", "ORMService alone"])
async def test_who_writes_beside_an_application_is_acknowledged_only_once_that_shows_it(
    database_url, valkey, kind
):
    async with catalogue(database_url, valkey.url) as app:
        await app.execute(AddBook("Dune", "0"))
        await sees_in_redis(app, "Dune", "0")
        if kind == "ORMService alone":
            async with ORMService(ConfigService(environ={}, database_url=database_url)) as orm:
                await orm.init(models=Base)
                for number in range(1, 8):
                    await orm.update(Book, "Dune", "title", author=str(number))
                    await sees(app, "Dune", str(number))
        else:
            url = None if kind == "without Redis" else f"redis://127.0.0.1:{free_port()}/0"
            async with catalogue(database_url, url) as beside:
                for number in range(1, 8):
                    await set_author(beside, "Dune", str(number))
                    await sees(app, "Dune", str(number))
        await sees_in_redis(app, "Dune", "7")


async def test_a_process_alone_without_redis_waits_for_nobody(database_url):
    async with catalogue(database_url) as app:
        held = Recorded(app.orm.side.acknowledger._passes, "wait")
        await app.execute(AddBook("Dune", "x"))
        assert held.calls == []


class Chain(DeclarativeBase):
    pass


class Shelf(Chain):
    __tablename__ = "shelves"

    id: Mapped[int] = mapped_column(primary_key=True)


class Box(Chain):
    __tablename__ = "boxes"

    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int] = mapped_column(sa.ForeignKey("shelves.id", ondelete="CASCADE"), index=True)


class Toy(Chain):
    __tablename__ = "toys"

    id: Mapped[int] = mapped_column(primary_key=True)
    box_id: Mapped[int] = mapped_column(sa.ForeignKey("boxes.id", ondelete="CASCADE"), index=True)


class ToyDocument(msgspec.Struct):
    id: int


class Toys(ReadModel[Toy]):
    key = Toy.id
    document = ToyDocument


@pytest.mark.parametrize("kind", ["without Redis", "cut off from Redis", "ORMService alone"])
async def test_rows_that_a_cascade_of_a_cascade_deletes_are_gone_at_the_acknowledgement(
    database_url, valkey, kind
):
    """★ Foreign keys lead from table to table; the command names the first, and the next one refers to it."""
    made: list[Toys] = []

    class Handlers:
        def __init__(self, toys: Toys) -> None:
            made.append(toys)

    def application(redis_url: str | None) -> Diptych:
        # A process beside waits for the next pass, up to two thirds of a lease later on SQLite.
        config = configured(database_url, redis_url, lease_ms=6_000)
        return Diptych(config, models=Chain, handlers=[Handlers], read_models=[Toys])

    async with application(valkey.url) as app:
        toys = made.pop()
        await app.orm.create(Shelf, id=1)
        await app.orm.create(Box, id=1, shelf_id=1)
        await app.orm.create(Toy, id=1, box_id=1)
        await app.catch_up()
        await answered_by(app, "redis")
        assert await toys.get(1)
        if kind == "ORMService alone":
            async with ORMService(ConfigService(environ={}, database_url=database_url)) as orm:
                await orm.init(models=Chain)
                await orm.delete(Shelf, 1)
                assert not await toys.get(1)
        else:
            url = None if kind == "without Redis" else f"redis://127.0.0.1:{free_port()}/0"
            async with application(url) as beside:
                await beside.orm.delete(Shelf, 1)
                assert not await toys.get(1)
