"""One of four processes can't reach Redis while the others can: its commands, and what the others notice of it.

Four processes of the catalogue at diptych's default settings, each with 4 readers and 4 writers in it, which pause
between two operations, so that the machine is not saturated: else the processes would only tell of each other's share
of it. The network between one of them and Valkey swallows everything for a period, and delivers it late, afterwards;
periods with and without alternate. The cut-off period is measured from the moment of the cut, the other one from a
second after the link has healed.

What is promised: all commands of the one are acknowledged within 1.5 leases (of 2 s), no answer anywhere is stale,
and the other three do not slow down by more than 10 %. "stale" counts answers of all four that are older than what
was acknowledged, by any of them, before they were asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import multiprocessing
import tempfile
import time
from array import array
from collections.abc import AsyncGenerator, AsyncIterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, cast

from benchmarks.books import seed
from benchmarks.catalogue import PATIENCE_S, answered_by_redis, open_catalogue
from benchmarks.load import Answer, Counters, Load, Pace, Tally, new_counters, share
from benchmarks.runner import Candidate, Case, Sample
from benchmarks.valkey import valkey
from tests.acceptance.faults.proxy import Link
from tests.servers import HOST, PostgresServer

PROCESSES = 4
WRITERS = 4
BOOKS = 10_000
PACES = {
    "SQLite": Pace(readers=4, read_pause_s=0.03, write_pause_s=0.8),  # it has but one writer for all of them
    "PostgreSQL": Pace(readers=4, read_pause_s=0.03, write_pause_s=0.2),
}
LEASE_MS = 2000
SETTLE_S = 1.0


class Job(NamedTuple):
    """What a process needs to know."""

    number: int
    database: str
    redis_url: str
    counters: Path
    pace: Pace


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """The same on both databases."""
    period_s = 3.0 if quick else 5.0
    with tempfile.TemporaryDirectory() as folder, PostgresServer(durable=True) as server, valkey() as store:
        for name, database in (("SQLite", str(Path(folder) / "books.db")), ("PostgreSQL", server.url)):
            await seed(database, BOOKS)
            link = Link(store.port)
            await link.open()
            try:
                async with _processes(database, link, store.url, Path(folder), PACES[name]) as group:
                    candidates = {
                        "all reach Redis": _healed(group, period_s),
                        "one cut off": _cut(group, link, period_s),
                    }
                    rounds = 2 if quick else 21
                    yield Case(f"{name}, {PROCESSES} processes, one cut off", rounds, candidates)
            finally:
                await link.close()
            store.flush()


class Group:
    """The processes; the first is the one that is cut off."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes

    async def take(self) -> list[Tally]:
        """What came out of each of them since the last time."""
        for pipe in self._pipes:
            pipe.send("take")
        return [await asyncio.to_thread(_received, pipe) for pipe in self._pipes]


def _healed(group: Group, period_s: float) -> Candidate:
    async def measure() -> Sample:
        before = await group.take()
        await asyncio.sleep(period_s)
        during = await group.take()
        return _sample(during, before, during[0].commands, period_s)

    return measure


def _cut(group: Group, link: Link, period_s: float) -> Candidate:
    async def measure() -> Sample:
        before = await group.take()
        link.hold()
        await asyncio.sleep(period_s)
        during = await group.take()
        link.heal()
        healed = time.monotonic()
        await asyncio.sleep(SETTLE_S)
        after = await group.take()
        # Those that had waited when it ended are of the period, too.
        late = [one for one in after[0].commands if one.begun < healed]
        return _sample(during, before + after, during[0].commands + late, period_s)

    return measure


def _sample(during: list[Tally], beside: list[Tally], of_one: list[Answer], period_s: float) -> Sample:
    one, *others = during
    commands = [answer for tally in others for answer in tally.commands]
    queries = [answer for tally in others for answer in tally.queries]
    stale = [problem for tally in during + beside for problem in tally.stale]
    errors = [problem for tally in during + beside for problem in tally.errors]
    for problem in (stale + errors)[:5]:
        print(f"! {problem}", flush=True)
    return {
        "the three: commands/s": len(commands) / period_s,
        "the three: queries/s": len(queries) / period_s,
        "the three: median command, ms": share(commands, 0.5),
        "the three: 95 % of commands within, ms": share(commands, 0.95),
        "the three: median query, ms": share(queries, 0.5),
        "the three: 95 % of queries within, ms": share(queries, 0.95),
        "the three: queries answered by SQL, %": 100 * _by_sql(queries),
        "the one: median command, ms": share(of_one, 0.5),
        "the one: longest command, leases": share(of_one, 1.0) / LEASE_MS,
        "the one: commands/s": len(of_one) / period_s,
        "the one: queries/s": len(one.queries) / period_s,
        "the one: median query, ms": share(one.queries, 0.5),
        "the one: queries answered by SQL, %": 100 * _by_sql(one.queries),
        "commands over 1.5 leases, in all": sum(answer.ms > 1.5 * LEASE_MS for answer in of_one + commands),
        "stale answers, in all": len(stale),
        "errors, in all": len(errors),
    }


def _by_sql(queries: list[Answer]) -> float:
    return sum(answer.store == "sql" for answer in queries) / max(1, len(queries))


@contextlib.asynccontextmanager
async def _processes(
    database: str, link: Link, redis_url: str, folder: Path, pace: Pace
) -> AsyncIterator[Group]:
    spawn = multiprocessing.get_context("spawn")
    file = folder / "counters"
    file.write_bytes(array("q", new_counters(PROCESSES * WRITERS)).tobytes())
    through_link = f"redis://{HOST}:{link.port}/0"
    processes: list[BaseProcess] = []
    pipes: list[Connection] = []
    try:
        for number in range(PROCESSES):
            ours, theirs = spawn.Pipe()
            job = Job(number, database, redis_url if number else through_link, file, pace)
            process = spawn.Process(target=_serve, args=(job, theirs), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            pipes.append(ours)
        for pipe in pipes:
            assert await asyncio.to_thread(_received, pipe) == "ready"
        for pipe in pipes:
            pipe.send("start")
        yield Group(pipes)
    finally:
        await asyncio.to_thread(_end, processes, pipes)


def _received(pipe: Connection) -> Any:
    assert pipe.poll(PATIENCE_S), "a process does not answer"
    return pipe.recv()


def _end(processes: list[BaseProcess], pipes: list[Connection]) -> None:
    for pipe in pipes:
        with contextlib.suppress(OSError):
            pipe.send("stop")
    for process in processes:
        process.join(15)
        if process.is_alive():
            process.kill()


def _serve(job: Job, pipe: Connection) -> None:
    logging.getLogger("diptych").setLevel(logging.CRITICAL)  # that Redis is away is no news here
    with contextlib.ExitStack() as exits:
        file = exits.enter_context(job.counters.open("r+b"))
        view = exits.enter_context(memoryview(exits.enter_context(mmap.mmap(file.fileno(), 0))))
        # Integers of eight bytes: each is written and read at once, by whichever process.
        counters = exits.enter_context(view.cast("q"))
        asyncio.run(_work(job, pipe, cast(Counters, counters)))


async def _work(job: Job, pipe: Connection, counters: Counters) -> None:
    async with open_catalogue(job.database, job.redis_url) as app:
        await answered_by_redis(app)
        own = range(job.number * WRITERS, (job.number + 1) * WRITERS)
        load = Load(app, counters, own, BOOKS, job.pace)
        pipe.send("ready")
        with contextlib.suppress(EOFError):  # the parent is no more
            while (order := await asyncio.to_thread(pipe.recv)) != "stop":
                if order == "start":
                    load.start()
                else:
                    pipe.send(load.take())
        await load.stop()
