"""Two Redis masters with different clocks behind one address: what was read of one is never used on the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import redis

from diptych import Diptych
from diptych.read.store.state import RedisState
from tests.acceptance.faults.proxy import Link
from tests.books import AddBook
from tests.catalogue import answered_by, catalogue, eventually, redis_side_of, sees_in_redis, store_of
from tests.servers import HOST, RedisServer, free_port

LEASE_MS = 400


@contextlib.asynccontextmanager
async def _address(server: RedisServer) -> AsyncIterator[Link]:
    link = Link(server.port)
    await link.open()
    try:
        yield link
    finally:
        await link.close()


def _look_elsewhere(app: Diptych, link: Link, other: RedisServer, looks: Callable[[], int]) -> None:
    """Has one of the looks go to the other server: the address leads there while the pooled connection is in use.

    ``looks`` is how many come before it, asked at each.
    """
    store, redis_service = store_of(app), redis_side_of(app).service
    look = store.inspect
    has_been_there = False

    async def looking(generation: str) -> RedisState:
        nonlocal has_been_there
        if has_been_there or looks() > 0:
            return await look(generation)
        has_been_there = True
        async with redis_service.commanding():
            here, link.target = link.target, other.port
            try:
                return await look(generation)
            finally:
                link.target = here

    store.inspect = looking  # type: ignore[method-assign]


def _longest_lease_ms(server: RedisServer) -> int:
    with redis.Redis.from_url(server.url) as client:
        return max((client.pttl(key) for key in client.keys("*:lease")), default=0)


async def _never_leased_for_longer(app: Diptych, server: RedisServer) -> None:
    """Until Redis answers, and a lease longer."""
    seen = [0]

    async def watch() -> None:
        while True:
            seen.append(_longest_lease_ms(server))
            await asyncio.sleep(0.01)

    watching = asyncio.ensure_future(watch())
    await sees_in_redis(app, "Dune", "x")
    await asyncio.sleep(LEASE_MS / 1000)
    watching.cancel()
    assert 0 < max(seen) <= LEASE_MS


@pytest.mark.parametrize("when", ["at the end of a build", "in a keeper's first pass"])
async def test_a_lease_never_ends_by_the_clock_of_another_server(
    database_url: str,
    redis_server_factory: Any,
    clock_ahead_by: Callable[[float], Mapping[str, str]],
    when: str,
) -> None:
    """★ Else nobody but its readers would know how long it is trusted: 30 s here, where 0.44 are promised."""
    right, ahead = redis_server_factory(), redis_server_factory(environment=clock_ahead_by(30))
    async with _address(right) as link:
        url = f"redis://{HOST}:{link.port}/0"
        app = catalogue(database_url, url, lease_ms=LEASE_MS)
        if when == "in a keeper's first pass":
            async with app:
                await app.execute(AddBook("Dune", "x"))
                await answered_by(app, "redis")
            await asyncio.sleep(LEASE_MS / 1000 * 1.2)  # so that nothing is promised any more
            before = iter([1])
            link.target = free_port()  # away, so that no keeper looks before it is seen where to
            async with app:
                _look_elsewhere(app, link, ahead, lambda: next(before, 0))
                link.target = right.port
                await _never_leased_for_longer(app, right)
        else:
            async with catalogue(database_url) as writer:
                await writer.execute(AddBook("Dune", "x"))
            link.target = free_port()
            async with app:
                builds: list[str] = []
                store = store_of(app)
                begin = store.begin

                async def beginning(target: Any) -> str:
                    builds.append(target.generation)
                    return await begin(target)

                store.begin = beginning  # type: ignore[method-assign]
                _look_elsewhere(app, link, ahead, lambda: 1 - len(builds))
                link.target = right.port
                await _never_leased_for_longer(app, right)
        with redis.Redis.from_url(ahead.url) as client:
            assert client.info("commandstats").get("cmdstat_time", {"calls": 0})["calls"] > 0, (
                "it was looked at"
            )


async def test_a_lease_that_came_with_the_data_of_another_server_holds_nobody_up(
    database_url: str, redis_server_factory: Any, clock_ahead_by: Callable[[float], Mapping[str, str]]
) -> None:
    """A replica is handed it with the data, and keeps it for as long as the clocks are apart."""
    ahead, right = redis_server_factory(environment=clock_ahead_by(30)), redis_server_factory()
    async with (
        _address(ahead) as link,
        catalogue(database_url, f"redis://{HOST}:{link.port}/0", lease_ms=LEASE_MS) as app,
    ):
        await app.execute(AddBook("Dune", "x"))
        await answered_by(app, "redis")
        with redis.Redis.from_url(right.url) as client:
            client.replicaof(HOST, ahead.port)

            async def has_the_data() -> bool:
                return bool(client.info("replication")["master_link_status"] == "up")

            await eventually(has_the_data, "the replica has the data")
            client.replicaof("NO", "ONE")
        link.target = right.port
        link.cut()
        ahead.close()
        await sees_in_redis(app, "Dune", "x")
        assert _longest_lease_ms(right) <= LEASE_MS
