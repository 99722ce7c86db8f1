"""What documents with nested rows cost: rebuilds, and a change that touches very many of them.

In one process, over books with two tags and three reviews each, at diptych's default settings.

- *A rebuild*: documents a second, read from SQL and written to Redis, of the books' own columns, and with the tags'
  names, the number of reviews, the rating and the newest five reviews; and how much the process grows meanwhile.
- *A tag renamed*: the time until the command is acknowledged, which changes every second book; the share of queries
  that SQL answers meanwhile; other commands on a table that has nothing to do with it, before and meanwhile.

To be shown: at least 6,000 nested documents a second with 150 MB more at most; after the acknowledgement every book
shows the new name; other commands take at most twice as long for 95 of 100.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from benchmarks.claims import Claim
from benchmarks.runner import Candidate, Case, Sample
from benchmarks.servers import stored
from benchmarks.valkey import valkey
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
from tests.programs import with_driver
from tests.servers import PostgresServer

BOOKS = 100_000
DATABASES = ("SQLite", "PostgreSQL")
BUILD = "{}, a rebuild of {:,} documents"
RENAME = "{}, a tag of {:,} books renamed"
RATE, GROWN = "documents/s", "MB that the process grows"
OWN, NESTED = "own columns", "with reviews and tags"
SECONDS, WRONG = "seconds until it is acknowledged", "books with the former name then, in all"
P95, BEFORE, MEANWHILE = "95 % of other commands within, ms", "before", "meanwhile"

CLAIMS = tuple(
    Claim(RENAME.format(database, BOOKS // 2), P95, MEANWHILE, BEFORE, at_most=2) for database in DATABASES
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
    title: Mapped[str] = mapped_column(code_point_text(40))
    tags: Mapped[list[Tag]] = relationship(secondary=book_tags)
    reviews: Mapped[list[Review]] = relationship()


class Note(Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class PlainDocument(msgspec.Struct):
    id: int
    title: str


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


class PlainBooks(ReadModel[Book]):
    key = Book.id
    document = PlainDocument
    lists = (by(Book.title),)


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
        return await self.books.page(limit=500, after=query.after)


@contextlib.asynccontextmanager
async def _running(url: str, redis_url: str) -> AsyncIterator[Diptych]:
    config = ConfigService(environ={}, database_url=url, redis_url=redis_url)
    models: list[type[ReadModel[Any]]] = [PlainBooks, Books, Notes]
    async with Diptych(config, models=Base, handlers=[Handlers], read_models=models) as app:
        while {model.served_by for model in (await app.health()).read_models.values()} != {"redis"}:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        yield app


async def _fill(url: str, books: int) -> None:
    """Makes the tables with so many books; every second one has the tag number 1."""
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
                book_tags: [{"book_id": n, "tag_id": 1 + n % 2} for n in numbers]
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


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """Both databases: rebuilds, and a tag renamed."""
    books, rounds = (2_000, 2) if quick else (BOOKS, 5)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(stored(PostgresServer(durable=True)))
        store = stack.enter_context(stored(valkey()))
        urls = (f"sqlite:///{folder / 'books.db'}", server.url_of(server.create_database()))
        for database, url in zip(DATABASES, urls, strict=True):
            await _fill(url, books)
            async with _running(url, store.url) as app:
                build = {OWN: _rebuilt(app, PlainBooks, books), NESTED: _rebuilt(app, Books, books)}
                yield Case(BUILD.format(database, books), rounds, build)
                renamed = _Renamed(app, books // 2)
                rename = {BEFORE: renamed.before, MEANWHILE: renamed.meanwhile}
                yield Case(RENAME.format(database, books // 2), rounds, rename)
            store.flush()


def _rebuilt(app: Diptych, model: type[ReadModel[Any]], books: int) -> Candidate:
    async def measure() -> Sample:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.perf_counter()
        await app.rebuild(model)
        seconds = time.perf_counter() - begin
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
        return {RATE: books / seconds, GROWN: grown}

    return measure


class _Renamed:
    """A tag gets another name, while other commands and queries go on."""

    def __init__(self, app: Diptych, tagged: int) -> None:
        self._app = app
        self._tagged = tagged
        self._number = 0

    async def before(self) -> Sample:
        """Other commands alone, for a second."""
        found, _ = await self._beside(lambda: asyncio.sleep(1))
        return {**found, SECONDS: 0.0, WRONG: 0.0}

    async def meanwhile(self) -> Sample:
        """Other commands while the tag is renamed."""
        self._number += 1
        name = f"renamed {self._number}"
        found, seconds = await self._beside(lambda: self._app.orm.update(Tag, 1, name=name))
        wrong = [
            number for number in range(2, 2 * self._tagged, 997 * 2) if not await self._shows(number, name)
        ]
        return {**found, SECONDS: seconds, WRONG: float(len(wrong))}

    async def _shows(self, number: int, name: str) -> bool:
        document = (await self._app.ask(GetBook(number))).decode()
        return document is not None and name in document.tags

    async def _beside(self, work: Callable[[], Awaitable[Any]]) -> tuple[Sample, float]:
        done, latencies, stores = asyncio.Event(), list[float](), list[str]()

        async def command() -> None:
            number = 0
            while not done.is_set():
                number += 1
                begin = time.perf_counter()
                await self._app.orm.update(Note, 1 + number % 100, text=f"note {number}")
                latencies.append((time.perf_counter() - begin) * 1000)
                await asyncio.sleep(0.005)

        async def query() -> None:
            while not done.is_set():
                stores.append((await self._app.ask(GetBook(1 + len(stores) % 1000))).served.store)
                await asyncio.sleep(0.005)

        others = [asyncio.create_task(command()), asyncio.create_task(query())]
        begin = time.perf_counter()
        await work()
        seconds = time.perf_counter() - begin
        done.set()
        await asyncio.gather(*others)
        cuts = statistics.quantiles(latencies, n=20) if len(latencies) > 1 else [max(latencies)]
        sql = 100 * stores.count("sql") / max(len(stores), 1)
        return {P95: cuts[-1], "% of queries answered by SQL": sql}, seconds
