"""The read model stays true for one writing process, whatever happens to Redis; and others are recognised."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil

import pytest
import redis

from demo_app.messages import AddBook, BookChanges, DeleteBook, EditBook, GetBook, ListBooks
from demo_app.models.book import Book
from diptych import Diptych
from diptych.ports import Change
from diptych.write.unit_of_work import new_context
from tests.catalogue import answered_by, catalogue, eventually


async def _author_of(app: Diptych, title: str) -> tuple[str, str | None]:
    """Which store answered, and with which author."""
    document = await app.ask(GetBook(title))
    book = document.decode()
    return document.served.store, None if book is None else book.author


async def _set_author(app: Diptych, title: str, author: str) -> None:
    await app.execute(EditBook(title, BookChanges(author=author)))


async def test_sql_answers_from_the_start_and_redis_after_the_rebuild(sqlite_url, redis_url, caplog):
    caplog.set_level(logging.INFO, "diptych")
    async with catalogue(sqlite_url) as before:
        for number in range(25):
            await before.execute(AddBook(f"Book {number:02}", "x"))
    async with catalogue(sqlite_url, redis_url, rebuild_batch_size=10) as app:
        assert (await app.ask(GetBook("Book 07"))).body is not None
        await answered_by(app, "redis")
        assert (await app.ask(ListBooks())).served.store == "redis"
        assert [b.title for b in (await app.ask(ListBooks())).decode().items] == [
            f"Book {n:02}" for n in range(25)
        ]
    assert "rebuilding, 25 rows" in caplog.text
    assert "rebuilt, 25 documents" in caplog.text


async def test_commands_during_a_rebuild_are_neither_lost_nor_overwritten(database_url, valkey):
    """While rows are being read for the rebuild, every kind of change is made to rows before and behind it."""
    async with catalogue(database_url) as before:
        for number in range(200):
            await before.execute(AddBook(f"{number:03}", "old"))
    async with catalogue(database_url, valkey.url, rebuild_batch_size=5) as app:
        number = 0
        while (await app.health()).read_models["BookReadModel"].served_by == "sql":
            assert number < 150
            await _set_author(app, f"{number:03}", "new")
            await app.execute(DeleteBook(f"{199 - number // 3:03}"))
            await app.execute(EditBook(f"{number:03}", BookChanges(title=f"renamed {number:03}")))
            await app.execute(AddBook(f"added {number:03}", "new"))
            number += 1
        assert number > 0
        await _agree(app)


async def _agree(app: Diptych) -> None:
    """Redis, asked by list and by key, holds what SQL holds."""
    expected = sorted([(book.title, book.author) async for book in app.orm.iterate(Book)])
    found, after = [], None
    while True:
        page = await app.ask(ListBooks(limit=500, after=after))
        assert page.served.store == "redis"
        found += [(book.title, book.author) for book in page.decode().items]
        after = page.decode().next
        if after is None:
            break
    assert found == expected
    for title, author in expected[:: max(1, len(expected) // 20)]:
        assert await _author_of(app, title) == ("redis", author)


async def test_a_killed_redis_costs_no_error_and_comes_back_rebuilt(sqlite_url, redis_server):
    async with catalogue(sqlite_url, redis_server.url) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("Dune", "first"))
        redis_server.kill()
        assert await _author_of(app, "Dune") == ("sql", "first")
        await _set_author(app, "Dune", "second")
        assert await _author_of(app, "Dune") == ("sql", "second")
        redis_server.start()
        await answered_by(app, "redis")
        assert await _author_of(app, "Dune") == ("redis", "second")


@pytest.mark.parametrize("asked_first", [True, False])
async def test_flushall_is_noticed_by_the_next_query_or_command(sqlite_url, redis_server, asked_first):
    async with catalogue(sqlite_url, redis_server.url) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("Dune", "first"))
        redis_server.flush()
        if not asked_first:
            await _set_author(app, "Dune", "second")
        expected = "first" if asked_first else "second"
        assert (await _author_of(app, "Dune"))[1] == expected
        assert [b.author for b in (await app.ask(ListBooks())).decode().items] == [expected]
        await answered_by(app, "redis")
        assert await _author_of(app, "Dune") == ("redis", expected)


async def test_data_lost_while_nobody_asks_is_noticed_too(sqlite_url, valkey, caplog):
    async with catalogue(sqlite_url, valkey.url) as app:
        await answered_by(app, "redis")
        valkey.flush()

        async def noticed() -> bool:
            return "its lease is gone" in caplog.text

        await eventually(noticed, "the keeper notices")
        await answered_by(app, "redis")


@pytest.mark.parametrize("kind", ["valkey", "redis7"])
async def test_a_restart_from_an_old_dump_is_not_trusted(sqlite_url, redis_server_factory, tmp_path, kind):
    """The old data carry the lease that is still the valid one; the new process's run id tells."""
    server = redis_server_factory({"dbfilename": "dump.rdb"}, kind=kind)
    async with catalogue(sqlite_url, server.url) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("Dune", "old"))
        _save(server.url)
        shutil.copy(server.directory / "dump.rdb", tmp_path / "old.rdb")
        await _set_author(app, "Dune", "new")
        server.kill()
        shutil.copy(tmp_path / "old.rdb", server.directory / "dump.rdb")
        server.start()
        for _ in range(50):
            assert (await _author_of(app, "Dune"))[1] == "new"
        await answered_by(app, "redis")
        assert await _author_of(app, "Dune") == ("redis", "new")


def _save(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.save()


async def test_a_change_that_redis_did_not_confirm_ends_the_trust_before_the_acknowledgement(
    sqlite_url, valkey
):
    """A paused server carries the change out much later, when the generation it was for is no longer read."""
    async with catalogue(
        sqlite_url, valkey.url, redis_query_timeout_ms=100, redis_command_timeout_ms=100
    ) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("Dune", "first"))
        valkey.pause()
        await _set_author(app, "Dune", "second")
        assert await _author_of(app, "Dune") == ("sql", "second")
        valkey.resume()
        await answered_by(app, "redis")
        assert await _author_of(app, "Dune") == ("redis", "second")
        await _agree(app)


async def test_a_change_made_while_the_breaker_was_open_is_not_forgotten(sqlite_url, valkey):
    """The same server comes back with the same data, which lack a change that was never sent to it."""
    async with catalogue(
        sqlite_url, valkey.url, redis_query_timeout_ms=50, redis_command_timeout_ms=100
    ) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("Dune", "first"))
        valkey.pause()
        await eventually(lambda: _is_away(app), "the breaker opens")
        await _set_author(app, "Dune", "second")
        valkey.resume()
        await eventually(lambda: _is_up(app), "the breaker closes")
        for _ in range(20):
            assert (await _author_of(app, "Dune"))[1] == "second"
        await answered_by(app, "redis")
        assert await _author_of(app, "Dune") == ("redis", "second")


async def _is_away(app: Diptych) -> bool:
    await app.ask(GetBook("Dune"))
    return (await app.health()).redis.state == "away"


async def test_late_and_reordered_applies_never_go_back(sqlite_url, valkey):
    """The same writes delivered again, in any order, leave the newest."""
    async with catalogue(sqlite_url, valkey.url) as app:
        await answered_by(app, "redis")
        replica = next(iter(app._run.replicas.values()))
        seen = []
        original = replica.store.apply

        async def recording(generation, lease, writes):
            seen.append((generation, lease, writes))
            return await original(generation, lease, writes)

        replica.store.apply = recording  # type: ignore[method-assign]
        await app.execute(AddBook("Dune", "1"))
        for author in "234":
            await _set_author(app, "Dune", author)
        await app.execute(EditBook("Dune", BookChanges(title="Arrakis")))
        await app.execute(DeleteBook("Arrakis"))
        await app.execute(AddBook("Dune", "last"))
        for generation, lease, writes in [*seen, *reversed(seen)]:
            assert await original(generation, lease, writes) == b"OK"
        await _agree(app)
        assert await _author_of(app, "Arrakis") == ("redis", None)


async def test_an_error_of_redis_that_is_not_an_outage_also_ends_the_trust(sqlite_url, redis_server_factory):
    """Redis answers, but takes no more writes (out of memory): readers must not be left with the old state."""
    server = redis_server_factory({"maxmemory-policy": "noeviction"})
    async with catalogue(sqlite_url, server.url) as app:
        await answered_by(app, "redis")
        _configure(server.url, "maxmemory", "100kb")
        await app.execute(AddBook("Dune", "x"))
        for _ in range(20):
            assert await _author_of(app, "Dune") == ("sql", "x")
        _configure(server.url, "maxmemory", "0")
        await answered_by(app, "redis")
        assert await _author_of(app, "Dune") == ("redis", "x")


def _configure(url: str, name: str, value: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.config_set(name, value)


async def test_two_processes_that_write_make_sql_answer_both(sqlite_url, valkey):
    """Whoever holds the lease has not heard of the other's change: the change takes the trust away first."""
    async with catalogue(sqlite_url, valkey.url) as one:
        await answered_by(one, "redis")
        await one.execute(AddBook("Dune", "0"))
        async with catalogue(sqlite_url, valkey.url) as two:
            await answered_by(two, "redis")
            for number in range(1, 30):
                writer, reader = (one, two) if number % 2 else (two, one)
                await _set_author(writer, "Dune", str(number))
                for app in (reader, writer):
                    assert (await _author_of(app, "Dune"))[1] == str(number)
                    assert [b.author for b in (await app.ask(ListBooks())).decode().items] == [str(number)]


async def test_after_the_other_process_ended_redis_answers_again(sqlite_url, valkey):
    async with catalogue(sqlite_url, valkey.url) as one:
        await answered_by(one, "redis")
        async with catalogue(sqlite_url, valkey.url) as two:
            await answered_by(two, "redis")
            await one.execute(AddBook("Dune", "one"))
            assert await _author_of(two, "Dune") == ("sql", "one")
        await answered_by(one, "redis")
        assert await _author_of(one, "Dune") == ("redis", "one")


async def test_two_processes_that_only_read_do_not_take_the_read_model_from_each_other_in_turn(
    sqlite_url, valkey
):
    """Each would rebuild it without an end, for nothing."""
    async with catalogue(sqlite_url, valkey.url) as one:
        await answered_by(one, "redis")
        async with catalogue(sqlite_url, valkey.url) as two:
            await answered_by(two, "redis")
            await answered_by(one, "sql")
            begun: list[object] = []
            for app in (one, two):
                store = next(iter(app._run.replicas.values())).store
                store.begin = _counting(store.begin, begun)  # type: ignore[method-assign]
            for _ in range(5):  # more turns than the keepers need to look at the lease
                await asyncio.sleep(0.5)
                assert await _author_of(one, "Dune") == ("sql", None)
                assert await _author_of(two, "Dune") == ("redis", None)
            assert begun == []


def _counting(begin, begun):
    async def counted(*arguments):
        begun.append(arguments)
        return await begin(*arguments)

    return counted


async def test_the_clean_up_of_one_rebuild_spares_the_generation_of_a_later_one(sqlite_url, valkey):
    """Deleted in part it would answer "not found" for what is there."""
    async with catalogue(sqlite_url, valkey.url) as app:
        await answered_by(app, "redis")
        store = next(iter(app._run.replicas.values())).store
        former = await store.begin(b"first", b"building:first")
        await store.begin(b"second", b"building:second")
        assert await store.publish(b"second", b"building:second", b"second")
        await store.apply(b"second", b"second", [store.write_of(_row("Dune"), 1)])
        await store.delete(former)
        lease, stored = await store.fetch(b"second", "Dune")
        assert lease == b"second"
        assert stored


def _row(title: str) -> dict[str, object]:
    return {"id": 1, "title": title, "author": "x", "published_date": None, "isbn": None, "stock_quantity": 0}


async def test_a_generation_that_is_deleted_is_neither_written_nor_published(sqlite_url, valkey):
    async with catalogue(sqlite_url, valkey.url, workers=2) as app:
        store = next(iter(app._run.replicas.values())).store
        await store.begin(b"first", b"building:first")
        await store.delete({b"first"})
        assert await store.apply(b"first", b"building:first", [store.write_of(_row("Dune"), 1)]) == b"GONE"
        assert not await store.publish(b"first", b"building:first", b"first")


async def test_a_commit_of_unknown_outcome_is_waited_for_before_the_rebuild(postgres_url, valkey):
    """The server may carry it out late: a rebuild that had read its row before would lack it for good."""
    async with catalogue(postgres_url, valkey.url) as app:
        await answered_by(app, "redis")
        insert = "INSERT INTO books (title, author, stock_quantity) VALUES ('Dune', 'late', 0)"
        async with app.orm.engines.writer.connect() as late:
            await late.exec_driver_sql(insert)
            entity = app.orm.entity(Book).describe(app.orm.engines.reader.dialect)
            app._run.hinge.doubt([Change(entity, None, {})])  # type: ignore[union-attr]
            for _ in range(20):
                assert (await _author_of(app, "Dune")) == ("sql", None)
                await asyncio.sleep(0.02)
            await late.commit()
        await answered_by(app, "redis")
        assert await _author_of(app, "Dune") == ("redis", "late")


async def test_more_than_one_worker_is_answered_by_sql(sqlite_url, valkey):
    async with catalogue(sqlite_url, valkey.url, workers=2) as app:
        await app.execute(AddBook("Dune", "x"))
        document = await app.ask(GetBook("Dune"))
        assert (document.served.store, document.served.reason) == ("sql", "workers")


async def test_one_of_several_workers_still_ends_the_trust_of_a_process_that_reads_redis(sqlite_url, valkey):
    async with catalogue(sqlite_url, valkey.url) as alone:
        await answered_by(alone, "redis")
        async with catalogue(sqlite_url, valkey.url, workers=2) as worker:
            await eventually(lambda: _is_up(worker), "the worker reaches Redis")
            await worker.execute(AddBook("Dune", "x"))
            assert await _author_of(alone, "Dune") == ("sql", "x")


async def _is_up(app: Diptych) -> bool:
    return (await app.health()).redis.state == "up"


@pytest.mark.parametrize("steps", range(0, 60, 3))
async def test_a_command_cancelled_at_any_await_leaves_no_stale_read(sqlite_url, valkey, steps):
    """The client went away: the change is there or not, and readers agree with SQL either way."""
    async with catalogue(sqlite_url, valkey.url) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("Dune", "before"))
        command = asyncio.create_task(_set_author(app, "Dune", "after"))
        for _ in range(steps):
            await asyncio.sleep(0.0002)
        command.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await command
        await app.orm.finish()
        book = await app.orm.get(Book, "Dune", "title")
        assert book is not None
        assert (await _author_of(app, "Dune"))[1] == book.author


async def test_a_command_cancelled_on_its_way_to_redis_still_arrives(sqlite_url, valkey):
    """It is committed: if its publication ended with its client, readers would be left with the old state."""
    async with catalogue(sqlite_url, valkey.url) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("Dune", "before"))
        store = next(iter(app._run.replicas.values())).store
        original, reached, go_on = store.apply, asyncio.Event(), asyncio.Event()

        async def held(*arguments):
            reached.set()
            await go_on.wait()
            return await original(*arguments)

        store.apply = held  # type: ignore[method-assign]
        command = asyncio.create_task(_set_author(app, "Dune", "after"))
        await reached.wait()
        command.cancel()
        with pytest.raises(asyncio.CancelledError):
            await command
        go_on.set()
        await app.orm.finish()
        assert await _author_of(app, "Dune") == ("redis", "after")


async def test_a_rebuild_waits_for_a_change_that_is_committed_but_not_yet_applied(sqlite_url, valkey):
    """Applied late it would stand above what the rebuild has read, though it is older."""
    async with catalogue(sqlite_url, valkey.url) as app:
        await answered_by(app, "redis")
        replica = next(iter(app._run.replicas.values()))
        original, begin = replica.store.apply, replica.store.begin
        events = []
        reached, go_on, began = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def held(*arguments):
            if not reached.is_set():
                reached.set()
                await go_on.wait()
                events.append("applied")
            return await original(*arguments)

        async def begun(*arguments):
            events.append("rebuild begun")
            began.set()
            await begin(*arguments)

        replica.store.apply, replica.store.begin = held, begun  # type: ignore[method-assign]
        command = asyncio.create_task(app.execute(AddBook("Dune", "x")))
        await reached.wait()
        replica.lost("the test says so")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(began.wait(), 0.3)  # time enough for a rebuild that does not wait
        go_on.set()
        await command
        await answered_by(app, "redis")
        assert events == ["applied", "rebuild begun"]
        assert await _author_of(app, "Dune") == ("redis", "x")


async def test_a_generation_is_not_published_once_another_process_has_written(sqlite_url, valkey):
    """The other's change may be of a row that the rebuild had read before."""
    async with (
        catalogue(sqlite_url, valkey.url) as app,
        catalogue(sqlite_url, valkey.url, workers=2) as worker,
    ):
        await answered_by(app, "redis")
        await eventually(lambda: _is_up(worker), "the worker reaches Redis")
        store = next(iter(app._run.replicas.values())).store
        await store.begin(b"next", b"building:next")
        await worker.execute(AddBook("Dune", "x"))
        assert not await store.publish(b"next", b"building:next", b"next")
        assert await store.lease() == b"shared"


async def test_a_rebuild_that_fails_is_tried_again(sqlite_url, valkey, caplog):
    """Redis dies in the middle of a rebuild, again and again."""
    async with catalogue(sqlite_url) as before:
        for number in range(300):
            await before.execute(AddBook(f"{number:03}", "x"))
    async with catalogue(sqlite_url, valkey.url, rebuild_batch_size=1) as app:

        async def rebuilding() -> bool:
            return (await app.health()).read_models["BookReadModel"].progress is not None

        for _ in range(2):
            await eventually(rebuilding, "a rebuild is under way")
            valkey.kill()
            assert await _author_of(app, "007") == ("sql", "x")
            valkey.start()
        await answered_by(app, "redis")
        await _agree(app)


async def test_a_raised_error_leaves_nothing_in_redis(sqlite_url, valkey):
    async with catalogue(sqlite_url, valkey.url) as app:
        await answered_by(app, "redis")

        async def failing(unit: object) -> None:
            await app.orm.create(Book, title="Dune", author="x")
            raise RuntimeError("after the write")

        with pytest.raises(RuntimeError, match="after the write"):
            await app.orm.units.run(failing, new_context())
        assert await _author_of(app, "Dune") == ("redis", None)
        assert (await app.ask(ListBooks())).decode().items == []
