"""What lists cost: pages of many rows, rebuilds, Redis's memory, and the price of each further list.

In one process, over a table of items with an owner, a state, a price and a time, at diptych's default settings.

- *A page*: 20 items of one of ten owners, newest first, with the number of all items of the owner, from Redis: with
  one million items a hundred thousand are counted, with one thousand a hundred.
- *A page from SQL*: the same without Redis, by the index that belongs to the list; with the total it costs what
  ``COUNT`` costs besides, which is measured by itself.
- *A rebuild*: documents a second, read from SQL and written to Redis, by the number of lists.
- *Memory*: what Redis uses for a document, beside a plain ``SET key json`` of the same documents.
- *Updates*: commands that change an item's price, 8 at once, by the number of lists.

To be shown: the page costs at most 1.3 times with one million items what it does with one thousand, from SQL at most
twice without the total; at least 20,000 documents a second with one list; at most 2.2 times the memory of a plain
document of 150 bytes with one list, and 1.6 times that of one of 1 kB.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import msgspec
import redis
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.claims import Claim
from benchmarks.runner import Candidate, Case, Sample
from benchmarks.servers import stored
from benchmarks.valkey import valkey
from diptych import ConfigService, Diptych, ReadModel, by, code_point_text
from tests.programs import with_driver
from tests.servers import PostgresServer

FEW, MANY = 1_000, 1_000_000
OWNERS = 10
BUILT = 100_000
MEASURED = 100_000
AT_ONCE = 8
SHORT, LONG = 150, 1_000

PAGE = "A page of an owner's items, newest first, with its total, from Redis"
PAGE_SQL = "A page of an owner's items, newest first, {}"
BUILD = "A rebuild of {:,} documents, {}"
MEMORY = "Memory of Redis for a document of {} bytes"
UPDATES = "Updates of an item, {}, {} at once"
TIME, RATE, BYTES, COMMANDS = "ms a page", "documents/s", "bytes a document", "commands/s"
PLAIN = "a plain SET key json"


def _of(items: int) -> str:
    return f"{items:,} items"


def _lists(number: int) -> str:
    return f"{number} list" + "s" * (number != 1)


CLAIMS = (
    Claim(PAGE, TIME, _of(MANY), _of(FEW), at_most=1.3),
    Claim(PAGE_SQL.format("SQLite"), TIME, _of(MANY), _of(FEW), at_most=2),
    Claim(PAGE_SQL.format("PostgreSQL"), TIME, _of(MANY), _of(FEW), at_most=2),
    Claim(MEMORY.format(SHORT), BYTES, _lists(1), PLAIN, at_most=2.2),
    Claim(MEMORY.format(LONG), BYTES, _lists(1), PLAIN, at_most=1.6),
)


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(40))
    owner: Mapped[str] = mapped_column(code_point_text(20))
    state: Mapped[str] = mapped_column(code_point_text(20))
    price: Mapped[int]
    created: Mapped[datetime.datetime]
    note: Mapped[str]


sa.Index("ix_items_newest", Item.owner, Item.created.desc(), Item.id)


class ItemDocument(msgspec.Struct):
    id: int
    name: str
    owner: str
    price: int
    note: str


LISTS = (
    by(Item.owner, Item.created.desc(), name="newest"),
    by(Item.name),
    by(Item.state, Item.price.desc()),
    by(Item.created.desc()),
)


def _handler(lists: int) -> type:
    """Returns the handler, which keeps the read model with the first ``lists`` of the lists."""
    declared = {"key": Item.id, "document": ItemDocument, "lists": LISTS[:lists]}
    model: Any = type("Items", (ReadModel,), declared)

    class Handler:
        model: Any
        items: Any

        def __init__(self, items: Any) -> None:
            Handler.items = items

    Handler.model = model
    Handler.__init__.__annotations__["items"] = model
    return Handler


class Running(NamedTuple):
    """A started application, and its read model."""

    app: Diptych
    items: Any
    model: Any


@contextlib.asynccontextmanager
async def _running(
    url: str, redis_url: str | None, lists: int = len(LISTS), name: str = "lists"
) -> AsyncIterator[Running]:
    """The application over the items, answered by Redis if there is one."""
    settings: dict[str, Any] = {"database_timeout_ms": 60_000, "redis_query_timeout_ms": 5_000}
    handler: Any = _handler(lists)
    config = ConfigService(
        environ={}, database_url=url, redis_url=redis_url, redis_namespace=f"bench-{name}", **settings
    )
    async with Diptych(config, models=Base, handlers=[handler], read_models=[handler.model]) as app:
        while redis_url and (await app.health()).read_models["Items"].served_by != "redis":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        yield Running(app, handler.items, handler.model)


def _row(number: int, size: int = SHORT) -> tuple[Any, ...]:
    note = "x" * (
        size - len(b'{"id":1000000,"name":"item 1000000","owner":"owner 1","price":1000,"note":""}')
    )
    created = datetime.datetime(2020, 1, 1) + datetime.timedelta(seconds=number * 7919 % 100_000_007)
    state = ("new", "open", "done")[number % 3]
    return (
        number,
        f"item {number:07}",
        f"owner {number % OWNERS}",
        state,
        number * 31 % 10_007,
        created,
        note,
    )


async def _fill(url: str, items: int, size: int = SHORT) -> str:
    """Makes the table with so many items, and returns the database's URL."""
    engine = create_async_engine(with_driver(url))
    names = [column.name for column in Item.__table__.columns]
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        if url.startswith("sqlite"):
            for first in range(1, items + 1, 10_000):
                numbers = range(first, min(first + 10_000, items + 1))
                rows = [dict(zip(names, _row(n, size), strict=True)) for n in numbers]
                await connection.execute(sa.insert(Item), rows)
    await engine.dispose()
    if not url.startswith("sqlite"):
        program = await asyncpg.connect(url)
        records = (_row(number, size) for number in range(1, items + 1))
        await program.copy_records_to_table("items", records=records, columns=names)
        await program.execute("ANALYZE items")
        await program.close()
    return url


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """Pages of few and many items, rebuilds, memory, updates."""
    few, many = (FEW, 5_000) if quick else (FEW, MANY)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(stored(PostgresServer(durable=True)))

        async def store(kind: str, name: str, items: int) -> str:
            if kind == "SQLite":
                return await _fill(f"sqlite:///{folder}/{name}.db", items)
            return await _fill(server.url_of(server.create_database()), items)

        rounds = 1 if quick else 9
        stores = {
            kind: {_of(items): await store(kind, f"page-{items}", items) for items in (few, many)}
            for kind in ("SQLite", "PostgreSQL")
        }
        async with contextlib.AsyncExitStack() as opened:
            with stored(valkey()) as one, stored(valkey()) as other:
                asked = {
                    items: await opened.enter_async_context(_running(url, found.url))
                    for (items, url), found in zip(stores["SQLite"].items(), (one, other), strict=True)
                }
                yield Case(PAGE, rounds, {items: _pages(at, quick) for items, at in asked.items()})
                await opened.aclose()
        for kind in stores:
            yield await _from_sql(opened, kind, stores[kind], rounds, quick=quick)
            await opened.aclose()
        for kind in ("SQLite", "PostgreSQL"):
            built = 2_000 if quick else BUILT
            url = await store(kind, "built", built)
            for measured in (_rebuilds, _updates):
                with stored(valkey()) as found:
                    yield await measured(kind, url, found.url, built, quick=quick)
        for size in (SHORT, LONG):
            yield await _memory(f"sqlite:///{folder}/memory-{size}.db", size, 2_000 if quick else MEASURED)


def _pages(asked: Running, quick: bool, *, counts: bool = True) -> Candidate:
    async def measure() -> Sample:
        times = 20 if quick else 500
        begun = time.perf_counter()
        for number in range(times):
            where = {"owner": f"owner {number % OWNERS}"}
            page = await asked.items.page("newest", where=where, limit=20, count=counts)
            assert len(page.decode().items) == 20
        return {TIME: 1000 * (time.perf_counter() - begun) / times}

    return measure


async def _from_sql(
    opened: contextlib.AsyncExitStack, kind: str, stores: dict[str, str], rounds: int, *, quick: bool
) -> Case:
    candidates: dict[str, Candidate] = {}
    for items, url in stores.items():
        asked = await opened.enter_async_context(_running(url, None))
        candidates[items] = _pages(asked, quick, counts=False)
    # The last one has many items.
    candidates[f"{items}, with the total"] = _few_pages(asked)
    candidates[f"{items}, COUNT by itself"] = await _counts(opened, url)
    return Case(PAGE_SQL.format(kind), rounds, candidates)


def _few_pages(asked: Running) -> Candidate:
    async def measure() -> Sample:
        begun = time.perf_counter()
        await asked.items.page("newest", where={"owner": "owner 1"}, limit=20, count=True)
        return {TIME: 1000 * (time.perf_counter() - begun)}

    return measure


async def _counts(opened: contextlib.AsyncExitStack, url: str) -> Candidate:
    engine = create_async_engine(with_driver(url))
    opened.push_async_callback(engine.dispose)
    count = sa.select(sa.func.count()).select_from(Item).where(Item.owner == "owner 1")

    async def measure() -> Sample:
        async with engine.connect() as connection:
            begun = time.perf_counter()
            await connection.execute(count)
            return {TIME: 1000 * (time.perf_counter() - begun)}

    return measure


async def _rebuilds(kind: str, url: str, redis_url: str, items: int, *, quick: bool) -> Case:
    def rebuilding(lists: int) -> Candidate:
        async def measure() -> Sample:
            async with _running(url, redis_url, lists, f"built-{lists}") as asked:
                begun = time.perf_counter()
                await asked.app.rebuild(asked.model)
                return {RATE: items / (time.perf_counter() - begun)}

        return measure

    candidates = {_lists(number): rebuilding(number) for number in (1, 2, 3, 4, 0)}
    return Case(BUILD.format(items, kind), 1 if quick else 3, candidates, warm_up=False)


async def _updates(kind: str, url: str, redis_url: str, items: int, *, quick: bool) -> Case:
    def updating(lists: int) -> Candidate:
        async def measure() -> Sample:
            async with _running(url, redis_url, lists, f"updated-{lists}") as asked:
                # It waits for the end of the lease that the candidate before has left.
                await asked.app.orm.update(Item, items, price=0)
                return await _load(asked.app, items, 0.3 if quick else 2.0)

        return measure

    candidates = {_lists(number): updating(number) for number in (0, 1, 2, 3, 4)}
    return Case(UPDATES.format(kind, AT_ONCE), 1 if quick else 5, candidates, warm_up=False)


async def _load(app: Diptych, items: int, seconds: float) -> Sample:
    async def work(client: int) -> int:
        count = 0
        while time.perf_counter() < end:
            count += 1
            number = count * AT_ONCE % (items - AT_ONCE) + client + 1
            created = datetime.datetime(2024, 1, 1) + datetime.timedelta(seconds=count)
            # All lists but that by the name have another entry then.
            await app.orm.update(Item, number, price=count, created=created)
        return count

    begun = time.perf_counter()
    end = begun + seconds
    counts = await asyncio.gather(*map(work, range(AT_ONCE)))
    return {COMMANDS: sum(counts) / (time.perf_counter() - begun)}


async def _memory(url: str, size: int, items: int) -> Case:
    await _fill(url, items, size)

    def used(store: redis.Redis) -> int:
        return int(store.info("memory")["used_memory"])

    async def plain() -> Sample:
        with stored(valkey()) as found, contextlib.closing(redis.Redis.from_url(found.url)) as store:
            before = used(store)
            for number in range(1, items + 1):
                _, name, owner, _, price, _, note = _row(number, size)
                document = ItemDocument(number, name, owner, price, note)
                store.set(f"items:{number}", msgspec.json.encode(document))
            return {BYTES: (used(store) - before) / items}

    def kept(lists: int) -> Candidate:
        async def measure() -> Sample:
            with stored(valkey()) as found, contextlib.closing(redis.Redis.from_url(found.url)) as store:
                before = used(store)
                async with _running(url, found.url, lists):
                    pass
                return {BYTES: (used(store) - before) / items}

        return measure

    candidates: dict[str, Callable[[], Awaitable[Sample]]] = {PLAIN: plain}
    candidates |= {_lists(number): kept(number) for number in range(len(LISTS) + 1)}
    return Case(MEMORY.format(size), 1, candidates, warm_up=False)
