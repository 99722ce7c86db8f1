"""Books with tags and reviews, and notes beside them, in a process that makes, changes and reads them."""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from benchmarks.catalogue import served_by_redis
from benchmarks.jobs.orders import take_orders
from benchmarks.runner import Sample
from diptych import (
    ConfigService,
    Diptych,
    Document,
    Page,
    Query,
    ReadModel,
    average,
    by,
    code_point_text,
    count,
    many,
)


class Base(DeclarativeBase):
    pass


book_tags = sa.Table(
    "book_tags",
    Base.metadata,
    sa.Column("book_id", sa.ForeignKey("books.id"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("tags.id"), primary_key=True, index=True),
)


class Tag(Base):
    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(40), unique=True)


class Review(Base):
    __tablename__ = "reviews"

    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int] = mapped_column(sa.ForeignKey("books.id"), index=True)
    stars: Mapped[int]
    text: Mapped[str]


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(code_point_text(40), index=True)
    tags: Mapped[list[Tag]] = relationship(secondary=book_tags)
    reviews: Mapped[list[Review]] = relationship()


class Note(Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class ReviewDocument(msgspec.Struct):
    id: int
    stars: int
    text: str


class BookDocument(msgspec.Struct):
    id: int
    title: str
    tags: list[str]
    review_count: int
    rating: float | None
    reviews: list[ReviewDocument]


class NoteDocument(msgspec.Struct):
    text: str


class Books(ReadModel[Book]):
    key = Book.id
    document = BookDocument
    lists = (by(Book.title),)
    nested: ClassVar = {
        "tags": many(Book.tags, Tag.name, order=Tag.name),
        "review_count": count(Book.reviews),
        "rating": average(Book.reviews, Review.stars, places=2),
        "reviews": many(Book.reviews, order=Review.id.desc(), limit=5),
    }


class Notes(ReadModel[Note]):
    key = Note.id
    document = NoteDocument


class GetBook(Query[Document[BookDocument]]):
    id: int


class ListBooks(Query[Page[BookDocument]]):
    after: str | None = None


class Handlers:
    def __init__(self, books: Books) -> None:
        self.books = books

    async def get(self, query: GetBook) -> Document[BookDocument]:
        return await self.books.get(query.id)

    async def page(self, query: ListBooks) -> Page[BookDocument]:
        return await self.books.page(limit=20, after=query.after)


_FIRST_RATE, _FASTER = 1000.0, 1.2
_LATE_S = 0.1  # seconds' worth of operations that may be under way while they are kept up with
QUERIES_OF_TEN = 9
_FEWEST = 100  # commands of which 95 % are told
QUERIES, COMMANDS = "99 % of queries within, ms", "99 % of commands within, ms"
_OF_ALL = {
    QUERIES: "99 % of all queries within, bouts of the machine included, ms",
    COMMANDS: "99 % of all commands within, bouts of the machine included, ms",
}
_WINDOW_S = 5
"""Seconds of which 99 of 100 operations are told. The median of them leaves out the bouts of a shared machine: a few
bouts decide the slowest hundredth of some minutes, with or without a rebuild.
"""
RATE, GROWN = "documents/s", "MB that the process grows"


class Work:
    """What a process is told to do. ``first`` is the number of its first review."""

    def __init__(self, app: Diptych, books: int, first: int) -> None:
        self._app = app
        self._books = books
        self._review = first
        self._chance = random.Random(first)
        self._over = asyncio.Event()
        self._under_way = 0
        self._watching: asyncio.Task[Sample] | None = None

    async def served(self) -> Sample:
        """Returns the seconds until Redis answers for all of the read models."""
        begin = time.perf_counter()
        await served_by_redis(self._app)
        return {"seconds": time.perf_counter() - begin}

    async def rebuild(self) -> Sample:
        """Makes all documents anew; tells how many a second, and how much the process has grown at most."""
        _forget_greatest_size()
        size, begin = _memory("VmRSS"), time.perf_counter()
        await self._app.rebuild(Books)
        seconds = time.perf_counter() - begin
        return {RATE: self._books / seconds, GROWN: _memory("VmHWM") - size}

    async def greatest_rate(self, seconds: float) -> Sample:
        """Returns the greatest number of operations a second that are kept up with, tried for so long each.

        They are due at random times. Clients who wait for an answer before they send the next operation reach more,
        since the operations of many of them travel together; at half of that rate an operation costs twice as much.
        """
        rate, tried, failed = 0.0, _FIRST_RATE, 0
        while failed < 2:
            await self.watch(tried)
            await asyncio.sleep(seconds)
            late = self._under_way > tried * _LATE_S
            await self.watched()
            failed = failed + 1 if late else 0
            if not late:
                rate, tried = tried, tried * _FASTER
        assert rate, f"not even {_FIRST_RATE} operations a second are kept up with"
        return {"operations/s": rate}

    async def watch(self, rate: float) -> Sample:
        """Begins operations at this rate, until ``watched``; latency counts from when each is due."""
        self._over.clear()
        self._watching = asyncio.create_task(self._at_rate(rate))
        return {}

    async def watched(self) -> Sample:
        """Ends the operations and tells how long they took."""
        assert self._watching is not None
        self._over.set()
        return await self._watching

    async def _at_rate(self, rate: float) -> Sample:
        latencies: dict[str, list[tuple[float, float]]] = {QUERIES: [], COMMANDS: []}
        stores: list[str] = []
        running: set[asyncio.Task[None]] = set()
        self._under_way = 0
        begun = time.perf_counter()

        async def one(due: float) -> None:
            operation = self._operation()
            store = await operation()
            took_ms = (time.perf_counter() - due) * 1000
            latencies[QUERIES if store else COMMANDS].append((due - begun, took_ms))
            stores.extend([store] if store else [])

        due = begun
        while not self._over.is_set():
            due += self._chance.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = asyncio.create_task(one(due))
            running.add(task)
            task.add_done_callback(running.discard)
            # With those that are due and have not begun.
            self._under_way = len(running) + int(rate * max(0.0, time.perf_counter() - due))
        await asyncio.gather(*running)
        shares = {name: statistics.median(_windows(found)) for name, found in latencies.items()}
        of_all = {_OF_ALL[name]: _p99([took for _, took in found]) for name, found in latencies.items()}
        return {**shares, **of_all, "% of queries answered by SQL": 100 * stores.count("sql") / len(stores)}

    def _operation(self) -> Callable[[], Awaitable[str]]:
        return self._ask if self._chance.randrange(10) < QUERIES_OF_TEN else self._add_review

    async def _ask(self) -> str:
        return (await self._app.ask(GetBook(self._chance.randint(1, self._books)))).served.store

    async def _add_review(self) -> str:
        self._review += 1
        book = self._chance.randint(1, self._books)
        await self._app.orm.create(Review, id=self._review, book_id=book, stars=4, text="Some words on it")
        return ""

    async def rename(self, to: str) -> Sample:
        """Gives the tag number 1 another name."""
        begin = time.perf_counter()
        await self._app.orm.update(Tag, 1, name=to)
        return {"seconds": time.perf_counter() - begin}

    async def shows(self, tag: str, every: int) -> Sample:
        """Counts, of some of the books with this tag, those that do not show it, and answers from SQL.

        As often as the other queries ask: a client that does not wait is no usual load.
        """
        wrong, stores = 0, []
        for number in range(every, self._books, every * 97):
            document = await self._app.ask(GetBook(number))
            book = document.decode()
            wrong += book is None or tag not in book.tags
            stores.append(document.served.store)
            await asyncio.sleep(0.005)
        return {"wrong": float(wrong), "% from SQL": 100 * stores.count("sql") / len(stores)}

    async def notes(self, set_apart: float = 0.0) -> Sample:
        """Begins commands on notes, one after the other, until ``watched``.

        Those that begin in the first seconds, ``set_apart``, are not among the 95 %; nor are those that begin after
        the last query that SQL has answered, if there is one.
        """
        self._over.clear()
        self._watching = asyncio.create_task(self._change_notes(time.perf_counter() + set_apart))
        return {}

    async def _change_notes(self, counted_from: float) -> Sample:
        latencies: list[tuple[float, float]] = []
        stores: list[str] = []
        last_by_sql = 0.0

        async def command() -> None:
            while not self._over.is_set():
                begin = time.perf_counter()
                await self._app.orm.update(Note, 1 + len(latencies) % 100, text=f"note {len(latencies)}")
                latencies.append((begin, (time.perf_counter() - begin) * 1000))
                await asyncio.sleep(0.005)

        async def query() -> None:
            nonlocal last_by_sql
            while not self._over.is_set():
                stores.append(await self._ask())
                if stores[-1] == "sql":
                    last_by_sql = time.perf_counter()
                await asyncio.sleep(0.005)

        await asyncio.gather(command(), query())
        later = [(begin, took) for begin, took in latencies if begin >= counted_from]
        by_sql = [took for begin, took in later if begin <= last_by_sql]
        # A quick pass is over with the hand-over.
        counted = by_sql if len(by_sql) >= _FEWEST else [took for _, took in later]
        return {
            "p95": statistics.quantiles(counted, n=20)[-1],
            "p95 of all": statistics.quantiles([took for _, took in latencies], n=20)[-1],
            "% from SQL": 100 * stores.count("sql") / len(stores),
            "longest": max(took for _, took in latencies),
        }


def _windows(latencies: list[tuple[float, float]]) -> list[float]:
    """Returns within how many milliseconds 99 of 100 operations were answered, for each window of when they were due.

    What is left after the last whole window is not told, unless there is nothing else.
    """
    windows: dict[int, list[float]] = defaultdict(list)
    for due, took in latencies:
        windows[int(due / _WINDOW_S)].append(took)
    whole = [window for number, window in windows.items() if number < max(windows) and len(window) > 1]
    return [_p99(window) for window in whole] or [_p99([took for _, took in latencies])]


def _p99(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100)[-1]


def _forget_greatest_size() -> None:
    """Has ``VmHWM`` begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _memory(name: str) -> float:
    """Returns a size of this process in MB, from the lines of ``/proc/self/status``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


async def main() -> None:
    """Where the data are is said by the environment, and how many books there are."""
    models: list[type[ReadModel[Any]]] = [Books, Notes]
    async with Diptych(ConfigService(), models=Base, handlers=[Handlers], read_models=models) as app:
        work = Work(app, int(os.environ["BOOKS"]), random.SystemRandom().randrange(10**8, 2 * 10**9))
        names = (
            "served",
            "rebuild",
            "greatest_rate",
            "watch",
            "watched",
            "rename",
            "shows",
            "notes",
        )
        await take_orders({name: getattr(work, name) for name in names})


if __name__ == "__main__":
    asyncio.run(main())
