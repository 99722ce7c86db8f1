"""The servers that the other tests stand on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.conftest import RedisServerFactory
from tests.servers import HOST, PostgresServer, RedisServer, ServerFailedError, free_port, lives


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    with PostgresServer(durable=True, config={"max_connections": "20"}) as server:
        yield server


def _impatient(port: int) -> redis.Redis:
    return redis.Redis(host=HOST, port=port, socket_timeout=0.2, retry=Retry(NoBackoff(), 0))


def test_a_free_port_is_below_the_ports_of_clients() -> None:
    assert 20_000 <= free_port() <= 32_000


async def test_postgres_gives_each_test_an_empty_database(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_stat_user_tables") == 0
        assert await connection.fetchval("SHOW server_encoding") == "UTF8"
    finally:
        await connection.close()


async def test_postgres_orders_text_by_a_language(postgres_server: PostgresServer, postgres_url: str) -> None:
    if postgres_server.locale == "C.UTF-8":
        pytest.skip("missing component: a UTF-8 locale of a language (package locales)")
    connection = await asyncpg.connect(postgres_url)
    try:
        words = "(VALUES ('B'), ('a'), ('é'), ('z')) AS words (word)"
        by_language = await connection.fetch(f"SELECT word FROM {words} ORDER BY word")
        by_code_point = await connection.fetch(f'SELECT word FROM {words} ORDER BY word COLLATE "C"')
    finally:
        await connection.close()
    assert [row["word"] for row in by_language] == ["a", "B", "é", "z"]
    assert [row["word"] for row in by_code_point] == ["B", "a", "z", "é"]


def test_postgres_keeps_its_data_when_it_is_killed_or_restarted(own_postgres: PostgresServer) -> None:
    own_postgres.execute("CREATE TABLE kept AS SELECT 7 AS number")
    port, pid = own_postgres.port, own_postgres.pid
    own_postgres.kill()
    assert not own_postgres.running
    own_postgres.start()
    own_postgres.restart()
    assert own_postgres.execute("SELECT number FROM kept") == "7"
    assert own_postgres.port == port
    assert own_postgres.pid != pid


def test_a_durable_postgres_flushes_to_the_disk_and_takes_settings(own_postgres: PostgresServer) -> None:
    assert own_postgres.execute("SHOW fsync") == "on"
    assert own_postgres.execute("SHOW max_connections") == "20"


def test_a_redis_starts_empty_and_can_be_stopped_and_started(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")
        redis_server.stop()
        redis_server.stop()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        redis_server.start()
        assert client.dbsize() == 0


def test_a_stopped_redis_is_there_again_for_the_next_test(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize("kind", ["valkey", "redis7"])
def test_a_redis_of_ones_own_keeps_what_its_configuration_says(
    redis_server_factory: RedisServerFactory, kind: str
) -> None:
    config = {"appendonly": "yes", "maxmemory-policy": "allkeys-lru", "requirepass": "secret"}
    server = redis_server_factory(config, kind=kind)
    with redis.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
        assert client.info("memory")["maxmemory_policy"] == "allkeys-lru"
    server.kill()
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"
    with (
        _impatient(server.port) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


def test_a_paused_server_answers_nothing_until_it_is_resumed(valkey: RedisServer) -> None:
    with _impatient(valkey.port) as client:
        client.ping()
        valkey.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        valkey.resume()
        assert client.ping()


def test_two_servers_run_beside_each_other(
    redis_server_factory: RedisServerFactory, valkey: RedisServer
) -> None:
    other = redis_server_factory()
    assert other.port != valkey.port
    assert other.pid != valkey.pid


def test_a_server_that_cannot_start_shows_its_log(redis_server_factory: RedisServerFactory) -> None:
    with pytest.raises(ServerFailedError, match="no-such-directive"):
        redis_server_factory({"no-such-directive": "1"})


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda end: end.name)
def test_servers_end_with_the_tests_however_those_end(end: signal.Signals, valkey: RedisServer) -> None:
    program = (
        "import sys, time; from tests.servers import *\n"
        f"server = RedisServer({valkey.binary!r}); server.start()\n"
        "print(server.pid, server.directory, flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=root,
        env=environment,
    ) as tests:
        assert tests.stdout is not None
        pid, directory = tests.stdout.readline().split()
        server = psutil.Process(int(pid))
        tests.send_signal(end)
    deadline = time.monotonic() + 60
    while (lives(server) or Path(directory).exists()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not lives(server)
    assert not Path(directory).exists()


def test_a_missing_component_fails_where_it_is_required(tmp_path: Path) -> None:
    """The switch that .ci/run sets."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_it(): pytest.skip('missing component: x')\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "tests.conftest",
        str(tmp_path),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "DIPTYCH_REQUIRE_COMPONENTS"}

    def run(**more: str) -> int:
        root = Path(__file__).parents[2]
        return subprocess.run(command, cwd=root, env=environment | more, capture_output=True).returncode

    assert run() == 0
    assert run(DIPTYCH_REQUIRE_COMPONENTS="1") == 1
