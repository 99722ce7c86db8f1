"""What a command on a document made from several rows costs beside one on a plain document, from three processes.

Each adds a row: of a plain document, of a joined one, an element of a list with `each`, and a review of a document
with the newest five of them, their number and their average. Three processes share a database and a Valkey at
diptych's default settings; one of them makes the passes. To be shown: the median is at most 1.6 times
that of a plain document, one at a time and in the slowest of the three. Then 32 at once in each of them, all on one
parent. The query after every answer has to show exactly what was added, or the benchmark fails. Redis should answer;
answers by SQL are counted: after a quarter of a second a command no longer waits for others' changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.claims import Claim
from benchmarks.runner import Candidate, Case, Sample
from benchmarks.servers import stored
from benchmarks.trees import THIS
from benchmarks.valkey import valkey
from benchmarks.workers import Worker, working
from tests.servers import PostgresServer

PROCESSES, CLIENTS = 3, 32
DATABASES = ("SQLite", "PostgreSQL")
PLAIN, JOINED, EACH, NESTED = "plain", "joined", "each", "nested"
SLOWEST = "the slowest process's median, ms"
ONE = "{}, a row added, one at a time"
MANY = "{}, rows of one parent added, " + f"{CLIENTS} at once in each process"

CLAIMS = tuple(
    Claim(ONE.format(database), SLOWEST, way, PLAIN, at_most=1.6)
    for database in DATABASES
    for way in (JOINED, EACH, NESTED)
)


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """Both databases, one command at a time and many at once."""
    rounds, calls = (2, 20) if quick else (15, 60)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(stored(PostgresServer(durable=True)))
        store = stack.enter_context(stored(valkey()))
        urls = (f"sqlite:///{folder / 'rows.db'}", server.url_of(server.create_database()))
        for database, url in zip(DATABASES, urls, strict=True):
            variables: dict[str, Any] = {"DIPTYCH_DATABASE_URL": url, "DIPTYCH_REDIS_URL": store.url}
            async with contextlib.AsyncExitStack() as running:
                # One after the other: the first makes the tables.
                workers = [
                    await running.enter_async_context(working(THIS, "several_rows", **variables))
                    for _ in range(PROCESSES)
                ]
                await workers[0].ask("fill", rows=1000)
                for worker in workers:
                    await worker.ask("served")
                numbers = itertools.count(1, 1000)
                one = {
                    way: _one_at_a_time(workers, way, numbers, calls) for way in (PLAIN, JOINED, EACH, NESTED)
                }
                yield Case(ONE.format(database), rounds, one)
                many = {way: _many_at_once(workers, way, numbers) for way in (PLAIN, JOINED, EACH, NESTED)}
                yield Case(MANY.format(database), rounds, many)
            store.flush()


def _one_at_a_time(workers: Sequence[Worker], way: str, numbers: Iterator[int], calls: int) -> Candidate:
    async def measure() -> Sample:
        orders = [
            partial(worker.ask, "one at a time", way=way, first=next(numbers), calls=calls)
            for worker in workers
        ]
        return _together([await order() for order in orders])

    return measure


def _many_at_once(workers: Sequence[Worker], way: str, numbers: Iterator[int]) -> Candidate:
    async def measure() -> Sample:
        first = next(numbers)
        orders = (
            worker.ask("many at once", way=way, first=first + CLIENTS * n, clients=CLIENTS)
            for n, worker in enumerate(workers)
        )
        return _together(await asyncio.gather(*orders))

    return measure


def _together(samples: Sequence[Sample]) -> Sample:
    """The slowest process's median, each of the others' greatest figure; answers from SQL are added up."""
    found = {SLOWEST: max(sample["median, ms"] for sample in samples)}
    for metric in samples[0].keys() - {"median, ms"}:
        found[metric] = (sum if metric.endswith("in all") else max)(sample[metric] for sample in samples)
    return found
