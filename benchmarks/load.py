"""Readers and writers of a running catalogue, which check every answer against what was acknowledged before it.

Writers count the stock of books of their own up. ``counters`` holds the last acknowledged count of each such book, of
all processes where it lies in shared memory: a reader takes it before it asks, and an answer below it is stale.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterable, MutableSequence
from typing import Any, NamedTuple

from benchmarks.books import PAGE_SIZE, STOCK, title
from demo_app.messages import BookChanges, EditBook, GetBook, ListBooks
from diptych import Diptych

Counters = MutableSequence[int]
"""One for each of the books 0, 1, …, which are those of the first page."""


class Pace(NamedTuple):
    """How many readers there are, and how long readers and writers pause between two operations."""

    readers: int
    read_pause_s: float
    write_pause_s: float


class Answer(NamedTuple):
    """An operation that went well. Times are of the machine's monotonic clock. ``store`` is empty for a command."""

    begun: float
    ended: float
    store: str

    @property
    def ms(self) -> float:
        return (self.ended - self.begun) * 1000


class Tally(NamedTuple):
    """What came out in some time: what was answered, and in words what should not have been."""

    queries: list[Answer]
    commands: list[Answer]
    stale: list[str]
    errors: list[str]


class Load:
    """Runs readers, and a writer for each of the books ``own``, from ``start`` to ``stop``."""

    def __init__(self, app: Diptych, counters: Counters, own: Iterable[int], books: int, pace: Pace) -> None:
        assert len(counters) < PAGE_SIZE
        self._app = app
        self._counters = counters
        self._own = list(own)
        self._books = books
        self._pace = pace
        self._random = random.Random(f"{self._own}")
        self._tally = Tally([], [], [], [])
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        """Begins. Until then ``counters`` must have been set to what the books hold."""
        pace = self._pace
        workers: list[Coroutine[Any, Any, None]] = [
            self._again(self._read, pace.read_pause_s) for _ in range(pace.readers)
        ]
        workers += [
            self._again(lambda number=number: self._write(number), pace.write_pause_s)  # type: ignore[misc]
            for number in self._own
        ]
        self._tasks = [asyncio.get_running_loop().create_task(worker) for worker in workers]

    async def stop(self) -> None:
        """Ends once what is being asked is answered: nothing is cancelled, which would be another thing to test."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    def take(self) -> Tally:
        """What came out since the last time."""
        taken, self._tally = self._tally, Tally([], [], [], [])
        return taken

    @property
    def last_queries(self) -> list[Answer]:
        """The queries since ``take``."""
        return self._tally.queries

    async def _again(self, operate: Callable[[], Coroutine[Any, Any, None]], pause_s: float) -> None:
        while not self._stopping:
            try:
                await operate()
            except Exception as error:  # to be told, and the load goes on
                self._tally.errors.append(f"{operate.__name__}: {type(error).__name__}: {error}")
            # Spread, so that they do not all come at once for ever.
            await asyncio.sleep(pause_s * self._random.uniform(0.5, 1.5))

    async def _write(self, number: int) -> None:
        count = self._counters[number] + 1
        begun = time.monotonic()
        book = await self._app.execute(EditBook(title(number), BookChanges(stock_quantity=count)))
        self._tally.commands.append(Answer(begun, time.monotonic(), ""))
        assert book is not None
        assert book.stock_quantity == count
        self._counters[number] = count

    async def _read(self) -> None:
        match self._random.randrange(4):
            case 0:
                await self._page()
            case 1:
                await self._one(self._random.randrange(self._books))
            case _:
                await self._one(self._random.randrange(len(self._counters)))

    async def _one(self, number: int) -> None:
        known = self._counters[number] if number < len(self._counters) else STOCK
        begun = time.monotonic()
        document = await self._app.ask(GetBook(title(number)))
        self._tally.queries.append(Answer(begun, time.monotonic(), document.served.store))
        book = document.decode()
        self._check(number, known, None if book is None else book.stock_quantity, document.served)

    async def _page(self) -> None:
        known = list(self._counters)
        begun = time.monotonic()
        page = await self._app.ask(ListBooks(limit=PAGE_SIZE))
        self._tally.queries.append(Answer(begun, time.monotonic(), page.served.store))
        found = {book.title: book.stock_quantity for book in page.decode().items}
        for number, count in enumerate(known):
            self._check(number, count, found.get(title(number)), page.served)

    def _check(self, number: int, known: int, found: int | None, served: object) -> None:
        if found is None or found < known:
            self._tally.stale.append(f"book {number}: {found} after {known} was acknowledged, {served}")


def new_counters(count: int) -> list[int]:
    """Counters of freshly seeded books."""
    return [STOCK] * count


def share(answers: list[Answer], part: float) -> float:
    """The latency in ms below which this part of the answers is."""
    ordered = sorted(answer.ms for answer in answers)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")
