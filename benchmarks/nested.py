"""What documents with nested rows cost: rebuilds, and a change that touches very many of them.

Two processes at diptych's default settings share a database of books with two tags and three reviews each, and a
Valkey, on two cores. The documents have the names of the tags, the number of reviews, the rating and the newest five
reviews.

- *A rebuild*: documents a second, read from SQL and written to Redis by one process, and how much that process grows
  meanwhile at most.
- *Beside a rebuild*: nine of ten operations are queries for a book, the others add a review, in the other process.
  They are due at random times and do not wait for answers, at half of the greatest rate that process keeps up with.
  The figure is the median of windows of five seconds: on a shared machine a few bouts decide the slowest hundredth of
  some minutes, with or without a rebuild. That of the whole time is told too.
- *A tag renamed*, which 50,000 books have: the time until the command is acknowledged, and until Redis answers again.
  Meanwhile both processes ask for books, and change rows that have nothing to do with it, until SQL answers no query
  any more. "At rest" is the same while Redis answers. After the acknowledgement books of the tag are looked at, in
  both processes.

To be shown: at least 6,000 documents a second with 150 MB more at most; beside it 99 of 100 queries and commands take
at most twice as long as usual; after the acknowledgement every book shows the new name; other commands take at most
twice as long for 95 of 100, outside one hand-over of at most a lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.claims import Claim
from benchmarks.jobs.nested import COMMANDS, QUERIES, RATE, Base, Book, Note, Review, Tag, book_tags
from benchmarks.runner import Case, Sample
from benchmarks.trees import THIS
from benchmarks.valkey import valkey
from benchmarks.workers import Worker, working
from tests.programs import with_driver
from tests.servers import PostgresServer

BOOKS, TAGGED = 1_000_000, 50_000
LEASE_S = 2.0  # the default
DATABASES = ("SQLite", "PostgreSQL")
BUILD, BESIDE, RENAME = (
    "{}, a rebuild of {:,} documents",
    "{}, beside a rebuild",
    "{}, a tag of {:,} books renamed",
)
USUAL, MEANWHILE, REST = "usual", "meanwhile", "at rest"
P95 = "95 % of other commands within, outside the hand-over, ms"
P95_OF_ALL = "95 % of other commands within, with those of the hand-over, ms"
ACKNOWLEDGED, AGAIN = "seconds until it is acknowledged", "seconds until Redis answers again"
SQL, LONGEST, WRONG = (
    "% of queries answered by SQL",
    "the longest other command, ms",
    "books with the former name, in all",
)
AFTER = "% of the books looked at after it from SQL"

CLAIMS = tuple(
    claim
    for database in DATABASES
    for claim in (
        *(
            Claim(BESIDE.format(database), metric, MEANWHILE, USUAL, at_most=2)
            for metric in (QUERIES, COMMANDS)
        ),
        Claim(RENAME.format(database, TAGGED), P95, MEANWHILE, REST, at_most=2),
    )
)


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """Both databases: rebuilds, and a tag renamed."""
    books, tagged = (20_000, 1_000) if quick else (BOOKS, TAGGED)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(PostgresServer(durable=True))
        store = stack.enter_context(valkey())
        urls = (f"sqlite:///{folder / 'books.db'}", server.url_of(server.create_database()))
        for database, url in zip(DATABASES, urls, strict=True):
            await _fill(url, books, books // tagged)
            variables: dict[str, Any] = {
                "DIPTYCH_DATABASE_URL": url,
                "DIPTYCH_REDIS_URL": store.url,
                "BOOKS": str(books),
            }
            async with contextlib.AsyncExitStack() as running:
                # One after the other: the first one makes the tables and then the passes.
                workers = [
                    await running.enter_async_context(working(THIS, "nested", pinned=False, **variables))
                    for _ in range(2)
                ]
                await _served(workers)
                built = {"alone": partial(workers[0].ask, "rebuild")}
                yield Case(BUILD.format(database, books), 2, built, warm_up=False)
                beside = _Beside(url, workers, 2 if quick else 150)
                yield Case(
                    BESIDE.format(database),
                    2,
                    {USUAL: beside.usual, MEANWHILE: beside.meanwhile},
                    warm_up=False,
                )
                renamed = _Renamed(workers, books // tagged)
                yield Case(
                    RENAME.format(database, tagged),
                    2 if quick else 5,
                    {REST: renamed.at_rest, MEANWHILE: renamed.meanwhile},
                    warm_up=False,
                )
            store.flush()


async def _served(workers: Sequence[Worker]) -> None:
    for worker in workers:
        await worker.ask("served")


class _Beside:
    """Queries and commands in one process, at half of its greatest rate, while the other one rebuilds or does not."""

    def __init__(self, url: str, workers: Sequence[Worker], seconds: float) -> None:
        self._url = url
        self._building, self._asked = workers
        self._seconds = seconds
        self._rate = 0.0

    async def usual(self) -> Sample:
        await _served([self._building, self._asked])
        # For each round: what a shared machine can do changes. In two seconds a twentieth too much is a backlog of a
        # tenth of a second only, and would seem to be kept up with.
        found = await self._asked.ask("greatest_rate", seconds=min(8.0, self._seconds / 2))
        self._rate = found["operations/s"] / 2
        await _analyze(self._url)  # the log and the fence have statistics too, as in a database in use
        await asyncio.sleep(2)
        await self._asked.ask("watch", rate=self._rate)
        await asyncio.sleep(self._seconds)
        return {**await self._watched(), RATE: 0.0}

    async def meanwhile(self) -> Sample:
        if not self._rate:
            await self.usual()
        await _served([self._building, self._asked])
        await self._asked.ask("watch", rate=self._rate)
        built = await self._building.ask("rebuild")
        return {**await self._watched(), RATE: built[RATE]}

    async def _watched(self) -> Sample:
        found: Sample = {
            **await self._asked.ask("watched"),
            "half of the greatest rate, operations/s": self._rate,
        }
        return found


class _Renamed:
    """A tag gets another name, while other commands and queries go on in both processes."""

    def __init__(self, workers: Sequence[Worker], every: int) -> None:
        self._workers = workers
        self._every = every
        self._number = 0

    async def at_rest(self) -> Sample:
        """Other commands while Redis answers, for some seconds, with the same clients."""
        await _served(self._workers)
        await self._begin()
        shown = await self._shown()
        await asyncio.sleep(2)
        return {**await self._end(), **shown, ACKNOWLEDGED: 0.0, AGAIN: 0.0}

    async def meanwhile(self) -> Sample:
        """Other commands from the beginning until Redis answers again."""
        await _served(self._workers)
        self._number += 1
        begun = time.monotonic()
        await self._begin(set_apart=LEASE_S)
        took = await self._workers[0].ask("rename", to=self._name)
        shown = await self._shown()
        again = [await worker.ask("served") for worker in self._workers]
        # A quick run may be over with the hand-over, and there would be no command outside of it.
        await asyncio.sleep(max(0.0, begun + LEASE_S + 0.5 - time.monotonic()))
        return {
            **await self._end(),
            **shown,
            ACKNOWLEDGED: took["seconds"],
            AGAIN: sum(each["seconds"] for each in again),
        }

    @property
    def _name(self) -> str:
        return f"renamed {self._number}" if self._number else "tag 1"

    async def _shown(self) -> dict[str, float]:
        """Looks at books of the tag, from all processes: an acknowledgement holds for everybody."""
        shown = [await worker.ask("shows", tag=self._name, every=self._every) for worker in self._workers]
        return {
            WRONG: sum(each["wrong"] for each in shown),
            AFTER: max(each["% from SQL"] for each in shown),
        }

    async def _begin(self, set_apart: float = 0.0) -> None:
        for worker in self._workers:
            await worker.ask("notes", set_apart=set_apart)

    async def _end(self) -> dict[str, float]:
        """The figures of the process for which they are worse."""
        found = [await worker.ask("watched") for worker in self._workers]
        names = {P95: "p95", P95_OF_ALL: "p95 of all", LONGEST: "longest", SQL: "% from SQL"}
        return {metric: max(each[name] for each in found) for metric, name in names.items()}


async def _fill(url: str, books: int, every: int) -> None:
    """Makes the tables with so many books; every so many books one has the tag number 1."""
    drawn = random.Random(1)
    engine = create_async_engine(with_driver(url))
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(sa.insert(Tag), [{"id": n, "name": f"tag {n}"} for n in range(1, 41)])
        await connection.execute(sa.insert(Note), [{"id": n, "text": "note"} for n in range(1, 101)])
        for first in range(1, books + 1, 10_000):
            numbers = range(first, min(first + 10_000, books + 1))
            rows: dict[Any, list[dict[str, Any]]] = {
                Book: [{"id": n, "title": f"A book, number {n}"} for n in numbers],
                book_tags: [{"book_id": n, "tag_id": 2 if n % every else 1} for n in numbers]
                + [{"book_id": n, "tag_id": drawn.randint(3, 40)} for n in numbers],
                Review: [
                    {
                        "book_id": drawn.randint(1, numbers[-1]),
                        "stars": drawn.randint(1, 5),
                        "text": "Some words on it",
                    }
                    for _ in range(3 * len(numbers))
                ],
            }
            for table, values in rows.items():
                await connection.execute(sa.insert(table), values)
    await engine.dispose()
    await _analyze(url)


async def _analyze(url: str) -> None:
    """Has the database make statistics of its tables, as one in use does by itself."""
    engine = create_async_engine(with_driver(url))
    async with engine.begin() as connection:
        await connection.execute(sa.text("ANALYZE"))
    await engine.dispose()
