"""The fence on both databases: the conditions of each statement, and the changes a pass reads from the log."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from diptych import DatabaseBusyError, DatabaseUnavailableError, ORMService, WiringError
from diptych.fence.contract import FenceId, FenceRow
from diptych.fence.fence import Fence
from diptych.fence.statements import FENCE
from diptych.log import EVERYTHING, NOTHING, Change, Entry, Snapshot
from diptych.log.reading import LOG_STATEMENTS, MOST_ENTRIES
from diptych.log.table import EXPRESSIONS, LOG
from diptych.redis import RedisIdentity
from diptych.sql.sqlite.database import SqliteDatabase
from diptych.write.unit_of_work import new_context
from tests.conformance.conftest import config
from tests.conformance.tables import Base, Book, Line, Shelf
from tests.servers import PostgresServer

ID = FenceId("test:Books", "declaration")
REDIS = RedisIdentity("run", "replication")
OTHER_REDIS = RedisIdentity("run 2", "replication 2")
TABLES = ["books"]


def fence_over(orm: ORMService, *models: type) -> Fence:
    entities = [orm.side.entities.of(model) for model in models or (Book, Shelf, Line)]
    return Fence(orm.database, {entity.table.fullname: entity for entity in entities}.get)


@pytest.fixture
async def fence(orm: ORMService) -> Fence:
    return fence_over(orm)


async def stored(orm: ORMService, fence: FenceId = ID, **columns: Any) -> FenceRow:
    """Makes a row with these columns; times are seconds from now. Returns the row as read."""
    values: dict[str, Any] = {"tables": '["books"]', "database": "", "generation": "g", "ready": True}
    values |= {"run_id": REDIS.run_id, "replication_id": REDIS.replication_id, "cursor_stamp": 0}
    values |= dict.fromkeys(("passes_started", "passes_completed"), 5)
    values |= dict.fromkeys(("lease_until", "building_until"), -1)
    values |= named(fence) | columns
    now = EXPRESSIONS[orm.database.name].now
    for name in ("lease_until", "building_until"):
        values[name] = now + values[name]
    async with orm.database.writer.begin() as connection:
        await connection.execute(sa.delete(FENCE).where(FENCE.c.read_model == fence.read_model))
        await connection.execute(sa.insert(FENCE).values(**values))
    return await row_of(orm, fence)


def named(fence: FenceId) -> dict[str, str]:
    """Returns the key of a row as columns."""
    return {"read_model": fence.read_model, "declaration": fence.fingerprint}


async def row_of(orm: ORMService, fence: FenceId = ID) -> FenceRow:
    rows = {row.id: row for row in await fence_over(orm).rows()}
    return rows[fence]


async def snapshot_of(orm: ORMService) -> Snapshot:
    """Returns the snapshot of this moment."""
    async with orm.database.reader.connect() as connection:
        text = await connection.scalar(sa.select(EXPRESSIONS[orm.database.name].snapshot))
    return Snapshot.parse(text)


def same(row: FenceRow, other: FenceRow) -> bool:
    """Returns whether two rows are equal, but for the time of reading."""
    return msgspec.structs.replace(row, now=0) == msgspec.structs.replace(other, now=0)


# The rows


async def test_a_new_row_has_no_generation_and_a_lease_that_is_over(fence: Fence):
    await fence.register(ID, ["shelf_table", "books", "books"])
    (row,) = await fence.rows()
    assert row.now > 1.7e9
    assert msgspec.structs.replace(row, now=0) == FenceRow(
        id=ID,
        tables=frozenset({"books", "shelf_table"}),
        incarnation=RedisIdentity("", ""),
        generation="",
        ready=False,
        lease_until=0,
        building_until=0,
        cursor=None,
        passes_started=0,
        passes_completed=0,
        history=row.history,
        now=0,
    )


async def test_a_row_that_is_there_is_not_touched(orm: ORMService, fence: Fence):
    before = await stored(orm, cursor="3:7:4,5", lease_until=5)
    await fence.register(ID, ["shelf_table"])
    assert same(await row_of(orm), before)
    assert before.cursor == Snapshot(3, 7, (4, 5))


async def test_two_declarations_of_a_read_model_have_a_row_each(fence: Fence):
    others = FenceId(ID.read_model, "other"), FenceId("test:Shelves", ID.fingerprint)
    for each in (ID, *others):
        await fence.register(each, TABLES)
    assert {row.id for row in await fence.rows()} == {ID, *others}


async def test_what_is_not_committed_is_not_seen(orm: ORMService, fence: Fence):
    before = await stored(orm)
    async with orm.database.writer.begin() as connection:
        await connection.execute(sa.update(FENCE).values(generation="not committed"))
        assert same(await row_of(orm), before)
        await connection.rollback()


async def test_the_clock_is_that_of_sql_and_goes_on(orm: ORMService, fence: Fence):
    row = await stored(orm)
    assert abs(time.time() - row.now) < 5
    await asyncio.sleep(0.02)
    assert 0.01 < (await row_of(orm)).now - row.now < 5


# promise


async def test_a_promise_is_for_at_least_the_lease_and_numbers_the_pass(orm: ORMService, fence: Fence):
    row = await stored(orm)
    promised = await fence.promise(row, 2.2, due_s=1)
    assert promised is not None
    assert row.now + 2.2 <= promised.lease_until <= promised.now + 2.2
    assert promised.passes_started == 6
    assert same(promised, await row_of(orm))
    changed = {"lease_until": promised.lease_until, "passes_started": 6}
    assert same(promised, msgspec.structs.replace(row, **changed))


async def test_a_promise_never_shortens_one_that_stands(orm: ORMService, fence: Fence):
    row = await stored(orm, lease_until=100)
    promised = await fence.promise(row, 2, due_s=None)
    assert promised is not None
    assert promised.lease_until == row.lease_until


@pytest.mark.parametrize("due_s", [None, 10])
@pytest.mark.parametrize(
    "changed",
    [{"run_id": "x"}, {"replication_id": "x"}, {"generation": "x"}, {"ready": False}],
)
async def test_nothing_is_promised_for_a_row_that_has_changed(
    orm: ORMService, fence: Fence, changed: dict[str, Any], due_s: float | None
):
    row = await stored(orm)
    before = await stored(orm, **changed)
    assert await fence.promise(row, 2, due_s) is None
    assert same(await row_of(orm), before)


async def test_a_pass_is_due_when_less_than_that_is_left_of_the_lease(orm: ORMService, fence: Fence):
    row = await stored(orm, lease_until=10)
    assert await fence.promise(row, 2, due_s=9) is None
    assert same(await row_of(orm), row)
    assert await fence.promise(msgspec.structs.replace(row, passes_started=0), 2, due_s=11) is not None


async def test_one_that_is_asked_for_is_made_unless_another_began_meanwhile(orm: ORMService, fence: Fence):
    row = await stored(orm, lease_until=10)
    assert await fence.promise(row, 2, due_s=None) is not None
    before = await row_of(orm)
    assert await fence.promise(row, 2, due_s=None) is None
    assert same(await row_of(orm), before)
    assert await fence.promise(before, 2, due_s=None) is not None


async def test_a_promise_is_of_one_row_alone(orm: ORMService, fence: Fence):
    others = FenceId(ID.read_model, "other"), FenceId("test:Shelves", ID.fingerprint)
    row = await stored(orm)
    async with orm.database.writer.begin() as connection:
        stored_row = (await connection.execute(sa.select(FENCE))).mappings().one()
        for other in others:
            await connection.execute(sa.insert(FENCE).values({**stored_row, **named(other)}))
    before = [await row_of(orm, other) for other in others]
    promised = await fence.promise(row, 2, due_s=None)
    assert promised is not None
    assert await fence.complete(promised, Snapshot(1, 1))
    assert await fence.keep_building(row, 0)
    await fence.begin_rebuild(row, "h", building_s=1)
    assert await fence.move(row, REDIS, "h", building_s=1, cursor=Snapshot(1, 1)) is not None
    for other, its in zip(others, before, strict=True):
        assert same(await row_of(orm, other), its)


async def test_who_is_at_work_is_left_alone_until_it_gives_no_sign_any_more(orm: ORMService, fence: Fence):
    """Else every keeper would read and write the same backlog."""
    row = await stored(orm)
    claimed = await fence.claim(row, 5)
    assert claimed is not None
    assert claimed.now + 4 < claimed.building_until <= claimed.now + 5
    assert await fence.claim(row, 5) is None
    for due_s in (None, 9):
        assert await fence.promise(row, 2, due_s) is None
    assert await fence.keep_building(row, 0)
    again = await fence.claim(row, 5)
    assert again is not None
    assert await fence.promise(again, 2, None, at_work=True) is not None


@pytest.mark.parametrize(
    "changed",
    [{"lease_until": 5}, {"building_until": 5}, {"generation": "x"}, {"ready": False}, {"run_id": "x"}],
)
async def test_work_is_claimed_only_while_nobody_promises_or_is_at_it(
    orm: ORMService, fence: Fence, changed: dict[str, Any]
):
    row = await stored(orm)
    before = await stored(orm, **changed)
    assert await fence.claim(row, 5) is None
    assert same(await row_of(orm), before)


# Races


async def raced(
    orm: ORMService, calls: Collection[Callable[[Fence], Awaitable[Any]]], between: Any = None
) -> list[Any]:
    """Returns the results of calls, each over connections of its own, after all had to wait for a writer.

    ``between`` is a statement of that writer.
    """
    url = orm.database.writer.url.render_as_string(hide_password=False)
    others = [ORMService(config(url)) for _ in calls]
    for other in others:
        await other.init()
        await fence_over(other).rows()
    async with orm.database.writer.begin() as connection:
        await connection.execute(sa.update(FENCE).values(tables=FENCE.c.tables))
        racing = [
            asyncio.ensure_future(call(fence_over(other))) for call, other in zip(calls, others, strict=True)
        ]
        done, _ = await asyncio.wait(racing, timeout=0.2)
        assert not done
        if between is not None:
            await connection.execute(between)
    results = await asyncio.gather(*racing)
    for other in others:
        await other.close()
    return results


@pytest.mark.parametrize("due_s", [None, 1])
async def test_of_two_promises_at_once_one_wins(orm: ORMService, fence: Fence, due_s: float | None):
    row = await stored(orm)
    results = await raced(orm, [lambda f: f.promise(row, 2, due_s)] * 2)
    assert sorted(result is None for result in results) == [False, True]
    assert (await row_of(orm)).passes_started == 6


async def test_of_two_moves_at_once_one_wins(orm: ORMService, fence: Fence):
    row = await stored(orm)
    results = await raced(
        orm,
        [
            lambda f: f.move(row, OTHER_REDIS, "g 1", building_s=5),
            lambda f: f.move(row, OTHER_REDIS, "g 2", building_s=5),
        ],
    )
    (won,) = [result for result in results if result is not None]
    assert same(await row_of(orm), won)


async def test_a_promise_or_a_move_that_had_to_wait_judges_the_row_anew(orm: ORMService, fence: Fence):
    """READ COMMITTED; and the time of SQL's clock is that after the wait."""
    row = await stored(orm)
    longer = sa.update(FENCE).values(lease_until=FENCE.c.lease_until + 100)
    results = await raced(
        orm,
        [
            lambda f: f.promise(row, 2, 1),
            lambda f: f.move(row, REDIS, "h", building_s=5),
        ],
        longer,
    )
    assert results == [None, None]
    row = await stored(orm)
    started = time.time()
    (waited,) = await raced(orm, [lambda f: f.promise(row, 2, None)])
    assert waited is not None
    assert min(waited.now, waited.lease_until - 2) > started + 0.2


# complete


async def test_a_pass_that_is_done_brings_cursor_and_number_forward(orm: ORMService, fence: Fence):
    row = await stored(orm, ready=False)
    promised = await fence.promise(row, 2, due_s=None)
    assert promised is not None
    assert await fence.complete(promised, Snapshot(3, 7, (4, 5)))
    done = {"passes_completed": 6, "cursor": Snapshot(3, 7, (4, 5))}
    assert same(await row_of(orm), msgspec.structs.replace(promised, **done))
    assert await fence.complete(promised, Snapshot(3, 7, (4, 5)), ready=True)
    assert (await row_of(orm)).ready
    assert await fence.complete(promised, Snapshot(3, 7, (4, 5)))
    assert (await row_of(orm)).ready


@pytest.mark.parametrize(
    ("stored_cursor", "given", "wins"),
    [
        (Snapshot(3, 7), Snapshot(3, 8), True),
        (Snapshot(3, 8), Snapshot(3, 7), False),
        (Snapshot(3, 8, (3, 4)), Snapshot(4, 8, (4,)), True),
        (Snapshot(4, 8, (4,)), Snapshot(3, 8, (3, 4)), False),
        (Snapshot(9, 9), Snapshot(10, 10), True),
        (Snapshot(2**40, 2**40), Snapshot(2**40 + 1, 2**40 + 1), True),
        (None, Snapshot(1, 1), True),
    ],
)
async def test_the_cursor_never_goes_back(
    orm: ORMService, fence: Fence, stored_cursor: Snapshot | None, given: Snapshot, wins: bool
):
    held: dict[str, Any] = {}
    if stored_cursor is not None:
        held = {"cursor": str(stored_cursor), "cursor_stamp": stored_cursor.stamp}
    row = await stored(orm, **held)
    assert await fence.complete(row, given)
    expected = given if wins else stored_cursor
    assert expected is not None
    assert (await row_of(orm)).cursor == expected
    assert await stamp_of(orm) == expected.stamp


async def test_the_number_of_completed_passes_never_goes_back(orm: ORMService, fence: Fence):
    row = await stored(orm, passes_started=9, passes_completed=8)
    for number, expected in [(7, 8), (9, 9), (8, 9)]:
        assert await fence.complete(msgspec.structs.replace(row, passes_started=number), Snapshot(1, 1))
        assert (await row_of(orm)).passes_completed == expected


@pytest.mark.parametrize("changed", [{"run_id": "x"}, {"replication_id": "x"}, {"generation": "x"}])
async def test_a_pass_over_another_generation_or_redis_completes_nothing(
    orm: ORMService, fence: Fence, changed: dict[str, Any]
):
    row = await stored(orm, passes_started=9)
    before = await stored(orm, ready=False, **changed)
    assert not await fence.complete(row, Snapshot(9, 9), ready=True)
    assert same(await row_of(orm), before)


# move


async def test_a_move_begins_a_generation_with_the_cursor_of_its_moment(orm: ORMService, fence: Fence):
    for title in "TU":
        await orm.create(Book, title=title, author="A")
    row = await stored(orm, cursor="900:900:", cursor_stamp=Snapshot(900, 900).stamp)
    before = await snapshot_of(orm)
    moved = await fence.move(row, OTHER_REDIS, "g 2", building_s=5)
    after = await snapshot_of(orm)
    assert moved is not None
    assert same(moved, await row_of(orm))
    assert moved.cursor is not None
    assert before.stamp <= moved.cursor.stamp <= after.stamp
    assert await stamp_of(orm) == moved.cursor.stamp
    assert row.now + 5 <= moved.building_until <= moved.now + 5
    expected = {"incarnation": OTHER_REDIS, "generation": "g 2", "ready": False}
    expected |= {"cursor": moved.cursor, "building_until": moved.building_until}
    assert same(moved, msgspec.structs.replace(row, **expected))
    assert await fence.complete(moved, after)
    assert (await row_of(orm)).cursor == after


async def stamp_of(orm: ORMService) -> int:
    async with orm.database.reader.connect() as connection:
        return int((await connection.execute(sa.select(FENCE.c.cursor_stamp))).scalar_one())


async def test_the_cursor_of_a_move_has_the_transactions_that_are_open(postgres_url: str):
    async with ORMService(config(postgres_url)) as orm:
        await orm.init(models=Base)
        row, fence = await stored(orm), fence_over(orm)
        async with open_transaction(orm) as first, open_transaction(orm) as second:
            await orm.create(Book, title="T", author="A")
            moved = await fence.move(row, REDIS, "g 2", building_s=5)
            assert moved is not None
            assert moved.cursor is not None
            assert {first, second} <= set(moved.cursor.running)
            assert await stamp_of(orm) == moved.cursor.stamp


@pytest.mark.parametrize("changed", [{"generation": "x"}, {"lease_until": 5}, {"building_until": 5}])
async def test_nothing_is_moved_under_a_lease_a_builder_or_another_generation(
    orm: ORMService, fence: Fence, changed: dict[str, Any]
):
    row = await stored(orm)
    async with orm.database.writer.begin() as connection:
        await connection.execute(sa.delete(FENCE))
    await stored(orm, **changed)
    (before,) = await fence.rows()
    assert await fence.move(row, REDIS, "h", building_s=5) is None
    (after,) = await fence.rows()
    assert same(after, before)


async def test_a_planned_move_need_not_wait_for_the_lease(orm: ORMService, fence: Fence):
    row = await stored(orm, lease_until=60)
    cursor = Snapshot(3, 7, (4, 5))
    await fence.begin_rebuild(row, "h", building_s=5)
    moved = await fence.move(row, REDIS, "h", building_s=5, cursor=cursor)
    assert moved is not None
    assert (moved.cursor, moved.generation, moved.ready) == (cursor, "h", False)
    assert moved.lease_until == row.lease_until
    assert await stamp_of(orm) == cursor.stamp
    assert [row.id for row in await fence.rows()] == [ID], "the rebuild's row has given it its place"


@pytest.mark.parametrize(
    "changed",
    [
        *({"generation": "x"}, {"ready": False}),
        *({"run_id": "x"}, {"replication_id": "x"}),
    ],
)
async def test_a_planned_move_is_off_when_anything_else_has_changed(
    orm: ORMService, fence: Fence, changed: dict[str, Any]
):
    row = await stored(orm)
    before = await stored(orm, **changed)
    beside = await fence.begin_rebuild(row, "h", building_s=5)
    assert await fence.move(row, REDIS, "h", building_s=5, cursor=Snapshot(1, 1)) is None
    assert same(await row_of(orm), before)
    assert same(await row_of(orm, beside.id), beside), "nor is the rebuild's row gone"


async def test_the_row_of_a_rebuild_has_a_cursor_and_promises_nothing(orm: ORMService, fence: Fence):
    row = await stored(orm, lease_until=60)
    before = await snapshot_of(orm)
    beside = await fence.begin_rebuild(row, "h", building_s=5)
    after = await snapshot_of(orm)
    assert beside.id != row.id
    assert beside.id.served == row.id == row.id.served
    assert (beside.generation, beside.ready, beside.lease_until) == ("h", False, 0)
    assert (beside.incarnation, beside.tables) == (row.incarnation, row.tables)
    assert row.now + 5 <= beside.building_until <= beside.now + 5
    assert beside.cursor is not None
    assert before.stamp <= beside.cursor.stamp <= after.stamp
    assert await fence.keep_building(beside, 9)
    assert same(await row_of(orm), row)
    await fence.end_rebuild(beside)
    assert same((await fence.rows())[0], row)


async def test_a_planned_move_is_off_when_the_rebuild_was_given_up(orm: ORMService, fence: Fence):
    """The log is not kept for its cursor any more."""
    row = await stored(orm)
    for row_is_gone in (False, True):
        beside = await fence.begin_rebuild(row, "h", building_s=5)
        async with orm.database.writer.begin() as connection:
            its_row = FENCE.c.declaration == beside.id.fingerprint
            closed = sa.update(FENCE).where(its_row).values(generation="", cursor=None)
            await connection.execute(sa.delete(FENCE).where(its_row) if row_is_gone else closed)
        assert not await fence.keep_building(beside, 5)
        assert await fence.move(row, REDIS, "h", building_s=5, cursor=Snapshot(1, 1)) is None
        assert same(await row_of(orm), row)
        await fence.end_rebuild(beside)
        assert len(await fence.rows()) == 1


# keep_building, forget


async def test_a_builder_says_that_it_is_still_at_it(orm: ORMService, fence: Fence):
    row = await stored(orm)
    assert await fence.keep_building(row, 5)
    after = await row_of(orm)
    assert row.now + 5 <= after.building_until <= after.now + 5
    assert await fence.keep_building(row, 0)
    assert (await row_of(orm)).building_until <= (await row_of(orm)).now
    before = await stored(orm, generation="x")
    assert not await fence.keep_building(row, 5)
    assert same(await row_of(orm), before)


async def test_a_row_that_nobody_keeps_is_forgotten(orm: ORMService, fence: Fence):
    row = await stored(orm)
    assert await fence.forget(row)
    assert await fence.rows() == []
    assert not await fence.forget(row)


@pytest.mark.parametrize(
    "changed",
    [{"lease_until": 5}, {"lease_until": -0.5}, {"building_until": 5}, {"generation": "x"}],
)
async def test_a_row_that_is_kept_is_not_forgotten(orm: ORMService, fence: Fence, changed: dict[str, Any]):
    row = await stored(orm, lease_until=-10)
    before = await stored(orm, **{"lease_until": -10} | changed)
    if changed != {"lease_until": -0.5}:
        row = msgspec.structs.replace(row, lease_until=before.lease_until)
    assert not await fence.forget(row)
    assert same(await row_of(orm), before)


# Reading the log


async def read(
    fence: Fence, cursor: Snapshot, tables: Collection[str] = TABLES
) -> tuple[list[Any], Snapshot]:
    """Returns the titles of the changes since the cursor, and the next cursor."""
    part = await fence.changes(tables, cursor, 1000)
    assert not part.more
    return [change.image.get("title") for change in part.changes], part.snapshot


class Opened:
    """A command kept open after its changes."""

    def __init__(self, orm: ORMService, *titles: str) -> None:
        self._orm, self._titles = orm, titles
        self._changed, self._go_on = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(orm.side.units.run(self._work, new_context()))

    async def _work(self, _unit: object) -> None:
        for title in self._titles:
            await self._orm.create(Book, title=title, author="A")
        self._changed.set()
        await self._go_on.wait()

    async def changed(self) -> Opened:
        await self._changed.wait()
        return self

    async def commit(self) -> None:
        self._go_on.set()
        await self._task


class open_transaction:  # noqa: N801
    """A foreign transaction with changes, still open."""

    def __init__(self, orm: ORMService) -> None:
        self._connection = orm.database.writer.connect()

    async def __aenter__(self) -> int:
        await self._connection.start()
        return int(
            (await self._connection.execute(sa.text("SELECT pg_current_xact_id()::text"))).scalar_one()
        )

    async def __aexit__(self, *_error: object) -> None:
        await self._connection.close()


async def test_a_pass_reads_what_its_cursor_has_not_seen_and_only_once(orm: ORMService, fence: Fence):
    cursor = await snapshot_of(orm)
    assert await read(fence, cursor) == ([], cursor)
    await orm.create(Book, title="T", author="A")
    await orm.create(Book, title="U", author="A")
    titles, cursor = await read(fence, cursor)
    assert titles == ["T", "U"]
    await orm.create(Book, title="V", author="A")
    titles, cursor = await read(fence, cursor)
    assert titles == ["V"]
    assert await read(fence, cursor) == ([], await snapshot_of(orm))


async def test_changes_read_from_the_log_are_those_that_were_made(orm: ORMService, fence: Fence):
    cursor = await snapshot_of(orm)
    made: list[Change] = []

    async def work(unit: Any) -> None:
        await orm.create(Book, title="T", author="A", published_date="2024-01-01")
        await orm.update(Book, 1, title="U")
        await orm.delete(Book, 1)
        made.extend(unit.changes)

    await orm.side.units.run(work, new_context())
    part = await fence.changes(TABLES, cursor, 10)
    assert [change.kind for change in part.changes] == ["created", "updated", "deleted"]
    for change, original in zip(part.changes, made, strict=True):
        assert change.entity is original.entity
        assert change.entity.table == "books"
        assert (change.position, change.transaction) == (original.position, original.transaction)
        assert change.after == original.after
    assert [change.before for change in part.changes] == [
        None,
        {"id": 1, "title": "T", "isbn": None},
        made[2].before,
    ]
    assert part.snapshot.xmax > made[0].transaction >= cursor.xmax


async def test_what_is_left_out_of_a_reading_counts_unless_a_row_has_left_its_address(
    orm: ORMService, fence: Fence
):
    _, cursor = await read(fence, NOTHING)
    made: list[Change] = []

    async def work(unit: Any) -> None:
        await orm.create(Book, id=1, title="T", author="A")
        await orm.update(Book, 1, author="B")
        await orm.update(Book, 1, title="U")
        await orm.delete(Book, 1)
        made.extend(unit.changes)

    await orm.side.units.run(work, new_context())
    part = await fence.changes(TABLES, cursor, 10, skip={change.position for change in made})
    assert [change.position for change in part.changes] == [change.position for change in made[2:]]
    assert (part.skipped, part.last, part.more) == (2, made[-1].position, False)
    first = await fence.changes(TABLES, cursor, 1, skip={made[0].position})
    assert (first.changes, first.skipped, first.last, first.more) == ([], 1, made[0].position, True)
    following = await fence.changes(TABLES, cursor, 1, first)
    assert [change.position for change in following.changes] == [made[1].position]


async def test_a_sight_lists_the_changes_of_others_and_takes_ones_own_for_granted(
    orm: ORMService, fence: Fence
):
    """Again and again, in either of the two ways of reading."""
    await stored(orm)
    since = (await fence.sight(EVERYTHING)).snapshot
    for number in range(3):
        made: list[Change] = []

        async def work(unit: Any, number: int = number, made: list[Change] = made) -> None:
            await orm.create(Book, title=f"mine {number}", author="A")
            await orm.create(Book, title=f"mine too {number}", author="A")
            made.extend(unit.changes)

        await orm.side.units.run(work, new_context())
        own: dict[int, list[Entry]] = {}
        for change in made:
            entry = Entry(change.position, change.transaction, "books", change.kind, None, "")
            own.setdefault(change.transaction, []).append(entry)
        positions = [change.position for change in made]
        sight = await fence.sight(since, own)
        assert sorted(entry.position for entry in sight.entries) == positions
        assert all(sight.snapshot.sees(entry.transaction) for entry in sight.entries)
        await orm.create(Book, title=f"not mine {number}", author="A")
        sight = await fence.sight(since, own)
        *mine, other = sorted(sight.entries, key=lambda entry: entry.position)
        assert [entry.position for entry in mine] == positions
        assert other.position not in positions
        assert other.key
        since = sight.snapshot
    assert not (await fence.sight(since, {})).entries


async def test_a_sight_lists_what_was_open_at_the_time_of_the_one_before(postgres_url: str):
    async with ORMService(config(postgres_url)) as orm:
        await orm.init(models=Base)
        fence = fence_over(orm, Book)
        await stored(orm)
        opened = await Opened(orm, "T").changed()
        since = (await fence.sight(EVERYTHING)).snapshot
        await orm.create(Book, title="U", author="A")
        later = await fence.sight(since)
        assert len(later.entries) == 1
        await opened.commit()
        assert len((await fence.sight(since)).entries) == 2
        assert len((await fence.sight(later.snapshot)).entries) == 1


async def test_a_sight_that_could_not_read_all_says_so_whatever_of_it_is_left_out(postgres_url: str):
    """★ Entries committed between the two statements are left out, and may have taken the place of seen entries."""
    async with ORMService(config(postgres_url)) as orm:
        await orm.init(models=Base)
        fence = fence_over(orm, Book)
        await stored(orm)
        await orm.create(Book, title="T", author="A")
        since = (await fence.sight(EVERYTHING)).snapshot
        names = [column.name for column in LOG.columns if column.name not in ("position", "transaction")]
        async with orm.database.writer.connect() as big:
            many = sa.select(
                *(LOG.c[name] for name in names), sa.func.generate_series(1, MOST_ENTRIES)
            ).subquery()
            await big.execute(sa.insert(LOG).from_select(names, sa.select(*(many.c[name] for name in names))))
            for title in "UV":
                await orm.create(Book, title=title, author="A")
            read = fence._read

            async def and_then_committed(*arguments: Any) -> Any:
                found = await read(*arguments)
                await big.commit()
                return found

            fence._read = and_then_committed  # type: ignore[method-assign, assignment]
            sight = await fence.sight(since)
        assert sight.more or len(sight.entries) == 2


@pytest.mark.parametrize(
    ("earlier", "later", "seen"),
    [
        (Snapshot(5, 5), Snapshot(5, 5), []),
        (Snapshot(5, 5), Snapshot(8, 8), [5, 6, 7]),
        (Snapshot(3, 6, (3, 5)), Snapshot(5, 9, (5, 7)), [3, 6, 8]),
        (EVERYTHING, Snapshot(8, 8), []),
        (Snapshot(1, 1), Snapshot(12, 12), None),
    ],
)
def test_which_transactions_a_snapshot_sees_that_an_earlier_one_did_not(
    earlier: Snapshot, later: Snapshot, seen: list[int] | None
):
    assert later.seen_since(earlier, 10) == seen


async def test_positions_and_transactions_are_those_of_the_log(orm: ORMService):
    made: list[Change] = []

    async def work(unit: Any) -> None:
        for title in "TU":
            await orm.create(Book, title=title, author="A")
        made.extend(unit.changes)

    await orm.side.units.run(work, new_context())
    async with orm.database.reader.connect() as connection:
        log = (await connection.execute(sa.text('SELECT position, "transaction" FROM diptych_log'))).all()
    if orm.database.name == "sqlite":
        assert [(change.position, change.transaction) for change in made] == [(1, 1), (2, 2)]
        assert [row[1] for row in log] == [None, None]
    else:
        assert [(change.position, change.transaction) for change in made] == [(p, int(t)) for p, t in log]
        assert made[0].transaction == made[1].transaction > 0


async def test_only_the_tables_asked_for_are_read(orm: ORMService, fence: Fence):
    cursor = await snapshot_of(orm)
    await orm.create(Book, title="T", author="A")
    await orm.create(Line, order_number="a", position=1, product="P")
    assert (await read(fence, cursor))[0] == ["T"]
    assert len((await read(fence, cursor, ["books", "order_lines"]))[0]) == 2
    assert (await read(fence, cursor, []))[0] == []


async def test_a_table_that_this_process_does_not_know_is_refused(orm: ORMService):
    """Were its changes left out, the cursor would go past the changes."""
    fence = fence_over(orm, Line)
    cursor = await snapshot_of(orm)
    with pytest.raises(WiringError, match="no mapped class of this process has the table books"):
        await fence.changes(["books", "order_lines"], cursor, 1)


async def test_a_part_is_followed_by_the_rest_of_the_same_snapshot(orm: ORMService, fence: Fence):
    cursor = await snapshot_of(orm)
    for title in "abcde":
        await orm.create(Book, title=title, author="A")
    part = await fence.changes(TABLES, cursor, 2)
    await orm.create(Book, title="later", author="A")
    parts = [part]
    while part.more:
        part = await fence.changes(TABLES, cursor, 2, part)
        parts.append(part)
    assert [[change.image["title"] for change in part.changes] for part in parts] == [
        ["a", "b"],
        ["c", "d"],
        ["e"],
    ]
    assert {part.snapshot for part in parts} == {parts[0].snapshot}
    assert (await read(fence, part.snapshot))[0] == ["later"]


async def test_a_part_that_is_exactly_full_has_no_more(orm: ORMService, fence: Fence):
    cursor = await snapshot_of(orm)
    for title in "ab":
        await orm.create(Book, title=title, author="A")
    assert not (await fence.changes(TABLES, cursor, 2)).more
    assert (await fence.changes(TABLES, cursor, 1)).more


async def test_a_log_whose_last_rows_are_deleted_does_not_turn_the_snapshot_back(
    orm: ORMService, fence: Fence
):
    for title in "ab":
        await orm.create(Book, title=title, author="A")
    before = await snapshot_of(orm)
    async with orm.database.writer.begin() as connection:
        await connection.execute(sa.text("DELETE FROM diptych_log"))
    after = await snapshot_of(orm)
    assert after.stamp >= before.stamp
    assert (await fence.changes(TABLES, before, 9)).snapshot.stamp >= before.stamp
    await orm.create(Book, title="c", author="A")
    assert (await read(fence, after))[0] == ["c"]


async def rewrite(orm: ORMService, assignments: str, **values: Any) -> None:
    async with orm.database.writer.begin() as connection:
        await connection.execute(sa.text(f"UPDATE diptych_log SET {assignments}"), values)


async def test_of_a_blanked_row_the_kind_is_left(orm: ORMService, fence: Fence):
    cursor = await snapshot_of(orm)
    await orm.create(Book, title="T", author="A")
    await orm.update(Book, 1, title="U")
    await orm.delete(Book, 1)
    await rewrite(orm, "key = '{}', old_key = NULL, image = NULL, actor = NULL")
    part = await fence.changes(TABLES, cursor, 10)
    found = [(change.kind, change.before, change.after) for change in part.changes]
    assert found == [("created", None, {}), ("updated", {}, {}), ("deleted", {}, None)]


async def test_an_image_of_another_version_of_the_application_is_read_as_far_as_it_goes(
    orm: ORMService, fence: Fence
):
    """A missing column, an unknown column, and a column of a different type."""
    cursor = await snapshot_of(orm)
    await orm.create(Book, title="T", author="A")
    image = '{"id": 1, "title": "T", "new": 5, "stock_quantity": "many", "published_date": null}'
    await rewrite(orm, "image = :image", image=image)
    (change,) = (await fence.changes(TABLES, cursor, 10)).changes
    # What identifies the row is in the key, whatever the image has.
    assert change.after == {"id": 1, "title": "T", "isbn": None, "published_date": None}


async def test_sequence_order_against_commit_order(postgres_url: str):
    """A change with a lower position, committed later, is read by the later pass."""
    async with ORMService(config(postgres_url)) as orm:
        await orm.init(models=Base)
        fence = fence_over(orm)
        cursor = await snapshot_of(orm)
        early = await Opened(orm, "early").changed()
        await orm.create(Book, title="late", author="A")
        titles, cursor = await read(fence, cursor)
        assert titles == ["late"]
        assert len(cursor.running) == 1
        await early.commit()
        titles, cursor = await read(fence, cursor)
        assert titles == ["early"]
        assert await read(fence, cursor) == ([], cursor)


async def test_a_part_that_follows_has_nothing_that_its_snapshot_did_not_see(postgres_url: str):
    """Not even a change with a higher position, and a lower transaction number, than a seen change."""
    async with ORMService(config(postgres_url)) as orm:
        await orm.init(models=Base)
        fence = fence_over(orm)
        cursor = await snapshot_of(orm)
        async with open_transaction(orm):
            await orm.create(Book, title="a", author="A")
            opened = await Opened(orm, "open").changed()
            await orm.create(Book, title="b", author="A")
            await orm.create(Book, title="c", author="A")
            first = await fence.changes(TABLES, cursor, 1)
            await opened.commit()
            await orm.create(Book, title="d", author="A")
            second = await fence.changes(TABLES, cursor, 9, first)
        found = [change.image["title"] for part in (first, second) for change in part.changes]
        assert found == ["a", "b", "c"]
        assert (await read(fence, first.snapshot))[0] == ["open", "d"]


async def test_a_following_part_repeats_nothing_that_the_cursor_has_seen(postgres_url: str):
    async with ORMService(config(postgres_url)) as orm:
        await orm.init(models=Base)
        fence = fence_over(orm)
        cursor = await snapshot_of(orm)
        opened = await Opened(orm, "x1", "x2").changed()
        for title in "ab":
            await orm.create(Book, title=title, author="A")
        _, cursor = await read(fence, cursor)
        await opened.commit()
        await orm.create(Book, title="c", author="A")
        first = await fence.changes(TABLES, cursor, 1)
        second = await fence.changes(TABLES, cursor, 9, first)
        found = [change.image["title"] for part in (first, second) for change in part.changes]
        assert found == ["x1", "x2", "c"]


async def test_a_foreign_transaction_that_is_open_for_long_has_nothing_read_twice(postgres_url: str):
    """Such a transaction holds back the `xmin` of every snapshot."""
    async with ORMService(config(postgres_url)) as orm:
        await orm.init(models=Base)
        fence = fence_over(orm)
        cursor = await snapshot_of(orm)
        async with open_transaction(orm) as foreign:
            for number in range(5):
                await orm.create(Book, title=str(number), author="A")
                titles, cursor = await read(fence, cursor)
                assert titles == [str(number)]
                assert cursor.xmin == foreign
        assert (await read(fence, cursor))[0] == []


@pytest.mark.parametrize("limit", [3, 1000])
async def test_consecutive_passes_read_everything_once_while_others_write(
    orm: ORMService, fence: Fence, limit: int
):
    chance, cursor = random.Random(1), await snapshot_of(orm)
    seen: list[int] = []

    async def write(writer: int) -> None:
        for number in range(12):

            async def work(_unit: object, number: int = number) -> None:
                for part in range(chance.randrange(1, 4)):
                    await orm.create(Book, title=f"{writer} {number} {part}", author="A")
                    if orm.database.name == "postgresql":
                        await asyncio.sleep(chance.choice([0, 0, 0.01, 0.03]))
                if chance.random() < 0.2:
                    raise RuntimeError

            with contextlib.suppress(RuntimeError):
                await orm.side.units.run(work, new_context())

    async def carry() -> Snapshot:
        part = await fence.changes(TABLES, cursor, limit)
        seen.extend(change.position for change in part.changes)
        while part.more:
            part = await fence.changes(TABLES, cursor, limit, part)
            seen.extend(change.position for change in part.changes)
        return part.snapshot

    writers = asyncio.gather(*(write(writer) for writer in range(6)))
    while not writers.done():
        cursor = await carry()
        await asyncio.sleep(0.005)
    await writers
    cursor = await carry()
    async with orm.database.reader.connect() as connection:
        positions = (await connection.execute(sa.text("SELECT position FROM diptych_log"))).scalars().all()
    assert sorted(seen) == sorted(positions)
    assert len(positions) > 50


# What a pass costs


LOGGED = 50_000


async def fill(orm: ORMService) -> None:
    """Rows of many transactions, in the order of their positions."""
    columns = "entity, table_name, key, kind, version, image, command_id, recorded_at"
    insert = {
        "sqlite": f"""
            WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {LOGGED})
            INSERT INTO diptych_log ({columns})
            SELECT 'Book', 'books', '{{}}', 'updated', 1, '{{}}', 'c', '2024-01-01 00:00:00' FROM numbers
        """,
        "postgresql": f"""
            INSERT INTO diptych_log (transaction, {columns})
            SELECT (3 + i / 80)::text::xid8, 'Book', 'books', '{{}}', 'updated', 1, repeat('x', 300), 'c', now()
            FROM generate_series(1, {LOGGED}) i
        """,
    }
    async with orm.database.writer.begin() as connection:
        await connection.execute(sa.text(insert[orm.database.name]))


async def plan(orm: ORMService, statement: Any, **values: Any) -> str:
    dialect = orm.database.keeper.dialect
    text = statement.params(values).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    how = "EXPLAIN QUERY PLAN" if orm.database.name == "sqlite" else "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF)"
    async with orm.database.keeper.connect() as connection:
        rows = (await connection.exec_driver_sql(f"{how} {text}")).all()
    return "\n".join(str(row[-1]) for row in rows)


def numbers(cursor: Snapshot) -> dict[str, str]:
    return {"p_xmax": str(cursor.xmax), "p_running": "{" + ",".join(map(str, cursor.running)) + "}"}


@pytest.mark.parametrize("analyzed", [True, False])
async def test_a_pass_on_postgresql_reads_only_the_end_of_the_log(postgres_url: str, analyzed: bool):
    """By the index on `transaction`, also while a foreign transaction is open for long, and before any ANALYZE."""
    async with ORMService(config(postgres_url)) as orm:
        await orm.init(models=Base)
        async with orm.database.keeper.connect() as connection:
            await connection.execute(sa.text("ALTER TABLE diptych_log SET (autovacuum_enabled = off)"))
        await fill(orm)
        if analyzed:
            async with orm.database.keeper.connect() as connection:
                await connection.execute(sa.text("ANALYZE diptych_log"))
        fence, statements = fence_over(orm), LOG_STATEMENTS["postgresql"]
        async with open_transaction(orm), open_transaction(orm):
            await orm.create(Book, title="T", author="A")
            cursor = await snapshot_of(orm)
            assert len(cursor.running) >= 2
            values: dict[str, Any] = {"p_tables": TABLES, "p_limit": 2, **numbers(cursor)}
            for title in (None, *"abc"):  # an empty tail first
                if title is not None:
                    await orm.create(Book, title=title, author="A")
                found = await plan(orm, statements.first, **values)
                assert "Seq Scan on diptych_log" not in found
                assert "diptych_log_unseen" in found
                assert "diptych_log_pkey" not in found
                assert buffers(found) < 60, found
            last = (await fence.changes(TABLES, cursor, 1)).changes[0].position
            following = values | {"p_last": last, "p_snapshot": str(await snapshot_of(orm))}
            found = await plan(orm, statements.following, **following)
            assert "Seq Scan on diptych_log" not in found
            assert buffers(found) < 60, found


def buffers(found: str) -> int:
    """Returns the number of pages touched by the whole plan: the first node's count includes the nodes below."""
    line = next(line for line in found.splitlines() if "Buffers:" in line)
    return sum(int(word.partition("=")[2]) for word in line.split() if word.startswith(("hit=", "read=")))


async def test_a_pass_on_sqlite_reads_only_the_end_of_the_log(sqlite_url: str):
    async with ORMService(config(sqlite_url)) as orm:
        await orm.init(models=Base)
        await fill(orm)
        statements = LOG_STATEMENTS["sqlite"]
        values: dict[str, Any] = {"p_tables": TABLES, "p_limit": 1001, "p_xmax": LOGGED}
        following = values | {"p_last": LOGGED - 5, "p_snapshot_xmax": LOGGED + 1}
        for found in (
            await plan(orm, statements.first, **values),
            await plan(orm, statements.following, **following),
        ):
            assert "SEARCH diptych_log USING INTEGER PRIMARY KEY (rowid>?" in found
            assert "SCAN diptych_log" not in found


# SQLite's queue of writers


async def test_on_sqlite_the_fence_goes_before_the_commands_that_wait(sqlite_url: str):
    async with ORMService(config(sqlite_url)) as orm:
        row, came = await stored(orm), []
        assert isinstance(orm.database, SqliteDatabase)
        turns, fence = orm.database.write_lock, fence_over(orm)

        async def command() -> None:
            async with turns.take():
                came.append("command")

        async def keeper() -> None:
            assert await fence.promise(row, 2, None) is not None
            came.append("keeper")

        async with turns.take():
            waiting = [asyncio.create_task(command()) for _ in range(3)]
            await asyncio.sleep(0.02)
            waiting.append(asyncio.create_task(keeper()))
            await asyncio.sleep(0.02)
            assert await fence.rows()  # which waits for nobody
        await asyncio.gather(*waiting)
        assert came == ["keeper", "command", "command", "command"]


async def test_a_writer_that_holds_sqlite_for_too_long_is_told(sqlite_url: str):
    async with ORMService(config(sqlite_url, database_timeout_ms=100)) as orm:
        row = await stored(orm)
        assert isinstance(orm.database, SqliteDatabase)
        async with orm.database.write_lock.take():
            with pytest.raises(DatabaseBusyError, match="held SQLite's only writer"):
                await fence_over(orm).promise(row, 2, None)
        other = sqlite3.connect(orm.database.reader.url.database or "", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusyError):
            await fence_over(orm).promise(row, 2, None)
        other.close()
        assert await fence_over(orm).promise(row, 2, None) is not None


async def test_a_write_that_is_cancelled_leaves_the_writer_free(orm: ORMService, fence: Fence):
    row = await stored(orm)
    for wait in range(12):
        task = asyncio.create_task(fence.promise(row, 2, None))
        for _ in range(wait):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    async with asyncio.timeout(5):
        await orm.create(Book, title="T", author="A")
        assert await fence.promise(await row_of(orm), 2, None) is not None


# Which database it is


async def test_a_database_is_told_from_another_and_from_a_copy_put_back(
    database_url: str, postgres_server: PostgresServer, tmp_path: Path
):
    async with ORMService(config(database_url)) as orm:
        first = orm.database.identity
    async with ORMService(config(database_url)) as orm:
        assert orm.database.identity == first != ""
    if database_url.startswith("sqlite"):
        shutil.copy(tmp_path / "test.db", tmp_path / "copy.db")
        (tmp_path / "copy.db").replace(tmp_path / "test.db")
    else:
        name = database_url.rpartition("/")[2]
        postgres_server.drop_database(name)
        postgres_server.execute(f"CREATE DATABASE {name}")
    async with ORMService(config(database_url)) as orm:
        assert orm.database.identity not in (first, "")


async def test_a_user_who_may_not_know_it_all_is_told_the_rest(
    postgres_url: str, postgres_server: PostgresServer
):
    name = postgres_url.rpartition("/")[2]
    async with ORMService(config(postgres_url)) as orm:
        whole = orm.database.identity.split(":")
    role = f"role_{name}"
    postgres_server.execute(f"CREATE ROLE {role} LOGIN")
    url = postgres_url.replace("postgres@", f"{role}@")
    try:
        for what in ("SCHEMA public", "ALL TABLES IN SCHEMA public"):
            postgres_server.execute(f"GRANT ALL ON {what} TO {role}", name)
        async with ORMService(config(url)) as orm:
            assert orm.database.identity.split(":") == whole
        postgres_server.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC", name)
        async with ORMService(config(url)) as orm:
            assert orm.database.identity.split(":") == ["", *whole[1:]]
    finally:
        postgres_server.execute(f"DROP OWNED BY {role}", name)
        postgres_server.execute(f"DROP ROLE {role}")


class Standby(PostgresServer):
    """A server with or without the signal of a standby."""

    ready_line = "database system is ready to accept"


async def test_a_promoted_server_is_another_database_at_once():
    """And a server away is an error."""
    with Standby() as server:
        name = server.create_database()
        async with ORMService(config(server.url_of(name))) as orm:
            fence = fence_over(orm, Book)
            before = orm.database.identity
            server.stop()
            for call in (
                fence.rows(),
                fence.changes([], NOTHING, 1),
                fence.ask(ID, 1),
                fence.register(ID, []),
            ):
                with pytest.raises(DatabaseUnavailableError):
                    await call
            (server.data / "standby.signal").touch()
            server.start()
            server.execute("SELECT pg_promote()")
            await fence.rows()
            after = orm.database.identity
            assert (after == before, after.split(":")[0]) == (False, before.split(":")[0])


# Requests for passes


class Ear:
    """The requests heard by a process."""

    def __init__(self, fence: Fence) -> None:
        self.heard: asyncio.Queue[tuple[FenceId, int]] = asyncio.Queue()
        fence.on_asked(lambda fence, after: self.heard.put_nowait((fence, after)))

    async def next(self) -> tuple[FenceId, int]:
        async with asyncio.timeout(10):
            return await self.heard.get()


@pytest.fixture
async def other(orm: ORMService) -> AsyncIterator[ORMService]:
    """Another process over the same database."""
    url = orm.database.writer.url.render_as_string(hide_password=False)
    async with ORMService(config(url)) as other:
        yield other


async def test_others_hear_what_is_asked(orm: ORMService, other: ORMService):
    """On SQLite nobody does, and nobody fails."""
    asking, asked = fence_over(orm), fence_over(other)
    own, ear = Ear(asking), Ear(asked)
    await asyncio.gather(asking.listen(), asked.listen())
    strange = FenceId("test:Ünd \"so\" 'weiter'", "x")
    await asking.ask(ID, 7)
    await asking.ask(strange, 0)
    if orm.database.name == "postgresql":
        assert [await ear.next(), await ear.next()] == [(ID, 7), (strange, 0)]
    assert own.heard.empty()
    assert ear.heard.empty()
    for fence in (asking, asked):
        await fence.close()
        await fence.close()


async def test_it_is_heard_again_after_the_connection_broke(postgres_url: str):
    async with ORMService(config(postgres_url)) as orm, ORMService(config(postgres_url)) as other:
        asking, asked = fence_over(orm, Book), fence_over(other, Book)
        ear = Ear(asked)
        await asked.listen()
        async with orm.database.keeper.connect() as connection:
            for strange in ("of somebody else", '["a", "b", "c"]', '["test:Books", "1", "7", "x"]'):
                await connection.execute(sa.text("SELECT pg_notify('diptych', :it)"), {"it": strange})
            await connection.execute(
                sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'")
            )

        async def ask() -> None:
            while True:
                await asking.ask(ID, 1)
                await asyncio.sleep(0.1)

        asks = asyncio.create_task(ask())
        assert await ear.next() == (ID, 1)
        asks.cancel()
        await asked.close()


async def test_closing_gives_the_connection_back(postgres_url: str):
    async with ORMService(config(postgres_url)) as orm:
        fence = fence_over(orm, Book)
        await fence.close()
        await fence.listen()
        count = sa.text("SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'")
        async with orm.database.reader.connect() as connection:
            assert (await connection.execute(count)).scalar_one() == 1
            await fence.close()
            while (await connection.execute(count)).scalar_one():  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
