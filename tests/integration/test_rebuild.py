"""A read model built anew: when its data are lost, and as planned, beside the one that serves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from diptych import ConfigurationError, Diptych, RebuildFailedError, RedisUnavailableError, WiringError
from diptych.hinge.status import Progress
from tests.books import AddBook, BookChanges, BookReadModel, DeleteBook, EditBook, ListBooks
from tests.catalogue import (
    Held,
    agree,
    answered_by,
    author_of,
    catalogue,
    eventually,
    fence_row,
    keeper_of,
    sees,
    sees_in_redis,
    set_author,
    stop_keeper,
    store_of,
)
from tests.conformance.test_unit_of_work import cancelled_at


async def _filled(database_url: str, count: int) -> None:
    """Rows without a row of the log: they come from the rebuild's reading alone."""
    async with catalogue(database_url) as app, app.orm.database.writer.begin() as connection:
        rows = [{"t": f"{number:04}"} for number in range(count)]
        await connection.execute(
            sa.text("INSERT INTO books (title, author, stock_quantity) VALUES (:t, 'old', 0)"), rows
        )


async def _raw(app: Diptych, statement: str) -> None:
    async with app.orm.database.writer.begin() as connection:
        await connection.execute(sa.text(statement))


def _keys(url: str, pattern: str = "*") -> list[bytes]:
    with redis.Redis.from_url(url) as client:
        return list(client.keys(pattern))


def _generations(url: str) -> set[bytes]:
    return {key.split(b":")[3] for key in _keys(url) if key.count(b":") > 3}


# Lost data


async def test_commands_during_a_build_are_neither_lost_nor_overwritten(database_url, valkey):
    """While rows are being read, every kind of change is made to rows before and behind it."""
    await _filled(database_url, 200)
    async with catalogue(database_url, valkey.url, rebuild_batch_size=5) as app:
        number = 0
        while (await app.health()).read_models["BookReadModel"].served_by == "sql" and number < 60:
            await set_author(app, f"{number:04}", "new")
            await app.execute(DeleteBook(f"{199 - number // 3:04}"))
            await app.execute(EditBook(f"{number:04}", BookChanges(title=f"renamed {number:04}")))
            await app.execute(AddBook(f"added {number:04}", "new"))
            number += 1
        assert number > 0
        await agree(app)


async def test_a_build_that_fails_is_tried_again(sqlite_url, valkey):
    """Redis dies in the middle of it, again and again."""
    await _filled(sqlite_url, 300)
    async with catalogue(sqlite_url, valkey.url, rebuild_batch_size=1) as app:
        for _ in range(2):

            async def rebuilding() -> bool:
                return (await app.health()).read_models["BookReadModel"].progress is not None

            await eventually(rebuilding, "a rebuild is under way")
            valkey.kill()
            assert await author_of(app, "0007") == ("sql", "old")
            valkey.start()
        await agree(app)


async def test_while_it_is_built_health_tells_how_far_it_is(sqlite_url, valkey):
    await _filled(sqlite_url, 20)
    async with catalogue(sqlite_url, valkey.url, rebuild_batch_size=5) as app:
        held = Held(store_of(app), "backfill", after=True)
        await held.reached.wait()
        health = (await app.health()).read_models["BookReadModel"]
        assert (health.served_by, health.detail) == ("sql", "rebuilding")
        assert str(health.progress).endswith("of 20 documents")
        held.go_on.set()
        await answered_by(app, "redis")
        health = (await app.health()).read_models["BookReadModel"]
        assert (health.progress, health.time_left_s, health.detail) == (None, None, None)


async def test_when_a_builder_dies_another_builds(database_url, valkey):
    await _filled(database_url, 20)
    async with catalogue(database_url, valkey.url, rebuild_batch_size=5) as one:
        held = Held(store_of(one), "backfill", after=True)
        await held.reached.wait()
        former = await fence_row(one)
        assert former.building_until > former.now
        async with catalogue(database_url, valkey.url) as two:
            assert await author_of(two, "0007") == ("sql", "old")
            assert (await fence_row(two)).generation == former.generation, "it respects the builder"
            await stop_keeper(one)
            await sees_in_redis(two, "0007", "old")
            assert (await fence_row(two)).generation != former.generation
            await agree(two)
            await set_author(one, "0007", "new")
            await sees(two, "0007", "new")
            assert len(_generations(valkey.url)) == 1, "what the dead one left is deleted"


async def test_two_that_find_it_lost_build_it_once(database_url, valkey, caplog):
    caplog.set_level("INFO", "diptych")
    await _filled(database_url, 50)
    async with catalogue(database_url, valkey.url) as one, catalogue(database_url, valkey.url) as two:
        for app in (one, two):
            await sees_in_redis(app, "0007", "old")
        assert caplog.text.count(": rebuilt, ") == 1
        valkey.flush()
        for app in (one, two):
            await sees_in_redis(app, "0007", "old")
        await eventually(lambda: _settled(one), "it settles")
        assert caplog.text.count(": rebuilt, ") == 2


async def _settled(app: Diptych) -> bool:
    """Whether some passes were made over the same generation, one after the other."""
    row = await fence_row(app)
    for _ in range(100):
        await asyncio.sleep(0.05)
        now = await fence_row(app)
        if now.generation != row.generation:
            return False
        if now.passes_started >= row.passes_started + 6:
            return True
    return False


async def test_what_two_find_broken_is_built_once(database_url, valkey, caplog):
    """Whoever comes second must not take the new generation for the broken one."""
    caplog.set_level("INFO", "diptych")
    await _filled(database_url, 5)
    async with catalogue(database_url, valkey.url) as one, catalogue(database_url, valkey.url) as two:
        for app in (one, two):
            await sees_in_redis(app, "0003", "old")
        with redis.Redis.from_url(valkey.url) as client:
            client.delete(*client.keys("*:d:0003"))
        for app in (one, two):
            await app.ask(ListBooks())
        await eventually(lambda: _settled(one), "it settles")
        for app in (one, two):
            await sees_in_redis(app, "0003", "old")
        assert caplog.text.count(": rebuilt, ") == 2  # once at first, once since


async def test_the_clean_up_of_one_build_spares_the_generation_of_a_later_one(sqlite_url, valkey):
    """Deleted in part it would answer "not found" for what is there."""
    await _filled(sqlite_url, 5)
    async with catalogue(sqlite_url, valkey.url, lease_ms=30_000) as app:
        await sees_in_redis(app, "0003", "old")
        store = store_of(app)
        known = next(iter(app.orm.side.acknowledger.rows.targets.values()))
        await store.begin(known._replace(generation="former"))
        await store.backfill(known._replace(generation="former"), [], 1, floor=1)
        await store.delete(known.incarnation, [b"former"])
        assert _generations(valkey.url) == {known.generation.encode()}
        await agree(app)


# Planned


async def test_a_planned_rebuild_under_writes_loses_nothing(database_url, redis_server):
    await _filled(database_url, 200)
    async with (
        catalogue(database_url, redis_server.url, rebuild_batch_size=20) as app,
        catalogue(database_url, redis_server.url) as other,
    ):
        for process in (app, other):
            await sees_in_redis(process, "0007", "old")
        former = (await fence_row(app)).generation
        told: list[tuple[int, int]] = []
        rebuilding = asyncio.create_task(
            app.rebuild(BookReadModel, lambda progress: told.append((progress.done, progress.total)))
        )
        number = 0
        while not rebuilding.done():
            writer = (app, other)[number % 2]
            await set_author(writer, f"{number % 150:04}", f"new {number}")
            for process in (app, other):
                await sees(process, f"{number % 150:04}", f"new {number}")
            await writer.execute(AddBook(f"added {number}", "x"))
            if number < 40:
                await writer.execute(DeleteBook(f"{199 - number:04}"))
            number += 1
        assert await rebuilding >= 150
        assert number > 0
        assert (await fence_row(app)).generation != former
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        assert told[-1][0] >= 150
        for process in (app, other):
            await agree(process)

        async def cleaned() -> bool:
            return former.encode() not in _generations(redis_server.url)

        await eventually(cleaned, "the old generation is deleted")


async def test_redis_goes_on_answering_while_it_is_built_beside(sqlite_url, valkey):
    await _filled(sqlite_url, 20)
    async with catalogue(sqlite_url, valkey.url, rebuild_batch_size=5, lease_ms=2000) as app:
        await sees_in_redis(app, "0007", "old")
        held = Held(store_of(app), "backfill", after=True)
        rebuilding = asyncio.create_task(app.rebuild(BookReadModel))
        await held.reached.wait()
        await set_author(app, "0007", "new")
        await sees_in_redis(app, "0007", "new")
        health = (await app.health()).read_models["BookReadModel"]
        assert health.served_by == "redis"
        assert health.progress is not None
        held.go_on.set()
        assert await rebuilding == 20
        await sees_in_redis(app, "0007", "new")
        assert (await app.health()).read_models["BookReadModel"].progress is None


async def test_rows_changed_by_raw_sql_are_seen_after_a_rebuild(database_url, valkey):
    await _filled(database_url, 10)
    async with catalogue(database_url, valkey.url) as app, catalogue(database_url, valkey.url) as other:
        for process in (app, other):
            await sees_in_redis(process, "0007", "old")
        await _raw(app, "UPDATE books SET author = 'raw' WHERE title = '0007'")
        await _raw(app, "DELETE FROM books WHERE title = '0008'")
        assert await app.rebuild(BookReadModel) == 9
        for process in (app, other):
            await sees_in_redis(process, "0007", "raw")
            await sees(process, "0008", None)


async def test_without_the_memory_for_both_it_is_refused_before_anything_is_done(
    sqlite_url, redis_server_factory
):
    await _filled(sqlite_url, 2000)
    server = redis_server_factory()
    async with catalogue(sqlite_url, server.url, lease_ms=2000) as app:
        await sees_in_redis(app, "0007", "old")
        former = (await fence_row(app)).generation
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory", client.info("memory")["used_memory"] + 100_000)
        with pytest.raises(RebuildFailedError, match=r"memory for a second generation.*maxmemory"):
            await app.rebuild(BookReadModel)
        await sees_in_redis(app, "0007", "old")
        assert (await fence_row(app)).generation == former
        assert _generations(server.url) == {former.encode()}


async def test_a_rebuild_from_two_processes_at_once_leaves_one_generation(database_url, valkey):
    await _filled(database_url, 100)
    async with catalogue(database_url, valkey.url) as one, catalogue(database_url, valkey.url) as two:
        for process in (one, two):
            await sees_in_redis(process, "0007", "old")
        await _raw(one, "UPDATE books SET author = 'raw' WHERE title = '0007'")
        outcomes = await asyncio.gather(
            one.rebuild(BookReadModel), two.rebuild(BookReadModel), return_exceptions=True
        )
        assert any(outcome == 100 for outcome in outcomes)
        assert all(outcome == 100 or isinstance(outcome, RebuildFailedError) for outcome in outcomes), (
            outcomes
        )
        for process in (one, two):
            await sees_in_redis(process, "0007", "raw")
            await agree(process)

        async def alone() -> bool:
            return _generations(valkey.url) == {(await fence_row(one)).generation.encode()}

        await eventually(alone, "only the one that serves is left")


async def test_a_rebuild_cancelled_anywhere_is_mended(sqlite_url, valkey):
    """At each point where it waits; commands go on meanwhile, and no query is stale."""
    await _filled(sqlite_url, 6)
    async with catalogue(sqlite_url, valkey.url, rebuild_batch_size=3) as app:
        await sees_in_redis(app, "0003", "old")
        waits, number = 1, 0
        for attempt in itertools.count():

            async def run(waits: int = waits) -> int:
                task = asyncio.current_task()
                assert task is not None
                return await cancelled_at(app.rebuild(BookReadModel), waits, task.cancel)

            rebuilding = asyncio.create_task(run())
            while not rebuilding.done():
                number += 1
                await set_author(app, "0003", str(number))
                await sees(app, "0003", str(number))
            (outcome,) = await asyncio.gather(rebuilding, return_exceptions=True)
            await sees_in_redis(app, "0003", str(number)) if number else None
            await agree(app)
            if isinstance(outcome, int):
                break
            assert isinstance(outcome, asyncio.CancelledError), outcome
            waits += 3
            assert attempt < 60
        assert waits > 10


async def test_queries_wait_for_the_switch_instead_of_going_to_sql(database_url, valkey):
    """SQL would get all of them at once, and take longer for them than the switch does."""
    await _filled(database_url, 20)
    async with catalogue(database_url, valkey.url) as one, catalogue(database_url, valkey.url) as two:
        for process in (one, two):
            await sees_in_redis(process, "0007", "old")
        held = Held(store_of(one), "drop", after=True)
        rebuilding = asyncio.create_task(one.rebuild(BookReadModel))
        await held.reached.wait()
        asked = [asyncio.create_task(author_of(two, f"{number % 20:04}")) for number in range(200)]
        pages = [asyncio.create_task(two.ask(ListBooks())) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in [*asked, *pages])
        asked.pop().cancel()
        held.go_on.set()
        assert {await task for task in asked} == {("redis", "old")}
        assert {(await task).served.store for task in pages} == {"redis"}
        assert await rebuilding == 20


async def test_queries_wait_a_second_at_most_for_a_switch_that_does_not_end(sqlite_url, valkey):
    await _filled(sqlite_url, 10)
    async with catalogue(sqlite_url, valkey.url) as app:
        await sees_in_redis(app, "0007", "old")
        held = Held(store_of(app), "drop", after=True)
        rebuilding = asyncio.create_task(app.rebuild(BookReadModel))
        await held.reached.wait()
        async with asyncio.timeout(5):
            assert await author_of(app, "0007") == ("sql", "old")
        # Whoever comes later asks SQL at once: there is nothing to wait for any more.
        with redis.Redis.from_url(valkey.url) as client:
            assert not client.keys("*:switching")
        held.go_on.set()
        await rebuilding
        await sees_in_redis(app, "0007", "old")


async def test_a_switch_that_dies_half_way_is_found_as_lost(database_url, valkey):
    """The old generation is dropped, and the fence has not moved, or has."""
    await _filled(database_url, 10)
    for where in ("drop", "move"):
        async with catalogue(database_url, valkey.url) as one, catalogue(database_url, valkey.url) as two:
            for process in (one, two):
                await sees_in_redis(process, "0007", "old")
            former = (await fence_row(one)).generation
            held = Held(store_of(one) if where == "drop" else one.orm.side.fence, where, after=True)
            rebuilding = asyncio.create_task(one.rebuild(BookReadModel))
            await held.reached.wait()
            await stop_keeper(one)
            rebuilding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await rebuilding
            held.go_on.set()
            await set_author(two, "0003", where)
            await sees(one, "0003", where)
            await sees_in_redis(two, "0003", where)
            assert (await fence_row(two)).generation != former
            await agree(two)


async def test_a_rebuild_while_it_is_being_built_anyway_waits_for_a_build_that_sees_what_was_changed_before(
    sqlite_url, valkey
):
    """Asked for after a raw change: a build under way may have read the row before."""
    await _filled(sqlite_url, 10)
    async with catalogue(sqlite_url, valkey.url, rebuild_batch_size=5) as app:
        held = Held(store_of(app), "backfill", after=True)
        await held.reached.wait()
        await _raw(app, "UPDATE books SET author = 'raw' WHERE title = '0001'")
        rebuilding = asyncio.create_task(app.rebuild(BookReadModel))
        await asyncio.sleep(0.1)
        held.go_on.set()
        async with asyncio.timeout(10):
            assert await rebuilding == 10
        await sees_in_redis(app, "0001", "raw")


async def test_a_rebuild_of_a_process_that_is_led_to_another_redis_ends_with_an_error(
    sqlite_url, valkey, redis_server_factory
):
    """It would wait for ever for what others keep elsewhere."""
    second = redis_server_factory()
    async with catalogue(sqlite_url, valkey.url) as one:
        await answered_by(one, "redis")
        async with catalogue(sqlite_url, second.url) as led_away:
            with pytest.raises((RebuildFailedError, RedisUnavailableError)):
                async with asyncio.timeout(5):
                    await led_away.rebuild(BookReadModel)


async def test_what_can_not_be_rebuilt_is_told(sqlite_url, valkey):
    async with catalogue(sqlite_url) as app:
        with pytest.raises(ConfigurationError, match="REDIS_URL"):
            await app.rebuild(BookReadModel)
        with pytest.raises(WiringError):
            await app.rebuild(Progress)  # type: ignore[arg-type]
    async with catalogue(sqlite_url, valkey.url) as app:
        await answered_by(app, "redis")
        valkey.kill()
        with pytest.raises(RedisUnavailableError):
            await app.rebuild(BookReadModel)


async def test_an_old_generation_takes_no_late_message_into_the_new_one(sqlite_url, valkey):
    """★ A generation's name is never used twice."""
    names: set[str] = set()
    async with catalogue(sqlite_url, valkey.url) as app:
        await answered_by(app, "redis")
        for _ in range(3):
            names.add((await fence_row(app)).generation)
            await app.rebuild(BookReadModel)
        names.add((await fence_row(app)).generation)
    assert len(names) == 4
    assert all(len(name) == 16 for name in names)
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    async with catalogue(sqlite_url, valkey.url) as app:
        await answered_by(app, "redis")
        assert (await fence_row(app)).generation not in names


async def test_only_one_of_two_moves_is_made_and_none_before_the_lease_is_over(database_url, valkey):
    """★ Commands would be acknowledged for the new generation while queries still read the old one."""
    async with catalogue(database_url, valkey.url, lease_ms=1000) as app:
        await answered_by(app, "redis")
        await stop_keeper(app)
        row, fence = await fence_row(app), app.orm.side.fence
        move: dict[str, Any] = {"building_s": 5.0}
        assert await fence.move(row, row.incarnation, "a", **move) is None

        async def over() -> bool:
            now = await fence_row(app)
            return now.now > now.lease_until

        await eventually(over, "the lease is over")
        moved = await asyncio.gather(*(fence.move(row, row.incarnation, name, **move) for name in "ab"))
        assert sum(found is not None for found in moved) == 1
        assert keeper_of(app).replica.id == row.id


async def test_another_database_on_the_same_redis_is_not_taken_for_the_one_before(tmp_path, valkey):
    """★ As when SQL begins anew: a name made from a number that it counts would come again."""
    names = set()
    for title in ("one", "two"):
        async with catalogue(f"sqlite:///{tmp_path}/{title}.db", valkey.url) as app:
            await app.execute(AddBook(title, "x"))
            await sees_in_redis(app, title, "x")
            await agree(app)
            names.add((await fence_row(app)).generation)

        async def is_over() -> bool:
            return not _keys(valkey.url, "*:lease")

        await eventually(is_over, "the lease ends")
    assert len(names) == 2
