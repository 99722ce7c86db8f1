"""How long SQL answers after Redis has lost its data, with 100,000 books, while they are read and changed.

One process at diptych's default settings, with 4 readers and 1 writer in it, which pause between two operations. Per
round, in turn: FLUSHALL; Valkey killed and started from a dump that is older than the last acknowledged changes,
within the lease that is in the dump; a replica, promoted a second ago and so lagging, put in the place of
its killed master.

"until SQL answers" runs from the fault to the end of the first answer from SQL; "until Redis answers", from when the
server is back to the end of the first answer that is from Redis again: 10 s at most are promised. "stale" counts
answers that are older than what was acknowledged before they were asked for; "errors" counts failed queries and
commands. "meanwhile" is from the fault until Redis answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path

import redis

from benchmarks.books import seed
from benchmarks.catalogue import PATIENCE_S, answered_by_redis, open_catalogue
from benchmarks.load import Answer, Load, Pace, Tally, new_counters, share
from benchmarks.runner import Candidate, Case, Sample
from benchmarks.valkey import valkey
from tests.servers import HOST, PostgresServer, RedisServer

BOOKS = 100_000
PACE = Pace(readers=4, read_pause_s=0.01, write_pause_s=0.01)
LAG_S = 1.0
STEADY_S = 2.0

Strike = Callable[[], None]
Fault = Callable[["Stores"], contextlib.AbstractAsyncContextManager[Strike]]
"""What prepares a fault, and gives what makes it happen and returns when the server is back."""


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """The faults, on both databases."""
    books = 5_000 if quick else BOOKS
    with tempfile.TemporaryDirectory() as folder, PostgresServer(durable=True) as server:
        for name, database in (("SQLite", str(Path(folder) / "books.db")), ("PostgreSQL", server.url)):
            await seed(database, books)
            async with _loaded(database, books) as (load, stores):
                candidates = {
                    "FLUSHALL": _survived(load, stores, _flushed),
                    "killed, started from an old dump": _survived(load, stores, _restarted_from_a_dump),
                    "failed over to a lagging replica": _survived(load, stores, _failed_over),
                }
                rounds = 1 if quick else 5
                yield Case(f"{name}, {books:,} books", rounds, candidates, warm_up=False, compared=False)


@contextlib.asynccontextmanager
async def _loaded(database: str, books: int) -> AsyncIterator[tuple[Load, Stores]]:
    server = await asyncio.to_thread(valkey().__enter__)
    stores = Stores(server)
    try:
        async with open_catalogue(database, server.url) as app:
            await answered_by_redis(app)
            load = Load(app, new_counters(1), range(1), books, PACE)
            load.start()
            try:
                await asyncio.sleep(STEADY_S)
                yield load, stores
            finally:
                await load.stop()
    finally:
        stores.close()


class Stores:
    """The Valkey that the application knows by its port, whichever server that is at a time."""

    def __init__(self, server: RedisServer) -> None:
        self.port = server.port
        self.server = server

    def close(self) -> None:
        self.server.close()

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(host=HOST, port=self.server.port)

    def replicate(self) -> RedisServer:
        """A new replica that has everything."""
        replica = valkey({"replicaof": f"{HOST} {self.server.port}", "repl-diskless-sync-delay": "0"})
        replica.start()
        with redis.Redis(host=HOST, port=replica.port) as client:
            _until(
                lambda: client.info("replication")["master_link_status"] == "up", "the replica has everything"
            )
        return replica

    def dump(self) -> None:
        with self.client as client:
            before = client.lastsave()
            time.sleep(1.1)  # it is told in whole seconds
            client.bgsave()
            _until(lambda: client.lastsave() > before, "the dump is written")

    def restart(self) -> None:
        self.server.kill()
        self.server.start()

    def replace_by(self, replica: RedisServer) -> None:
        """Kills the server and puts the replica at its port."""
        self.server.kill()
        with redis.Redis(host=HOST, port=replica.port) as client:
            client.config_set("port", self.port)
        replica.config["port"], replica.port = str(self.port), self.port
        replica.config.pop("replicaof")
        self.server.close()
        self.server = replica


@contextlib.asynccontextmanager
async def _flushed(stores: Stores) -> AsyncIterator[Strike]:
    def strike() -> None:
        with stores.client as client:
            client.flushall()

    yield strike


@contextlib.asynccontextmanager
async def _restarted_from_a_dump(stores: Stores) -> AsyncIterator[Strike]:
    await asyncio.to_thread(stores.dump)
    await asyncio.sleep(LAG_S)  # less than a lease
    yield stores.restart


@contextlib.asynccontextmanager
async def _failed_over(stores: Stores) -> AsyncIterator[Strike]:
    replica = await asyncio.to_thread(stores.replicate)
    with redis.Redis(host=HOST, port=replica.port) as client:
        # From here on it lacks what is written: the state of one that lags when its master dies.
        await asyncio.to_thread(client.replicaof, "NO", "ONE")
    await asyncio.sleep(LAG_S)
    yield lambda: stores.replace_by(replica)


def _survived(load: Load, stores: Stores, fault: Fault) -> Candidate:
    async def measure() -> Sample:
        async with fault(stores) as strike:
            before = load.take()
            struck = time.monotonic()
            await asyncio.to_thread(strike)
            back = time.monotonic()
        await _until_steady(load, struck)
        return _sample(before, load.take(), struck, back)

    return measure


async def _until_steady(load: Load, struck: float) -> None:
    """Until SQL has answered, and after it Redis again for a while."""
    while (again := _again(load.last_queries, struck)) is None or time.monotonic() < again.ended + STEADY_S:
        assert time.monotonic() < struck + PATIENCE_S, "Redis does not answer again"
        await asyncio.sleep(0.1)


def _again(queries: list[Answer], struck: float) -> Answer | None:
    """The first answer from Redis that was asked for after one from SQL had come."""
    sql = _first(queries, "sql", struck)
    return None if sql is None else _first(queries, "redis", sql.ended)


def _first(queries: list[Answer], store: str, since: float) -> Answer | None:
    return next((one for one in queries if one.store == store and one.begun >= since), None)


def _sample(before: Tally, after: Tally, struck: float, back: float) -> Sample:
    first, again = _first(after.queries, "sql", struck), _again(after.queries, struck)
    assert first is not None
    assert again is not None
    meanwhile = [one for one in after.queries if struck <= one.begun < again.begun]
    commands = [one for one in after.commands if struck <= one.ended and one.begun < again.begun]
    for problem in [*before.stale, *before.errors, *after.stale, *after.errors][:5]:
        print(f"! {problem}", flush=True)
    return {
        "until SQL answers, s": first.ended - struck,
        "until the server is back, s": back - struck,
        "until Redis answers, s": again.ended - back,
        "stale answers, in all": len(before.stale) + len(after.stale),
        "errors, in all": len(before.errors) + len(after.errors),
        "queries meanwhile": len(meanwhile),
        "of these, by SQL": sum(one.store == "sql" for one in meanwhile),
        "median of a query meanwhile, ms": share(meanwhile, 0.5),
        "longest query meanwhile, ms": share(meanwhile, 1.0),
        "commands meanwhile": len(commands),
        "median of a command meanwhile, ms": share(commands, 0.5),
        "longest command meanwhile, ms": share(commands, 1.0),
    }


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)
