"""Queries over HTTP of a read model with one row that does not fit its document, beside the same one without it.

50,000 books in SQLite, all served from Valkey at diptych's default settings. In one of the two databases the stock of
one book was written as a word, past diptych, before the read model was built: its row is set aside. Pages of fifty:
the first, which leaves that book out and says so, and the second, which has nothing to do with it; and one book by
its title. One connection at a time, and 64. The servers have one core, the load and the two Valkeys the other. Every
answer is checked: it has to come from Redis, under a lease. The servers begin anew every few rounds: what chance
gives to a process, such as where its memory lies, is then not taken for what the row costs. To be shown: pages take
as long as without such a row.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from pathlib import Path
from typing import Self

import msgspec

from benchmarks.books import PAGE_SIZE, seed, title
from benchmarks.claims import Claim
from benchmarks.driver import get_one, get_page, loaded
from benchmarks.http_job import Job, Repeated
from benchmarks.runner import Candidate, Case, Sample
from benchmarks.servers import catalogue, get, serving, stored
from benchmarks.valkey import valkey
from tests.acceptance.serving import FROM_REDIS

BOOKS = 50_000
BAD = 7
"""The number of the book whose row is set aside: one of the first page, and none that is asked for by its title."""
CONNECTIONS = (1, 64)
LIVES = 10
"""Number of times that a server begins anew in a case."""

FITTING = "all rows fit"
ASIDE = "one is set aside"

HOLDING = "The page that leaves it out, {} at once"
BESIDE = "A page beside it, {} at once"
ONE = "One book by its title, {} at once"
CLAIMS = tuple(
    Claim(case.format(connections), "median, ms", ASIDE, FITTING, at_most=1.05)
    for case in (HOLDING, BESIDE)
    for connections in CONNECTIONS
)


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """The page with the row, one without it, and one book."""
    rounds, seconds, books = (2, 0.5, 10_000) if quick else (30, 1.0, BOOKS)
    with contextlib.ExitStack() as stack:
        servers = await _start(stack, Path(stack.enter_context(tempfile.TemporaryDirectory())), books)
        second = {name: _second_page(server.port) for name, server in servers.items()}
        asked: Mapping[str, Mapping[str, Repeated]] = {
            HOLDING: dict.fromkeys(servers, get_page()),
            BESIDE: second,
            ONE: dict.fromkeys(servers, get_one(books)),
        }
        for case, exchanges in asked.items():
            for connections in CONNECTIONS:
                candidates: dict[str, Candidate] = {
                    name: server.measured(-(-rounds // LIVES), connections, seconds, exchanges[name])
                    for name, server in servers.items()
                }
                yield Case(case.format(connections), rounds, candidates, warm_up=False)
        _check(servers)


class _Server:
    """The catalogue on one of the databases, and on a Valkey of its own. Entered, it runs at ``port``."""

    def __init__(self, database: str, redis_url: str) -> None:
        self._new = partial(catalogue, database, redis_url)
        self._running = contextlib.ExitStack()
        self.port = 0

    def __enter__(self) -> Self:
        self._begin_anew()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def measured(self, life: int, connections: int, seconds: float, exchanges: Repeated) -> Candidate:
        """A candidate that begins the server anew, and warms it up, every ``life`` rounds."""
        numbers = itertools.count()

        async def load() -> Sample:
            return await loaded(Job(self.port, connections, seconds, exchanges, head=FROM_REDIS.encode()))()

        async def measure() -> Sample:
            if next(numbers) % life == 0:
                await asyncio.to_thread(self._begin_anew)
                await load()
            return await load()

        return measure

    def _begin_anew(self) -> None:
        self._running.close()
        self.port = self._running.enter_context(serving(self._new()))


async def _start(stack: contextlib.ExitStack, folder: Path, books: int) -> dict[str, _Server]:
    servers = {}
    for number, name in enumerate((FITTING, ASIDE)):
        file = folder / f"{number}.db"
        await seed(f"sqlite:///{file}", books)
        if name == ASIDE:
            _spoil(file)
        store = stack.enter_context(stored(valkey()))
        servers[name] = stack.enter_context(_Server(f"sqlite:///{file}", store.url))
    _check(servers)
    return servers


def _spoil(file: Path) -> None:
    """SQLite takes a word where the table says INTEGER; the document wants a number."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        changed = connection.execute("UPDATE books SET stock_quantity = 'many' WHERE title = ?", [title(BAD)])
        assert changed.rowcount == 1


def _check(servers: Mapping[str, _Server]) -> None:
    """The row is set aside in the one that has it, and nowhere else."""
    found = {name: get(one.port, _first_page())[1]["diptych-set-aside"] for name, one in servers.items()}
    assert found == {FITTING: None, ASIDE: "1"}, f"rows that are set aside: {found}"


def _second_page(port: int) -> Repeated:
    _, _, body = get(port, _first_page())
    return get_page(after=msgspec.json.decode(body)["next"], last=2 * PAGE_SIZE - 1)


def _first_page() -> str:
    return f"/books?limit={PAGE_SIZE}"
