"""SQL's clock where SQL has none: of all processes that use one SQLite file it is the same."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.books import AddBook
from tests.catalogue import catalogue, fence_row, sees, sees_in_redis, set_author, stop_keeper
from tests.servers import RedisServer

ROOT = Path(__file__).parents[2]

WRITER = """
import asyncio, sys, time
from tests.catalogue import catalogue, set_author

async def main(url):
    async with catalogue(url, lease_ms=3000) as app:
        print(time.time(), flush=True)
        await set_author(app, "Dune", "new")
        print("acknowledged", flush=True)
        sys.stdin.readline()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("ahead_s", [100, -100])
async def test_a_process_whose_clock_differs_is_acknowledged_no_earlier(
    tmp_path: Path,
    valkey: RedisServer,
    clock_ahead_by: Callable[[float], Mapping[str, str]],
    ahead_s: float,
) -> None:
    """★ By a clock that is ahead the lease looks over, while queries still trust it."""
    url = f"sqlite:///{tmp_path / 'test.db'}"
    async with catalogue(url, valkey.url, lease_ms=3000) as app:
        await app.execute(AddBook("Dune", "old"))
        await sees_in_redis(app, "Dune", "old")
        await stop_keeper(app)  # no pass of this process brings it in
        pipe = asyncio.subprocess.PIPE
        writer = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WRITER, url),
            cwd=ROOT,
            env=clock_ahead_by(ahead_s),
            stdin=pipe,
            stdout=pipe,
        )
        assert writer.stdin is not None
        assert writer.stdout is not None
        its_time = float(await writer.stdout.readline())
        assert abs(its_time - ahead_s - time.time()) < 50, "its wall clock is another one"
        assert await writer.stdout.readline() == b"acknowledged\n"
        await sees(app, "Dune", "new")
        writer.stdin.write(b"\n")
        assert await writer.wait() == 0


@pytest.mark.parametrize("off_s", [1e6, -1e6])
async def test_after_a_start_of_the_machine_what_was_promised_before_is_given_its_time_once(
    tmp_path: Path, valkey: RedisServer, off_s: float
) -> None:
    """★ Its monotonic clock begins anew: promises of before would look over, or last for years."""
    file = tmp_path / "test.db"
    url = f"sqlite:///{file}"
    async with catalogue(url, valkey.url, lease_ms=1000) as reader:
        await reader.execute(AddBook("Dune", "x"))
        await sees_in_redis(reader, "Dune", "x")
        generation = (await fence_row(reader)).generation
        await stop_keeper(reader)
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE diptych_history SET clock = 'another-start-of-the-machine 1.0'")
            connection.execute("UPDATE diptych_fence SET lease_until = lease_until + ?", [off_s])
        async with catalogue(url, lease_ms=1000) as writer:
            async with asyncio.timeout(5):
                await set_author(writer, "Dune", "y")
            await sees(reader, "Dune", "y")
        assert (await fence_row(reader)).generation == generation, "the data in Redis are still good"
