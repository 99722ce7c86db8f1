"""Whole commands of the catalogue in processes of several trees: one at a time, and many at once."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.runner import Case, Sample
from benchmarks.served import seed_as
from benchmarks.servers import stored
from benchmarks.trees import Tree
from benchmarks.valkey import valkey
from benchmarks.workers import Processes, Worker
from tests.servers import PostgresServer, RedisServer

BOOKS = 1000
CLIENTS = 200
PROCESSES = 4
CLIENTS_OF_EACH = 8


class Place(NamedTuple):
    """Where a tree keeps its books."""

    tree: Tree
    database: str
    store: RedisServer

    def processes(self, count: int) -> Processes:
        """So many that share them."""
        variables = {"DIPTYCH_DATABASE_URL": self.database, "DIPTYCH_REDIS_URL": self.store.url}
        return Processes(self.tree, "commands", count, **variables)


class Scale(NamedTuple):
    """How often it is measured, for how many rounds the same processes, and how long in each."""

    rounds_one: int
    rounds_many: int
    lives: int
    calls: int
    duration_s: float


FULL = Scale(rounds_one=75, rounds_many=25, lives=5, calls=40, duration_s=1.5)
QUICK = Scale(rounds_one=4, rounds_many=2, lives=2, calls=10, duration_s=0.5)

Order = Callable[[Sequence[Worker]], Awaitable[Sample]]


async def against(quick: bool, trees: Sequence[Tree]) -> AsyncGenerator[Case, None]:
    """What a whole command costs: it changes one book through ``Diptych.execute``, and is seen by readers of Valkey.

    At diptych's default settings; both databases wait for the disk. Each tree has processes, a database and a Valkey
    of its own; the processes stay up while the trees take turns, and begin anew a few times. They have one core,
    Valkey and PostgreSQL the other. One at a time; 200 clients of one process, each with a book of its own; and four
    processes with 8 clients each on the same database, where each process also pays for what the others do.
    """
    scale = QUICK if quick else FULL
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(stored(PostgresServer(durable=True)))
        stores = {tree: stack.enter_context(stored(valkey())) for tree in trees}
        for name in ("SQLite", "PostgreSQL"):
            places = [Place(tree, _database(name, tree, folder, server), stores[tree]) for tree in trees]
            for place in places:
                await seed_as(place.tree, place.database, BOOKS)
            async for case in _on(places, scale):
                yield case._replace(name=f"{name}, {case.name}")
            for store in stores.values():
                store.flush()


def _database(name: str, tree: Tree, folder: Path, server: PostgresServer) -> str:
    if name == "SQLite":
        return f"sqlite:///{folder / tree.name}.db"
    return server.url_of(server.create_database())


async def _on(places: Sequence[Place], scale: Scale) -> AsyncGenerator[Case, None]:
    alone = partial(_one_at_a_time, scale.calls)
    many = partial(_many_at_once, CLIENTS, scale.duration_s)
    each = partial(_many_at_once, CLIENTS_OF_EACH, scale.duration_s)
    for name, rounds, count, order in (
        ("one at a time", scale.rounds_one, 1, alone),
        (f"{CLIENTS} at once", scale.rounds_many, 1, many),
        (f"{PROCESSES} processes, {CLIENTS_OF_EACH} at once in each", scale.rounds_many, PROCESSES, each),
    ):
        async with contextlib.AsyncExitStack() as stack:
            candidates = {}
            for place in places:
                processes = await stack.enter_async_context(place.processes(count))
                candidates[place.tree.name] = processes.measured(-(-rounds // scale.lives), order)
            yield Case(name, rounds, candidates, warm_up=False)


async def _one_at_a_time(calls: int, workers: Sequence[Worker]) -> Sample:
    sample: Sample = await workers[0].ask("one at a time", first=0, calls=calls)
    return sample


async def _many_at_once(clients: int, duration_s: float, workers: Sequence[Worker]) -> Sample:
    """Each worker has books of its own."""
    orders = [
        worker.ask("many at once", first=number * clients, clients=clients, duration_s=duration_s)
        for number, worker in enumerate(workers)
    ]
    return together(await asyncio.gather(*orders))


def together(samples: Sequence[Sample]) -> Sample:
    """Throughputs and counts are added up; of what is told of a command, the mean counts."""
    return {
        metric: (sum if metric.endswith(("/s", "a second", "in all")) else statistics.fmean)(
            [one[metric] for one in samples]
        )
        for metric in samples[0]
    }
