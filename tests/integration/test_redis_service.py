"""RedisService: what it refuses, how it fails, and that an outage is cheap."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest
import redis

from diptych import ConfigurationError, RedisRefusedError, RedisService, RedisUnavailableError
from tests.books import AddBook, GetBook
from tests.catalogue import answered_by, catalogue, eventually, sees_in_redis
from tests.servers import free_port


async def test_a_reachable_redis_is_available(redis_url):
    service = RedisService(redis_url)
    await service.start()
    assert service.available
    await service.close()
    await service.close()


async def test_a_critical_redis_that_is_away_stops_the_start_and_is_named(sqlite_url):
    address = f"redis://user:geheim@127.0.0.1:{free_port()}/0"
    app = catalogue(sqlite_url, address, redis_critical=True)
    with pytest.raises(RedisUnavailableError) as caught:
        await app.start()
    assert f"redis://user:***@127.0.0.1:{address.rsplit(':', 1)[1]}" in str(caught.value)
    assert "geheim" not in str(caught.value)
    await app.stop()


async def test_a_redis_that_is_not_critical_costs_one_warning(sqlite_url, caplog):
    async with catalogue(sqlite_url, f"redis://127.0.0.1:{free_port()}/0") as app:
        for number in range(5):
            await app.execute(AddBook(f"{number}", "x"))
            document = await app.ask(GetBook(f"{number}"))
            assert (document.served.store, document.served.reason) == ("sql", "redis-away")
        await asyncio.sleep(0.1)  # some turns of the probe
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING and r.name == "diptych.redis"]
    assert len(warnings) == 1


async def test_a_critical_redis_that_goes_away_makes_queries_fail_and_commands_go_on(
    sqlite_url, redis_server
):
    async with catalogue(sqlite_url, redis_server.url, redis_critical=True) as app:
        # Reachable, but not yet to be trusted: SQL answers.
        assert (await app.ask(GetBook("Dune"))).served.store in ("sql", "redis")
        await answered_by(app, "redis")
        redis_server.kill()
        for _ in range(5):
            with pytest.raises(RedisUnavailableError):
                await app.ask(GetBook("Dune"))
        await app.execute(AddBook("Dune", "x"))
        redis_server.start()
        await answered_by(app, "redis")
        assert await app.ask(GetBook("Dune"))


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
async def test_a_policy_that_drops_keys_is_refused_by_name(redis_server_factory, policy):
    server = redis_server_factory({"maxmemory-policy": policy})
    service = RedisService(server.url, critical=True)
    with pytest.raises(RedisRefusedError, match=f"maxmemory-policy is {policy}.*set maxmemory-policy to"):
        await service.start()
    await service.close()


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru", "volatile-ttl"])
async def test_policies_that_keep_keys_without_expiry_are_taken(redis_server_factory, policy):
    server = redis_server_factory({"maxmemory-policy": policy})
    service = RedisService(server.url, critical=True)
    await service.start()
    assert service.available
    await service.close()


async def test_a_refused_redis_makes_sql_answer_and_says_why(sqlite_url, redis_server_factory):
    server = redis_server_factory({"maxmemory-policy": "allkeys-lru"})
    async with catalogue(sqlite_url, server.url) as app:
        document = await app.ask(GetBook("Dune"))
        assert (document.served.store, document.served.reason) == ("sql", "redis-refused")
        health = await app.health(details=True)
        assert health.redis.state == "refused"
        assert "maxmemory-policy" in str(health.redis.detail)


async def test_a_replica_is_refused(redis_server_factory, valkey):
    server = redis_server_factory({"replicaof": f"127.0.0.1 {valkey.port}"})
    service = RedisService(server.url, critical=True)
    with pytest.raises(RedisRefusedError, match="replica"):
        await service.start()
    await service.close()


async def test_password_and_acl_user_come_from_the_url_and_a_wrong_one_is_not_shown(redis_server_factory):
    server = redis_server_factory({"user": "app on >s3cret ~* +@all"})
    right = RedisService(f"redis://app:s3cret@127.0.0.1:{server.port}/0", critical=True)
    await right.start()
    assert right.available
    await right.close()
    wrong = RedisService(f"redis://app:wr0ng@127.0.0.1:{server.port}/0", critical=True)
    with pytest.raises(RedisUnavailableError) as caught:
        await wrong.start()
    assert "wr0ng" not in str(caught.value)
    await wrong.close()


@pytest.mark.parametrize("url", ["http://x", "redis://", "redis://host:port", "localhost:6379"])
def test_a_malformed_url_is_refused(url):
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        RedisService(url)


async def test_while_redis_is_silent_only_the_first_queries_wait(sqlite_url):
    """A server that accepts and never answers: the breaker opens, and queries no longer ask it."""
    accepted = 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, family=socket.AF_INET)
    port = server.sockets[0].getsockname()[1]
    timeouts = {
        "redis_query_timeout_ms": 50,
        "redis_command_timeout_ms": 100,
        "redis_probe_interval_ms": 60_000,
    }
    async with server, catalogue(sqlite_url, f"redis://127.0.0.1:{port}/0", **timeouts) as app:
        before = accepted
        for _ in range(100):
            assert (await app.ask(GetBook("Dune"))).served.store == "sql"
        assert accepted - before <= 1  # the probe at most


async def test_the_breaker_opens_under_load_and_a_probe_closes_it(sqlite_url, valkey):
    async with catalogue(
        sqlite_url, valkey.url, redis_query_timeout_ms=50, redis_command_timeout_ms=200
    ) as app:
        await answered_by(app, "redis")
        valkey.pause()
        answers = await asyncio.gather(*(app.ask(GetBook("Dune")) for _ in range(200)))
        assert {answer.served.store for answer in answers} == {"sql"}
        valkey.resume()

        async def hit() -> bool:
            return (await app.ask(GetBook("Dune"))).served.store == "redis"

        await eventually(hit, "Redis answers again, without a rebuild being needed")


async def test_a_master_that_is_made_a_replica_is_noticed_on_open_connections(
    sqlite_url, redis_server_factory, valkey
):
    """Its connections stay open, and it begins to take over another master's data."""
    server = redis_server_factory()
    async with catalogue(sqlite_url, server.url) as app:
        await answered_by(app, "redis")
        with redis.Redis.from_url(server.url) as client:
            client.replicaof("127.0.0.1", str(valkey.port))
        await answered_by(app, "sql")
        assert (await app.health()).redis.state == "refused"
        with redis.Redis.from_url(server.url) as client:
            client.replicaof("NO", "ONE")
        await app.execute(AddBook("Dune", "x"))
        await sees_in_redis(app, "Dune", "x")


async def test_commands_go_on_at_once_while_redis_is_silent(database_url, valkey):
    """Only those that were under way wait for it, and none of them holds the others back."""
    # The shorter of them is more than a busy machine takes for the commands.
    timeouts = {"redis_command_timeout_ms": 6000, "database_timeout_ms": 5000}
    async with catalogue(database_url, valkey.url, **timeouts) as app:
        await answered_by(app, "redis")
        valkey.pause()
        await asyncio.gather(*(app.execute(AddBook(f"{number}", "x")) for number in range(40)))
        for number in range(40):
            assert await app.ask(GetBook(f"{number}"))
        valkey.resume()
