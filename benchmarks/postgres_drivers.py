"""asyncpg and psycopg 3 under the statements of diptych's units of work and reads, on a real PostgreSQL.

Both run the same SQLAlchemy Core statements through engines set up alike (units of work at REPEATABLE READ, reads
in autocommit, the pool of diptych's defaults), in one process and one event loop, on the same tables. ``add`` and
``change`` are commands with their row of the change log, ``one`` is a read by unique key, ``page`` reads 50 rows.
Commands run on a server that waits for the disk (durable) and on one that does not; reads need no disk. The CPU
time is that of the client's process alone; the server's is not in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.books import seed
from benchmarks.runner import Candidate, Case, Sample
from benchmarks.statements import Books
from diptych import ConfigService
from tests.servers import PostgresServer

COMMANDS = ("add", "change")
READS = ("one", "page")
CONCURRENCY = (1, 32)


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """Each operation at each concurrency."""
    for durable in (False, True):
        with PostgresServer(durable=durable) as server:
            async with _drivers(server.url) as drivers:
                for operation in COMMANDS if durable else COMMANDS + READS:
                    for clients in CONCURRENCY:
                        yield _case(drivers, operation, clients, durable, quick)


def _case(drivers: Mapping[str, Books], operation: str, clients: int, durable: bool, quick: bool) -> Case:
    where = "" if operation in READS else ", durable" if durable else ", not durable"
    duration_s = 0.1 if quick else 0.3
    candidates = {name: _measured(books, operation, clients, duration_s) for name, books in drivers.items()}
    return Case(f"{operation}, {clients} at once{where}", 2 if quick else 25, candidates)


def _measured(books: Books, operation: str, clients: int, duration_s: float) -> Candidate:
    perform = getattr(books, operation)

    async def client(number: int, deadline: float) -> int:
        done = 0
        while time.perf_counter() < deadline:
            await perform(number)
            done += 1
        return done

    async def measure() -> Sample:
        begin, begin_cpu = time.perf_counter(), time.process_time()
        done = sum(await asyncio.gather(*(client(n, begin + duration_s) for n in range(clients))))
        elapsed, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
        return {"operations/s": done / elapsed, "client CPU, µs/operation": cpu / done * 1e6}

    return measure


@contextlib.asynccontextmanager
async def _drivers(url: str) -> AsyncIterator[dict[str, Books]]:
    await seed(url)
    numbers = itertools.count(1_000_000)
    async with contextlib.AsyncExitStack() as exits:
        drivers = {}
        for name, engine in (("asyncpg", _asyncpg), ("psycopg", _psycopg)):
            writer = engine(url, "synchronous_commit", isolation_level="REPEATABLE READ")
            reader = engine(url, "default_transaction_read_only", isolation_level="AUTOCOMMIT")
            exits.push_async_callback(writer.dispose)
            exits.push_async_callback(reader.dispose)
            drivers[name] = Books(writer, reader, numbers)
        yield drivers


def _asyncpg(url: str, switched_on: str, **options: Any) -> AsyncEngine:
    return _engine(url, "asyncpg", {"server_settings": {switched_on: "on"}}, options)


def _psycopg(url: str, switched_on: str, **options: Any) -> AsyncEngine:
    return _engine(url, "psycopg", {"options": f"-c {switched_on}=on"}, options)


def _engine(url: str, driver: str, connect_args: dict[str, Any], options: dict[str, Any]) -> AsyncEngine:
    return create_async_engine(
        make_url(url).set(drivername=f"postgresql+{driver}"),
        connect_args=connect_args,
        pool_size=ConfigService(environ={}).get("DATABASE_POOL_SIZE"),
        max_overflow=0,
        pool_use_lifo=True,
        **options,
    )
