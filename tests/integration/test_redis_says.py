"""What Redis says when it refuses is in the health and in one line of the log, with what to do about it."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from diptych import RedisRefusedError, RedisService
from diptych.http import cache_status
from tests.books import AddBook, GetBook
from tests.catalogue import answered_by, catalogue, eventually, sees, sees_in_redis
from tests.servers import HOST, RedisServer, free_port

ROOT = Path(__file__).parents[2]
RIGHTS = re.search(r"^user app on >secret (.*)$", (ROOT / "docs/how-to/redis.md").read_text(), re.MULTILINE)[
    1
]  # type: ignore[index]
COMMANDS = [name for name in re.findall(r"\+(\S+)", RIGHTS) if "script" not in name and name != "ping"]


def _told(caplog: pytest.LogCaptureFixture, words: str = "") -> list[str]:
    texts = (record.getMessage() for record in caplog.records if record.name == "diptych.redis")
    return [text for text in texts if "can't be used" in text and words in text]


@pytest.fixture(params=["valkey", "redis7"])
def server(request: pytest.FixtureRequest, redis_server_factory) -> RedisServer:
    """One of each kind, whose settings a test may change."""
    own: RedisServer = redis_server_factory(kind=request.param)
    return own


@pytest.fixture
def admin(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


WRITES = {
    "OOM": ({"maxmemory": "1"}, {"maxmemory": "0"}, "raise its maxmemory"),
    "NOREPLICAS": ({"min-replicas-to-write": "1"}, {"min-replicas-to-write": "0"}, "bring its replicas back"),
}


@pytest.mark.parametrize("code", WRITES)
async def test_a_redis_that_refuses_writes_is_told_once_in_its_own_words(
    database_url, server, admin, caplog, code
):
    broken, mended, mend = WRITES[code]
    caplog.set_level(logging.INFO, "diptych.redis")
    async with catalogue(database_url, server.url) as app:
        await answered_by(app, "redis")
        for _ in range(2):  # told again after it was well
            caplog.clear()
            _configure(admin, broken)

            async def is_told() -> bool:
                health = (await app.health(details=True)).redis
                return health.state == "refused" and bool(re.match(f"{code} .*: {mend}", str(health.detail)))

            await eventually(is_told, f"the health names {code}")
            await app.execute(AddBook(f"{time.monotonic()}", "x"))
            await answered_by(app, "sql")
            found = (await app.ask(GetBook("Dune"))).served
            assert cache_status(found) == "diptych; fwd=bypass; detail=redis-refused"
            await asyncio.sleep(2)  # many probes, and several leases
            assert await is_told()
            assert len(_told(caplog)) == len(_told(caplog, code)) == 1, caplog.text
            hidden = (await app.health()).redis
            assert (hidden.state, code in str(hidden.detail)) == ("refused", False), "strangers need not know"
            _configure(admin, mended)
            await answered_by(app, "redis")
            assert (await app.health(details=True)).redis.detail is None


async def test_snapshots_that_fail_are_told(sqlite_url, redis_server_factory, caplog):
    server = redis_server_factory({"save": "3600 1000000"})
    with redis.Redis.from_url(server.url) as client:
        async with catalogue(sqlite_url, server.url) as app:
            await answered_by(app, "redis")
            # A directory in the place of the file: not even root can write a snapshot then.
            (server.directory / "dump.rdb").mkdir()
            client.bgsave()

            async def is_told() -> bool:
                health = (await app.health(details=True)).redis
                return health.state == "refused" and str(health.detail).startswith("MISCONF ")

            await eventually(is_told, "the health names MISCONF")
            assert "stop-writes-on-bgsave-error" in str((await app.health(details=True)).redis.detail)
            client.config_set("stop-writes-on-bgsave-error", "no")
            await answered_by(app, "redis")
            assert len(_told(caplog)) == 1


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_command_that_the_user_may_not_run_is_named_at_start(server, admin, command):
    admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", *RIGHTS.split())
    url = f"redis://app:secret@{HOST}:{server.port}/0"
    whole = RedisService(url, critical=True, namespace="shop")
    await whole.start()
    await whole.close()
    admin.execute_command("ACL", "SETUSER", "app", f"-{command}")
    lacking = RedisService(url, critical=True, namespace="shop")
    with pytest.raises(RedisRefusedError, match=f"NOPERM .*'{command}'.*give its user the rights"):
        await lacking.start()
    await lacking.close()
    assert admin.keys() == []


def test_the_page_names_every_command_in_use():
    """In scripts and in calls, and no other."""
    sources = [path.read_text() for kind in ("*.lua", "*.py") for path in (ROOT / "src/diptych").rglob(kind)]
    called = re.compile(r"""(?:redis\.p?call\(|\.call\(\s*|[\w.]*_scanned\(\s*|packed\(b)['"]([A-Z_]+)['"]""")
    either = re.compile(r"""(?:call\(|command = ).*'([A-Z]+)' or '([A-Z]+)'""")
    used = {name.lower() for text in sources for name in called.findall(text)}
    used |= {name.lower() for text in sources for names in either.findall(text) for name in names}
    assert used - {"script"} <= {*COMMANDS, "ping"}
    assert {*COMMANDS} - used == {"evalsha", "evalsha_ro"} - used


async def test_a_right_that_is_taken_away_later_is_told_once(sqlite_url, server, admin, caplog):
    admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all")
    async with catalogue(sqlite_url, f"redis://app:secret@{HOST}:{server.port}/0") as app:
        await answered_by(app, "redis")
        admin.execute_command("ACL", "SETUSER", "app", "-mget")

        async def is_told() -> bool:
            await app.ask(GetBook("Dune"))
            health = (await app.health(details=True)).redis
            return health.state == "refused" and "'mget'" in str(health.detail)

        await eventually(is_told, "the health names the command")
        for _ in range(20):
            assert (await app.ask(GetBook("Dune"))).served.reason == "redis-refused"
            await asyncio.sleep(0.05)
        assert len(_told(caplog)) <= 2, caplog.text  # once as the query heard it, once as the probe did
        admin.execute_command("ACL", "SETUSER", "app", "+mget")
        await answered_by(app, "redis")


async def test_a_wrong_password_is_told_once_and_not_shown(sqlite_url, redis_server_factory, caplog):
    server = redis_server_factory({"requirepass": "s3cret"})
    for url, code in (
        (f"redis://:wr0ng@{HOST}:{server.port}/0", "WRONGPASS"),
        (f"redis://{HOST}:{server.port}/0", "NOAUTH"),
    ):
        caplog.clear()
        async with catalogue(sqlite_url, url) as app:
            await asyncio.sleep(0.5)
            health = (await app.health(details=True)).redis
            assert health.state == "refused"
            assert re.match(f"{code} .*REDIS_URL", str(health.detail)), health.detail
            assert (await app.ask(GetBook("Dune"))).served.reason == "redis-refused"
        assert len(_told(caplog, code)) == len(_told(caplog)) == 1
        assert "wr0ng" not in caplog.text


@pytest.mark.parametrize("kind", ["valkey", "redis7"])
async def test_a_node_of_a_cluster_is_refused(redis_server_factory, kind):
    server = redis_server_factory({"cluster-enabled": "yes", "cluster-port": str(free_port())}, kind=kind)
    service = RedisService(server.url, critical=True)
    with pytest.raises(RedisRefusedError, match=r"node of a Redis Cluster.*single server"):
        await service.start()
    await service.close()


@pytest.fixture
def sentinel_port(valkey: RedisServer, tmp_path: Path) -> Iterator[int]:
    """A real Sentinel."""
    port = free_port()
    file = tmp_path / "sentinel.conf"
    watched = f"sentinel monitor main {HOST} {valkey.port} 1"
    file.write_text(f"port {port}\nbind {HOST}\ndir {tmp_path}\n{watched}\n")
    with subprocess.Popen([valkey.binary, str(file), "--sentinel"], stdout=subprocess.DEVNULL) as sentinel:
        yield port
        sentinel.terminate()


async def test_a_sentinel_is_refused(sentinel_port):
    service = RedisService(f"redis://{HOST}:{sentinel_port}/0")

    async def is_refused() -> bool:
        assert not await service.probe()
        return service.refused  # else it is not up yet

    await eventually(is_refused, "the Sentinel is known for one")
    assert str(service.problem).startswith("it is a Sentinel: REDIS_URL must lead to the master")
    await service.close()


async def test_a_redis_that_is_loading_its_data_is_waited_for(sqlite_url, redis_server_factory):
    server = redis_server_factory(
        {"save": "3600 1000000", "key-load-delay": "2000", "loading-process-events-interval-bytes": "1024"},
        kind="redis7",
    )
    with redis.Redis.from_url(server.url) as client:
        client.mset({f"{number}": number for number in range(2000)})
        client.save()
    server.kill()
    starting = threading.Thread(target=server.start)
    starting.start()
    try:
        async with catalogue(sqlite_url, server.url) as app:

            async def is_told() -> bool:
                return str((await app.health(details=True)).redis.detail).startswith("LOADING ")

            await eventually(is_told, "the health names LOADING")
            assert (await app.health(details=True)).redis.state == "away"
            assert (await app.ask(GetBook("Dune"))).served.reason == "redis-away"
    finally:
        starting.join()


async def test_a_connection_that_is_closed_while_it_is_idle_is_no_outage(sqlite_url, server, admin, caplog):
    caplog.set_level(logging.INFO, "diptych")
    async with catalogue(sqlite_url, server.url, lease_ms=10_000) as app:
        await app.execute(AddBook("Dune", "x"))
        await sees_in_redis(app, "Dune", "x")
        caplog.clear()
        assert admin.client_kill_filter(_type="normal", skipme=True) >= 1
        await asyncio.sleep(0.2)  # the process hears of it, with nobody waiting
        assert (await app.health(details=True)).redis.state == "up"
        found = await app.ask(GetBook("Dune"))
        assert found.served.store == "redis"
        await sees(app, "Dune", "x")
        assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_a_query_that_is_not_answered_in_time_says_so(sqlite_url, valkey):
    async with catalogue(sqlite_url, valkey.url, redis_query_timeout_ms=30, lease_ms=10_000) as app:
        await answered_by(app, "redis")
        valkey.pause()
        served = (await app.ask(GetBook("Dune"))).served
        valkey.resume()
        assert (served.store, served.reason) == ("sql", "redis-away")


def _configure(admin: redis.Redis, values: dict[str, str]) -> None:
    for name, value in values.items():
        admin.config_set(name, value)


async def test_a_script_of_somebody_else_is_waited_for(sqlite_url, server, admin, caplog):
    admin.config_set("busy-reply-threshold", "50")
    async with catalogue(sqlite_url, server.url) as app:
        await app.execute(AddBook("Dune", "x"))
        await sees_in_redis(app, "Dune", "x")
        with pytest.raises(redis.TimeoutError), redis.Redis.from_url(server.url, socket_timeout=0.2) as other:
            other.eval("while true do end", 0)

        async def is_told() -> bool:
            return str((await app.health(details=True)).redis.detail).startswith("BUSY ")

        await eventually(is_told, "the health names BUSY")
        assert (await app.health(details=True)).redis.state == "away"  # it passes
        await sees(app, "Dune", "x")
        admin.execute_command("SCRIPT", "KILL")
        await sees_in_redis(app, "Dune", "x")
        assert len(_told(caplog)) == len(_told(caplog, "SCRIPT KILL")) == 1, caplog.text


async def test_a_master_that_becomes_a_replica_without_one_is_told(sqlite_url, server, admin, caplog):
    admin.config_set("replica-serve-stale-data", "no")
    async with catalogue(sqlite_url, server.url) as app:
        await app.execute(AddBook("Dune", "x"))
        await sees_in_redis(app, "Dune", "x")
        admin.execute_command("REPLICAOF", HOST, free_port())

        async def is_told() -> bool:
            detail = str((await app.health(details=True)).redis.detail)
            return detail.endswith("REDIS_URL must lead to the master")

        await eventually(is_told, "the health says that it is no master")
        await sees(app, "Dune", "x")
        admin.execute_command("REPLICAOF", "NO", "ONE")
        await sees_in_redis(app, "Dune", "x")
        assert 1 <= len(_told(caplog)) <= 2, caplog.text  # MASTERDOWN, then that it is a replica
