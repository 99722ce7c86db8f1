"""What the keepers cost while nothing happens: four processes of the catalogue, with Redis and without.

``diptych run --workers 4``, with Valkey, is left alone once Valkey answers; in its turn the same without Redis, where
there are no keepers, and a Valkey that nobody uses. The difference is the keepers' cost: less than 1 % of a core is
promised, for the whole deployment. Times are those that Linux's scheduler counts for every thread of the processes
(parent and workers; PostgreSQL with its children; Valkey). Commands that scripts call count as commands.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import redis

from benchmarks.books import seed
from benchmarks.runner import Candidate, Case, Sample
from benchmarks.valkey import valkey
from tests.acceptance.serving import CatalogueServer
from tests.servers import PostgresServer, RedisServer

WORKERS = 4
SETTLE_S = 3.0


class Counts(NamedTuple):
    """What has been counted up to a moment. CPU times are in seconds."""

    catalogue: float
    sql: float
    redis: float
    passes: int
    commits: int
    scripts: int
    commands: int


class Database(NamedTuple):
    """Where the books are. ``server`` is None for SQLite, which runs in the processes."""

    url: str
    server: PostgresServer | None
    ask: Callable[[str], int]


class Workers(CatalogueServer):
    """The catalogue, served by several processes."""

    def command(self) -> list[str]:
        return [*super().command(), "--workers", str(WORKERS)]


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """Both databases."""
    with tempfile.TemporaryDirectory() as folder, PostgresServer(durable=True) as server:
        for name, database in (("SQLite", _sqlite(Path(folder))), ("PostgreSQL", _postgresql(server))):
            await seed(database.url, 100)
            seconds = 10.0 if quick else 20.0
            candidates = {
                "no keepers": _idle(database, with_redis=False, seconds=seconds),
                "keepers": _idle(database, with_redis=True, seconds=seconds),
            }
            yield Case(f"{name}, {WORKERS} processes", 1 if quick else 3, candidates, warm_up=False)


def _sqlite(folder: Path) -> Database:
    file = folder / "books.db"

    def ask(query: str) -> int:
        with contextlib.closing(sqlite3.connect(file)) as connection:
            return int(connection.execute(query).fetchone()[0])

    return Database(f"sqlite:///{file}", None, ask)


def _postgresql(server: PostgresServer) -> Database:
    name = server.create_database()
    return Database(server.url_of(name), server, lambda query: int(server.execute(query, name)))


def _idle(database: Database, *, with_redis: bool, seconds: float) -> Candidate:
    async def measure() -> Sample:
        with valkey() as store, Workers(database.url, store.url if with_redis else "none") as catalogue:
            await asyncio.to_thread(_await_all, catalogue)
            await asyncio.sleep(SETTLE_S)
            before = _count(catalogue, database, store)
            await asyncio.sleep(seconds)
            after = _count(catalogue, database, store)
        return _rates(before, after, seconds)

    return measure


def _await_all(catalogue: Workers) -> None:
    """Until every process answers as it will go on to: a new connection goes to any of them."""
    in_a_row = 0
    while in_a_row < 10 * WORKERS:
        answer = httpx.get(f"{catalogue.url}/books?limit=1")
        in_a_row = in_a_row + 1 if answer.headers["cache-status"] == catalogue.cache_status else 0


def _count(catalogue: Workers, database: Database, store: RedisServer) -> Counts:
    cpu = (
        _cpu(catalogue.pid),
        0.0 if database.server is None else _cpu(database.server.pid),
        _cpu(store.pid),
    )
    commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    return Counts(
        *cpu,
        passes=database.ask("SELECT coalesce(sum(passes_completed), 0) FROM diptych_fence"),
        commits=0 if database.server is None else database.ask(commits),
        **_redis_counts(store),
    )


def _cpu(pid: int) -> float:
    """Seconds that the threads of a process and of its children have run; what has ended is left out."""
    process = psutil.Process(pid)
    return sum(map(_ran_s, (process.pid, *(child.pid for child in process.children(recursive=True)))))


def _ran_s(pid: int) -> float:
    ran_ns = 0
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            ran_ns += int(thread.read_text().split()[0])
    return ran_ns / 1e9


def _redis_counts(store: RedisServer) -> dict[str, int]:
    with redis.Redis.from_url(store.url) as client:
        stats = client.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): int(stat["calls"]) for name, stat in stats.items()}
    return {"scripts": calls.get("evalsha", 0) + calls.get("evalsha_ro", 0), "commands": sum(calls.values())}


def _rates(before: Counts, after: Counts, seconds: float) -> Sample:
    a_second = Counts(*((b - a) / seconds for a, b in zip(before, after, strict=True)))  # type: ignore[arg-type]
    return {
        "all, % of a core": 100 * (a_second.catalogue + a_second.sql + a_second.redis),
        "processes of the catalogue, % of a core": 100 * a_second.catalogue,
        "PostgreSQL, % of a core": 100 * a_second.sql,
        "Valkey, % of a core": 100 * a_second.redis,
        "passes/s": a_second.passes,
        "commits of PostgreSQL/s": a_second.commits,
        "scripts of Valkey/s": a_second.scripts,
        "commands of Valkey/s": a_second.commands,
    }
