"""Several processes over one SQL database and one Redis: each acknowledged change is seen by all of them at once.

Several applications in one process stand for them here: they share nothing but the two stores.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from diptych import ConfigService, Diptych, Document, Page, ReadModel, by
from diptych.fence.contract import FenceId
from diptych.hinge import passes as passes_module
from diptych.hinge.replica import Replica
from tests.books import (
    AddBook,
    BookChanges,
    BookCommandHandler,
    BookDocument,
    DeleteBook,
    EditBook,
    GetBook,
    ListBooks,
)
from tests.books import Base as CatalogueBase
from tests.books import Book as CatalogueBook
from tests.catalogue import (
    Held,
    Recorded,
    agree,
    answered_by,
    author_of,
    catalogue,
    eventually,
    fail_to_apply,
    fence_row,
    keeper_of,
    sees,
    sees_in_redis,
    set_author,
    stop_keeper,
    store_of,
)


@pytest.mark.parametrize("count", [2, 3])
async def test_every_acknowledged_change_is_seen_by_all_at_once(database_url, redis_url, count):
    apps = [catalogue(database_url, redis_url, lease_ms=1000) for _ in range(count)]
    async with apps[0], apps[1], apps[-1]:
        await apps[0].execute(AddBook("Dune", "0"))
        for app in apps:
            await sees_in_redis(app, "Dune", "0")
        for number in range(1, 10):
            await set_author(apps[number % count], "Dune", str(number))
            for app in apps:
                await sees(app, "Dune", str(number))
        await apps[0].execute(EditBook("Dune", BookChanges(title="Arrakis")))
        await apps[1].execute(AddBook("Dune", "another"))
        await apps[-1].execute(DeleteBook("Arrakis"))
        for app in apps:
            await sees(app, "Arrakis", None)
            await sees_in_redis(app, "Dune", "another")
        rows = await apps[0].orm.side.fence.rows()
        assert len(rows) == 1


async def test_redis_answers_all_of_them_while_they_write(database_url, valkey):
    """No command of one takes the trust of another away, and nothing is built anew."""
    async with (
        catalogue(database_url, valkey.url, lease_ms=3000) as one,
        catalogue(database_url, valkey.url, lease_ms=3000) as two,
    ):
        await one.execute(AddBook("Dune", "0"))
        for app in (one, two):
            await sees_in_redis(app, "Dune", "0")
        generation = (await fence_row(one)).generation
        answers = []
        for number in range(1, 20):
            await set_author((one, two)[number % 2], "Dune", str(number))
            answers += [await author_of(app, "Dune") for app in (one, two)]
            assert {author for _, author in answers[-2:]} == {str(number)}
        # Loaded as the machine may be, nearly all are of Redis.
        assert [store for store, _ in answers].count("redis") >= 30
        assert (await fence_row(two)).generation == generation


async def test_concurrent_writers_of_one_row_leave_what_sql_has(database_url, valkey):
    async with catalogue(database_url, valkey.url) as one, catalogue(database_url, valkey.url) as two:
        await one.execute(AddBook("Dune", "x"))
        for app in (one, two):
            await sees_in_redis(app, "Dune", "x")

        async def write(app: Diptych, name: str) -> None:
            for number in range(8):
                await set_author(app, "Dune", f"{name}{number}")
                if number % 4 == 3:
                    await app.execute(DeleteBook("Dune"))
                    await asyncio.gather(app.execute(AddBook("Dune", name)), return_exceptions=True)

        await asyncio.gather(*(write(app, name) for app, name in ((one, "a"), (two, "b"), (one, "c"))))
        await agree(one)
        await agree(two)


async def test_one_process_makes_the_passes_for_all(database_url, valkey):
    async with (
        catalogue(database_url, valkey.url, lease_ms=1000) as one,
        catalogue(database_url, valkey.url, lease_ms=1000) as two,
    ):
        for app in (one, two):
            await answered_by(app, "redis")
        passes = {app: Recorded(store_of(app), "publish") for app in (one, two)}
        started = (await fence_row(one)).passes_started

        async def some() -> bool:
            return (await fence_row(one)).passes_started >= started + 5

        await eventually(some, "some passes are made")
        counts = sorted(len(recorded.calls) for recorded in passes.values())
        assert counts[1] >= 4
        assert counts[0] <= 1


async def test_a_change_that_was_not_applied_asks_the_keeper_that_leads(postgres_url, valkey):
    """With a lease of a minute, of which a quarter would be long: NOTIFY has the pass made at once."""
    async with catalogue(postgres_url, valkey.url, lease_ms=60_000) as app, catalogue(postgres_url) as beside:
        await app.execute(AddBook("Dune", "0"))
        await sees_in_redis(app, "Dune", "0")
        async with asyncio.timeout(10):
            await set_author(beside, "Dune", "1")
        await sees(app, "Dune", "1")


async def test_passes_that_other_processes_ask_for_keep_their_distance(postgres_url, valkey):
    """One that writes a lot while it is cut off from Redis must not have the others make nothing but passes."""
    async with (
        catalogue(postgres_url, valkey.url, lease_ms=60_000) as one,
        catalogue(postgres_url, valkey.url, lease_ms=60_000) as two,
        catalogue(postgres_url) as beside,
    ):
        for number in range(8):
            await one.execute(AddBook(f"{number}", "0"))
        for app in (one, two):
            await sees_in_redis(app, "7", "0")
        await set_author(beside, "0", "first")  # from here on one of the two leads

        async def write(title: str) -> None:
            for number in range(1, 9):
                await asyncio.sleep(random.uniform(0, 0.05))
                await set_author(beside, title, str(number))
                await sees(two, title, str(number))

        before, began = (await fence_row(one)).passes_started, time.monotonic()
        await asyncio.gather(*(write(f"{number}") for number in range(8)))
        passes = (await fence_row(one)).passes_started - before
        # Of two keepers one makes them; however slow the machine, not more than this.
        assert passes <= (time.monotonic() - began) / passes_module.APART_S + 2
        assert passes < 64


async def test_a_pass_asked_for_serves_also_who_changed_nothing(postgres_url, valkey):
    """Passes that find no change are not noted, unless somebody waits."""
    async with catalogue(postgres_url, valkey.url, lease_ms=60_000) as app, catalogue(postgres_url) as beside:
        await app.execute(AddBook("Dune", "0"))
        await sees_in_redis(app, "Dune", "0")
        async with asyncio.timeout(10):
            for _ in range(3):
                await beside.execute(DeleteBook("nobody"))


async def test_a_number_that_no_pass_has_yet_is_not_waited_for_for_ever(postgres_url, valkey):
    """SQL was put back to an earlier state, say, or somebody else uses the channel."""
    async with catalogue(postgres_url, valkey.url, lease_ms=60_000) as app, catalogue(postgres_url) as beside:
        await app.execute(AddBook("Dune", "0"))
        await sees_in_redis(app, "Dune", "0")
        before = (await fence_row(app)).passes_completed
        await beside.orm.side.fence.ask(keeper_of(app).replica.id, 10**9)

        async def is_served() -> bool:
            return (await fence_row(app)).passes_completed > before

        await eventually(is_served, "a pass is made")
        await asyncio.sleep(0.5)
        assert (await fence_row(app)).passes_completed <= before + 2
        async with asyncio.timeout(10):
            await set_author(beside, "Dune", "1")
        await sees(app, "Dune", "1")


async def test_who_commits_while_the_first_build_ends_does_not_wait_for_the_next_regular_pass(
    sqlite_url, valkey, monkeypatch
):
    reached, go_on, publish = asyncio.Event(), asyncio.Event(), Replica.publish

    async def publishing(*arguments: Any, **named: Any) -> None:
        reached.set()
        await go_on.wait()
        await publish(*arguments, **named)

    monkeypatch.setattr(Replica, "publish", publishing)
    async with catalogue(sqlite_url) as before:
        await before.execute(AddBook("Dune", "0"))
    async with catalogue(sqlite_url, valkey.url, lease_ms=60_000) as app:
        async with asyncio.timeout(10):
            await reached.wait()
            fail_to_apply(app)
            command = asyncio.create_task(set_author(app, "Dune", "1"))
            await eventually(lambda: _waits(app), "it is committed, and waits")
            go_on.set()
            await command
        await sees(app, "Dune", "1")


async def test_who_asks_while_a_pass_makes_the_read_model_fresh_does_not_wait_for_the_next_regular_one(
    sqlite_url, valkey
):
    async with catalogue(sqlite_url, valkey.url, lease_ms=60_000) as before:
        await before.execute(AddBook("Dune", "0"))
        await sees_in_redis(before, "Dune", "0")
    async with catalogue(sqlite_url, valkey.url, lease_ms=60_000) as app:
        await sees_in_redis(app, "Dune", "0")
        keeper = keeper_of(app)
        held = Held(keeper.replica, "replay_log", after=True)
        assert keeper.ask((await fence_row(app)).passes_started)
        async with asyncio.timeout(10):
            await held.reached.wait()
            fail_to_apply(app)
            keeper.status.sql("no-lease")  # as it is until a first pass has ended
            command = asyncio.create_task(set_author(app, "Dune", "1"))
            await eventually(lambda: _waits(app), "it is committed, and waits")
            held.go_on.set()
            await command
        await sees(app, "Dune", "1")


async def _waits(app: Diptych) -> bool:
    return app.orm.side.acknowledger.rows._pausing is not None


async def test_a_keeper_whose_own_command_waits_makes_the_pass_at_once(sqlite_url, valkey):
    async with catalogue(sqlite_url, valkey.url, lease_ms=60_000) as app:
        await app.execute(AddBook("Dune", "0"))
        await sees_in_redis(app, "Dune", "0")

        fail_to_apply(app)
        async with asyncio.timeout(10):
            await set_author(app, "Dune", "1")
        await sees(app, "Dune", "1")


# Keepers end


async def test_when_the_keeper_that_leads_is_gone_another_takes_over(database_url, valkey):
    async with catalogue(database_url, valkey.url, lease_ms=1000) as one:
        await one.execute(AddBook("Dune", "0"))
        await sees_in_redis(one, "Dune", "0")
        async with catalogue(database_url, valkey.url, lease_ms=1000) as two:
            await sees_in_redis(two, "Dune", "0")
            generation = (await fence_row(one)).generation
            await stop_keeper(one)
            started = (await fence_row(two)).passes_started

            async def taken_over() -> bool:
                await sees(one, "Dune", "0")
                return (await fence_row(two)).passes_started > started + 2

            await eventually(taken_over, "the other makes the passes")
            await sees_in_redis(two, "Dune", "0")
            await sees_in_redis(one, "Dune", "0")
            await set_author(one, "Dune", "1")
            await sees_in_redis(two, "Dune", "1")
            assert (await fence_row(two)).generation == generation


async def test_a_keeper_stopped_in_a_pass_leaves_it_to_the_next(database_url, valkey):
    """Commands that found its promise wait for the pass after it."""
    async with catalogue(database_url, valkey.url) as one, catalogue(database_url) as writer:
        await one.execute(AddBook("Dune", "0"))
        await sees_in_redis(one, "Dune", "0")
        async with catalogue(database_url, valkey.url) as two:
            await sees_in_redis(two, "Dune", "0")
            held = [Held(keeper_of(app).replica, "replay_log") for app in (one, two)]
            await asyncio.wait(
                [asyncio.create_task(h.reached.wait()) for h in held], return_when="FIRST_COMPLETED"
            )
            leader, other = (one, two) if held[0].reached.is_set() else (two, one)
            command = asyncio.create_task(set_author(writer, "Dune", "1"))
            await stop_keeper(leader)
            for h in held:
                h.go_on.set()
            await command
            await sees(other, "Dune", "1")
            await sees_in_redis(other, "Dune", "1")


@pytest.mark.parametrize("seed", range(6))
async def test_keepers_that_die_anywhere_cost_no_stale_read(sqlite_url, valkey, seed):
    """Two processes write, others read; keepers are stopped and started at random moments."""
    chance = random.Random(seed)
    async with catalogue(sqlite_url, valkey.url) as one, catalogue(sqlite_url, valkey.url) as two:
        await one.execute(AddBook("Dune", "0"))
        await sees_in_redis(two, "Dune", "0")
        for number in range(1, 12):
            victim = chance.choice((one, two))
            await stop_keeper(victim)
            if chance.random() < 0.3:
                valkey.flush()
            await set_author(chance.choice((one, two)), "Dune", str(number))
            for app in (one, two):
                await sees(app, "Dune", str(number))
            if chance.random() < 0.7:
                keeper_of(victim).start()
        for app in (one, two):
            keeper_of(app).start()
        for app in (one, two):
            await sees_in_redis(app, "Dune", "11")


# Two masters


async def test_a_process_that_is_led_to_another_redis_answers_from_sql_and_writes(
    database_url, valkey, redis_server_factory
):
    second = redis_server_factory()
    async with catalogue(database_url, valkey.url, lease_ms=1000) as one:
        await one.execute(AddBook("Dune", "0"))
        await sees_in_redis(one, "Dune", "0")
        async with catalogue(database_url, second.url, lease_ms=1000) as led_away:

            async def told() -> bool:
                return (await led_away.health()).read_models["BookReadModel"].detail == "other-server"

            await eventually(told, "it says so")
            document = await led_away.ask(GetBook("Dune"))
            assert (document.served.store, document.served.reason) == ("sql", "other-server")
            for number in range(1, 6):
                await set_author((led_away, one)[number % 2], "Dune", str(number))
                await sees(one, "Dune", str(number))
                await sees(led_away, "Dune", str(number))
            await sees_in_redis(one, "Dune", "5")
            # Once nobody keeps the first, the second is built.
            await stop_keeper(one)
            await sees_in_redis(led_away, "Dune", "5")
            for number in range(6, 10):
                await set_author((led_away, one)[number % 2], "Dune", str(number))
                await sees(one, "Dune", str(number))
                await sees(led_away, "Dune", str(number))


# Two versions


class NewBooks(ReadModel[CatalogueBook]):
    key = CatalogueBook.title
    document = BookDocument
    lists = (by(CatalogueBook.title),)
    revision = 2


NewBooks.__name__ = "BookReadModel"


class NewQueries:
    def __init__(self, books: NewBooks) -> None:
        self.books = books

    async def get_book(self, query: GetBook) -> Document[BookDocument]:
        return await self.books.get(query.title)

    async def list_books(self, query: ListBooks) -> Page[BookDocument]:
        return await self.books.page(limit=query.limit, after=query.after)


def next_version(database_url: str, redis_url: str, **settings: Any) -> Diptych:
    values = {"lease_ms": 400, "redis_query_timeout_ms": 2000, "redis_probe_interval_ms": 20, **settings}
    return Diptych(
        ConfigService(environ={}, database_url=database_url, redis_url=redis_url, **values),
        models=CatalogueBase,
        handlers=[BookCommandHandler, NewQueries],
        read_models=[NewBooks],
    )


async def test_two_declarations_side_by_side_are_both_served_and_neither_is_stale(database_url, valkey):
    async with catalogue(database_url, valkey.url) as old, next_version(database_url, valkey.url) as new:
        await old.execute(AddBook("Dune", "0"))
        for app in (old, new):
            await sees_in_redis(app, "Dune", "0")
        for number in range(1, 8):
            await set_author((old, new)[number % 2], "Dune", str(number))
            for app in (old, new):
                await sees(app, "Dune", str(number))
        for app in (old, new):
            await sees_in_redis(app, "Dune", "7")
        rows = await old.orm.side.fence.rows()
        assert {row.id.read_model for row in rows} == {"diptych:BookReadModel"}
        assert len({row.id.fingerprint for row in rows}) == 2
        assert all(row.ready for row in rows)
    # One that nobody renews lapses and costs nobody anything.
    async with next_version(database_url, valkey.url, lease_ms=60_000) as new:
        await sees_in_redis(new, "Dune", "7")

        async def lapsed() -> bool:
            rows = await new.orm.side.fence.rows()
            return any(row.now > row.lease_until for row in rows if row.id != keeper_of(new).replica.id)

        await eventually(lapsed, "the old one lapses")
        waited = Recorded(new.orm.side.acknowledger._passes, "wait")
        await set_author(new, "Dune", "8")
        assert waited.calls == []
        await sees_in_redis(new, "Dune", "8")


async def test_a_fence_row_of_a_read_model_nobody_knows_here_still_counts(sqlite_url, valkey):
    """Of a version to come, say. Until its lease is over the commands of this one wait for its passes."""
    async with catalogue(sqlite_url, valkey.url) as app:
        await app.execute(AddBook("Dune", "0"))
        await sees_in_redis(app, "Dune", "0")
        other = FenceId("diptych:Other", "1")
        await app.orm.side.fence.register(other, ["books"])
        row = next(row for row in await app.orm.side.fence.rows() if row.id == other)
        moved = await app.orm.side.fence.move(row, keeper_incarnation(app), "g", building_s=0.0)
        assert moved is not None
        promised = await app.orm.side.fence.promise(moved, 60.0, None)
        assert promised is not None
        command = asyncio.create_task(set_author(app, "Dune", "1"))
        await asyncio.wait([command], timeout=1.0)
        assert not command.done()
        again = await app.orm.side.fence.promise(promised, 60.0, None)
        assert again is not None
        assert again.cursor is not None
        await app.orm.side.fence.complete(again, again.cursor)
        await command


def keeper_incarnation(app: Diptych) -> Any:
    return next(iter(app.orm.side.acknowledger.rows.targets.values())).incarnation
