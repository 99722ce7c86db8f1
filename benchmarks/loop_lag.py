"""How long queries from SQLite block the event loop, with 100,000 books, while writers add more of them.

One process without Redis: 32 readers ask for books by key, or for pages of 50 or of 500 from anywhere in the list,
one after the other and without a pause; 4 writers add books. "in threads" sends every query to a thread, as diptych
did before it held a connection in the event loop ("held").

A step is what a task does from one wait to the next: the loop is blocked for as long as the longest one takes. By the
clock that counts what other programs of the machine do meanwhile; so it is told by the processor's time, too. A timer
is due every half millisecond: it waits for all the steps that come before it in the same turn of the loop. What there
is at the start is taken out of the garbage collector's hands (`gc.freeze`), whose full rounds would be the longest.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
import tempfile
import time
from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.books import seed, title
from benchmarks.catalogue import open_catalogue
from benchmarks.runner import Candidate, Case, Sample
from demo_app.messages import AddBook, GetBook, ListBooks
from diptych import Diptych
from diptych.sql.sqlite.database import SqliteDatabase

BOOKS = 100_000
READERS = 32
WRITERS = 4
TICK_S = 0.0005

Ask = Callable[[Diptych, random.Random], Awaitable[Any]]


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """Queries by key, and pages."""
    books = 5_000 if quick else BOOKS
    with tempfile.TemporaryDirectory() as folder:
        database = str(Path(folder) / "books.db")
        await seed(database, books)
        new = itertools.count(books)
        cursors = await _cursors(database)
        for name, ask in {
            "by key": _by_key(books),
            "pages of 50": _pages(cursors, 50),
            "pages of 500": _pages(cursors, 500),
        }.items():
            candidates = {
                "in threads": _measured(database, ask, new, held=False, seconds=1 if quick else 5),
                "held": _measured(database, ask, new, held=True, seconds=1 if quick else 5),
            }
            yield Case(f"{name}, {books:,} books", 1 if quick else 5, candidates, warm_up=not quick)


def _by_key(books: int) -> Ask:
    async def ask(app: Diptych, chance: random.Random) -> None:
        document = await app.ask(GetBook(title(chance.randrange(books))))
        assert document.body is not None

    return ask


def _pages(cursors: list[str], limit: int) -> Ask:
    async def ask(app: Diptych, chance: random.Random) -> None:
        page = await app.ask(ListBooks(limit=limit, after=chance.choice(cursors)))
        assert len(page.body) > limit

    return ask


async def _cursors(database: str) -> list[str]:
    """Places all over the list, a page of 500 before its end at the latest."""
    found: list[str] = []
    async with open_catalogue(database, None) as app:
        after = None
        while (page := (await app.ask(ListBooks(limit=500, after=after))).decode()).next is not None:
            found.append(after := page.next)
    return found[:-1]


def _measured(database: str, ask: Ask, new: Iterator[int], *, held: bool, seconds: float) -> Candidate:
    async def measure() -> Sample:
        async with open_catalogue(database, None) as app:
            if not held and isinstance(app.orm.database, SqliteDatabase):
                app.orm.database.inline = None
            counts = {"reads": 0, "writes": 0}
            stop = asyncio.Event()

            async def read(number: int) -> None:
                chance = random.Random(number)
                while not stop.is_set():
                    await ask(app, chance)
                    counts["reads"] += 1
                    await asyncio.sleep(0)  # as a server does between two queries of a connection

            async def write() -> None:
                while not stop.is_set():
                    await app.execute(AddBook(title(next(new)), "Author"))
                    counts["writes"] += 1

            gc.collect()
            gc.freeze()
            async with asyncio.TaskGroup() as tasks:
                for number in range(READERS):
                    tasks.create_task(read(number))
                for _ in range(WRITERS):
                    tasks.create_task(write())
                with _timed_steps() as steps:
                    waits = await _waits_of_a_timer(seconds)
                stop.set()
            gc.unfreeze()
        return _sample(steps, waits, counts, seconds)

    return measure


class Steps(NamedTuple):
    """How long each step of the loop took, in seconds: by the clock, and of the processor's time."""

    by_clock: array[float]
    by_processor: array[float]


@contextlib.contextmanager
def _timed_steps() -> Iterator[Steps]:
    steps = Steps(array("d"), array("d"))
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        worked, begun = time.thread_time(), time.perf_counter()
        run(handle)
        steps.by_clock.append(time.perf_counter() - begun)
        steps.by_processor.append(time.thread_time() - worked)

    asyncio.Handle._run = timed  # type: ignore[assignment, method-assign]
    try:
        yield steps
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]


async def _waits_of_a_timer(seconds: float) -> list[float]:
    waits: list[float] = []
    now = begun = time.perf_counter()
    while now < begun + seconds:
        due = now + TICK_S
        await asyncio.sleep(TICK_S)
        now = time.perf_counter()
        waits.append(now - due)
    return waits


def _sample(steps: Steps, waits: list[float], counts: dict[str, int], seconds: float) -> Sample:
    by_clock = sorted(steps.by_clock)
    return {
        "longest step, ms": 1000 * by_clock[-1],
        "99.99 % of the steps below, ms": 1000 * by_clock[int(0.9999 * len(by_clock))],
        "longest step, ms of the processor": 1000 * max(steps.by_processor),
        "longest wait of a timer, ms": 1000 * max(waits),
        "reads/s": counts["reads"] / seconds,
        "writes/s": counts["writes"] / seconds,
    }
