"""What nobody uses any more is deleted, in Redis and in the fence, and nothing else is."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from diptych import ConfigService, Diptych, Document, Page, ReadModel, by
from diptych.fence.contract import FenceId, Target
from diptych.hinge.pace import Pace
from tests.books import (
    AddBook,
    Base,
    Book,
    BookCommandHandler,
    BookDocument,
    BookReadModel,
    DeleteBook,
    GetBook,
    ListBooks,
)
from tests.catalogue import (
    Held,
    agree,
    answered_by,
    catalogue,
    eventually,
    fence_row,
    keeper_of,
    sees_in_redis,
    store_of,
)
from tests.integration.test_several_processes import next_version
from tests.servers import RedisServer

HOUR_S = 3600
DAY_S = 24 * HOUR_S


class Renamed(ReadModel[Book]):
    """What the read model is called in the next version."""

    key = Book.title
    document = BookDocument
    lists = (by(Book.title),)


class RenamedQueries:
    def __init__(self, books: Renamed) -> None:
        self.books = books

    async def get_book(self, query: GetBook) -> Document[BookDocument]:
        return await self.books.get(query.title)

    async def list_books(self, query: ListBooks) -> Page[BookDocument]:
        return await self.books.page(limit=query.limit, after=query.after)


def _renamed(database_url: str, redis_url: str, namespace: str = "diptych") -> Diptych:
    values: dict[str, Any] = {"lease_ms": 400, "redis_command_timeout_ms": 500, "redis_probe_interval_ms": 20}
    return Diptych(
        ConfigService(
            environ={}, database_url=database_url, redis_url=redis_url, redis_namespace=namespace, **values
        ),
        models=Base,
        handlers=[BookCommandHandler, RenamedQueries],
        read_models=[Renamed],
    )


async def _sweep(app: Diptych) -> None:
    """What each process does when it starts, and now and then."""
    await app.orm.side.acknowledger.tracker.read_side._sweeper._sweep()  # type: ignore[union-attr]


async def _age(app: Diptych, fence: FenceId, seconds: float) -> None:
    """Has it not been kept for so long."""
    row = next(row for row in await app.orm.side.fence.rows() if row.id == fence)
    renewed = f"lease_until = {row.now - seconds}, building_until = {row.now - seconds}"
    where = f"read_model = '{fence.read_model}' AND declaration = '{fence.fingerprint}'"
    async with app.orm.database.writer.begin() as connection:
        await connection.execute(sa.text(f"UPDATE diptych_fence SET {renewed} WHERE {where}"))


async def _is_there(app: Diptych, fence: FenceId) -> bool:
    return fence in [row.id for row in await app.orm.side.fence.rows()]


def _keys(server: RedisServer, fence: FenceId) -> list[bytes]:
    with redis.Redis.from_url(server.url) as client:
        return list(client.keys(f"{{{fence.read_model}:{fence.fingerprint}}}*"))


def _generations(server: RedisServer, fence: FenceId) -> set[bytes]:
    return {key.split(b":")[3] for key in _keys(server, fence) if key.count(b":") > 3}


async def _left_behind(database_url: str, valkey: RedisServer) -> FenceId:
    """A read model whose processes are gone: row and documents are there, the lease is over."""
    async with catalogue(database_url, valkey.url) as old:
        await old.execute(AddBook("Dune", "x"))
        await sees_in_redis(old, "Dune", "x")
        fence = keeper_of(old).replica.id

    async def is_over() -> bool:
        return not any(key.endswith(b":lease") for key in _keys(valkey, fence))

    await eventually(is_over, "the lease ends")
    return fence


# Declarations and read models that are no more


async def test_what_an_old_declaration_leaves_is_swept_after_an_hour(database_url, valkey, monkeypatch):
    former = await _left_behind(database_url, valkey)
    rests: list[Pace] = []

    async def rest(pace: Pace) -> None:
        rests.append(pace)

    monkeypatch.setattr(Pace, "rest", rest)
    async with next_version(database_url, valkey.url) as new:
        await sees_in_redis(new, "Dune", "x")
        await _age(new, former, HOUR_S - 60)
        await _sweep(new)
        assert await _is_there(new, former), "not yet"
        assert _keys(valkey, former)
        await _age(new, former, HOUR_S + 60)
        await _sweep(new)
        assert not await _is_there(new, former)
        assert not _keys(valkey, former)
        assert rests, "a million keys would keep Redis busy for many seconds"
        await sees_in_redis(new, "Dune", "x")
        await new.execute(DeleteBook("Dune"))
    # And who comes back to it builds it anew.
    async with catalogue(database_url, valkey.url) as old:
        await sees_in_redis(old, "Dune", None)


async def test_a_read_model_that_was_renamed_or_removed_is_swept_after_a_day(database_url, valkey):
    former = await _left_behind(database_url, valkey)
    async with _renamed(database_url, valkey.url) as new:
        await answered_by(new, "redis")
        await _age(new, former, DAY_S - 60)
        await _sweep(new)
        assert await _is_there(new, former), "it may be another application's, which is being repaired"
        assert _keys(valkey, former)
        await _age(new, former, DAY_S + 60)
    async with _renamed(database_url, valkey.url) as new:

        async def is_gone() -> bool:
            return not await _is_there(new, former)

        await eventually(is_gone, "a process that starts has swept it")
        assert not _keys(valkey, former)
        await answered_by(new, "redis")


async def test_while_redis_is_away_what_tells_of_the_keys_stays(sqlite_url, valkey):
    former = await _left_behind(sqlite_url, valkey)
    async with _renamed(sqlite_url, valkey.url) as new:
        await answered_by(new, "redis")
        await _age(new, former, 2 * DAY_S)
        valkey.pause()
        await _sweep(new)
        valkey.resume()
        assert await _is_there(new, former)
        await answered_by(new, "redis")
        await _sweep(new)
        assert not await _is_there(new, former)
        assert not _keys(valkey, former)


async def test_keys_that_another_database_uses_under_the_same_namespace_stay(sqlite_url, valkey):
    former = await _left_behind(sqlite_url, valkey)
    async with _renamed(sqlite_url, valkey.url) as new:
        await _age(new, former, 2 * DAY_S)
        with redis.Redis.from_url(valkey.url) as client:
            client.set(f"{{{former.read_model}:{former.fingerprint}}}:lease", "r:h:another", px=60_000)
        before = _keys(valkey, former)
        await _sweep(new)
        assert _keys(valkey, former) == before


async def test_what_is_of_another_namespace_is_left_to_its_own_processes(sqlite_url, valkey):
    former = await _left_behind(sqlite_url, valkey)
    async with _renamed(sqlite_url, valkey.url, namespace="another") as new:
        await answered_by(new, "redis")
        await _age(new, former, 2 * DAY_S)
        await _sweep(new)
        assert await _is_there(new, former)
        assert _keys(valkey, former)


async def test_a_declaration_that_is_being_built_for_the_first_time_is_not_swept(sqlite_url, valkey):
    """Its row has no lease yet: that is not one which has been over for an hour."""
    async with catalogue(sqlite_url) as before:
        for number in range(50):
            await before.execute(AddBook(f"{number}", "x"))
    async with catalogue(sqlite_url, valkey.url) as old:
        await answered_by(old, "redis")
        async with next_version(sqlite_url, valkey.url, rebuild_batch_size=10, lease_ms=60_000) as new:
            held = Held(store_of(new), "backfill", after=True)
            await held.reached.wait()
            generation = (await fence_row(new)).generation
            await _sweep(old)
            held.go_on.set()
            await sees_in_redis(new, "7", "x")
            assert (await fence_row(new)).generation == generation, "it had to begin again"


# Generations that no row of the fence names


async def test_what_a_cancelled_rebuild_could_not_delete_is_swept(database_url, valkey):
    async with catalogue(database_url, valkey.url, redis_command_timeout_ms=300) as one:
        await one.execute(AddBook("Dune", "x"))
        await sees_in_redis(one, "Dune", "x")
        fence = keeper_of(one).replica.id
        held = Held(store_of(one), "backfill", after=True)
        rebuilding = asyncio.create_task(one.rebuild(BookReadModel))
        await held.reached.wait()
        valkey.pause()
        rebuilding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await rebuilding
        valkey.resume()
        await sees_in_redis(one, "Dune", "x")
        served = (await fence_row(one)).generation.encode()
        assert _generations(valkey, fence) > {served}, "the rebuild has left what it wrote"
        async with catalogue(database_url, valkey.url):

            async def swept() -> bool:
                return _generations(valkey, fence) == {served}

            await eventually(swept, "a process that starts has swept it")
        await sees_in_redis(one, "Dune", "x")


async def test_what_a_killed_rebuild_leaves_is_swept_after_an_hour(database_url, valkey):
    async with catalogue(database_url, valkey.url) as app:
        await app.execute(AddBook("Dune", "x"))
        await sees_in_redis(app, "Dune", "x")
        row = await fence_row(app)
        beside = await app.orm.side.fence.begin_rebuild(row, "killed", building_s=1.0)
        await store_of(app).begin(Target(row.incarnation, "killed"))
        await _age(app, beside.id, HOUR_S - 60)
        await _sweep(app)
        assert await _is_there(app, beside.id)
        assert b"killed" in _generations(valkey, row.id)
        await _age(app, beside.id, HOUR_S + 60)
        await _sweep(app)
        assert not await _is_there(app, beside.id)
        assert _generations(valkey, row.id) == {row.generation.encode()}
        await agree(app)


@pytest.mark.parametrize("when", ["begin", "backfill"])
async def test_a_rebuild_that_is_under_way_is_not_swept(database_url, valkey, when):
    async with catalogue(database_url, valkey.url) as one, catalogue(database_url, valkey.url) as two:
        await one.execute(AddBook("Dune", "x"))
        await sees_in_redis(one, "Dune", "x")
        held = Held(store_of(one), when, after=True)
        rebuilding = asyncio.create_task(one.rebuild(BookReadModel))
        await held.reached.wait()
        for app in (one, two):
            await _sweep(app)
        held.go_on.set()
        assert await rebuilding == 1
        await sees_in_redis(two, "Dune", "x")
