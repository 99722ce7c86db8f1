"""What capture costs those who write past diptych, how soon it notices them, and what a session costs in a command.

In one process, over a table of products of which a read model in Valkey is made, at diptych's default settings.

- *A foreign change on an idle system*: from its commit by a plain driver until Redis answers with it, in ms.
- *A foreign UPDATE*: ``UPDATE … WHERE name`` by asyncpg, each committed by itself, on a table with diptych's triggers
  and on one without, while no application runs.
- *A foreign UPDATE of many rows*: one statement, and until Redis answers with the last of them. Queries are asked
  meanwhile: how many Redis answered, how many SQL, and how many were stale a lease after the commit.
- *A command with a session*: ``session.get``, a changed attribute, commit; by diptych until every query sees the
  change, and by hand in ``AsyncSession`` without anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from benchmarks.claims import Claim
from benchmarks.peers.update import Base, Product, name_of, product
from benchmarks.runner import Candidate, Case, Sample
from benchmarks.servers import stored
from benchmarks.valkey import valkey
from diptych import Command, ConfigService, Diptych, Document, ORMService, Query, ReadModel
from tests.servers import PostgresServer

PRODUCTS = 1000
MANY = 100_000
AT_ONCE = 8

IDLE = "A foreign change on an idle system, {}"
ONE = "A foreign UPDATE, PostgreSQL, {} at once"
BULK = "A foreign UPDATE of {:,} rows, {}"
SESSION = "A command with a session, {}, {} at once"
STALENESS, WORST = "median until Redis shows it, ms", "the longest, ms"
RATE = "commits/s"
TIME = "time of the statement, s"
CAPTURED, PLAIN = "captured", "without triggers"
OURS, BY_HAND = "diptych, visible to every query", "a session by hand"

CLAIMS = (
    Claim(ONE.format(AT_ONCE), RATE, CAPTURED, PLAIN, at_least=0.5),
    Claim(BULK.format(MANY, "PostgreSQL"), TIME, CAPTURED, PLAIN, at_most=3),
    Claim(SESSION.format("PostgreSQL", AT_ONCE), RATE, OURS, BY_HAND, at_least=0.55),
)


class ProductDocument(msgspec.Struct):
    id: int
    name: str
    maker: str
    stock: int


class ProductReadModel(ReadModel[Product]):
    key = Product.name
    document = ProductDocument


class SetStock(Command[None]):
    number: int
    stock: int


class GetProduct(Query[Document[ProductDocument] | None]):
    name: str


class Products:
    def __init__(self, orm_service: ORMService, products: ProductReadModel) -> None:
        self.orm_service, self.products = orm_service, products

    async def set_stock(self, command: SetStock) -> None:
        async with self.orm_service.session() as session:
            (await session.get_one(Product, command.number)).stock = command.stock

    async def get(self, query: GetProduct) -> Document[ProductDocument] | None:
        return await self.products.get(query.name)


class Store:
    """A database of this kind: ``execute`` runs a statement as another program would, and commits."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")

    async def execute(self, statement: str, *values: Any) -> None:
        """Executes the statement on a connection of its own."""
        if self.is_sqlite:
            await asyncio.to_thread(self._execute, statement, values)
        else:
            connection = await asyncpg.connect(self.url)
            try:
                await connection.execute(statement, *values)
            finally:
                await connection.close()

    def _execute(self, statement: str, values: tuple[Any, ...]) -> None:
        with contextlib.closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=60)) as database:
            database.execute(statement, values)
            database.commit()

    async def fill(self, count: int) -> None:
        """Adds products before diptych knows the table."""
        engine = create_async_engine(_with_driver(self.url))
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            for first in range(0, count, 10_000):
                rows = [product(n) for n in range(first, min(first + 10_000, count))]
                await connection.execute(sa.insert(Product), rows)
        await engine.dispose()


def _with_driver(url: str) -> str:
    return url.replace("sqlite://", "sqlite+aiosqlite://").replace("postgresql://", "postgresql+asyncpg://")


@contextlib.asynccontextmanager
async def _running(store: Store, redis_url: str, name: str) -> AsyncIterator[Diptych]:
    config = ConfigService(
        environ={}, database_url=store.url, redis_url=redis_url, redis_namespace=f"bench-{name}"
    )
    async with Diptych(config, models=Base, handlers=[Products], read_models=[ProductReadModel]) as app:
        while (await app.health()).read_models["ProductReadModel"].served_by != "redis":
            await _found(app, 0)
            await asyncio.sleep(0.02)
        yield app


async def _found(app: Diptych, number: int) -> tuple[str, int]:
    """The store that answers with a product, and its stock."""
    found = await app.ask(GetProduct(name_of(number)))
    document = None if found is None else found.decode()
    assert found is not None
    assert document is not None
    return found.served.store, document.stock


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """Idle systems, single changes, many rows, sessions."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(stored(PostgresServer(durable=True)))
        redis_url = stack.enter_context(stored(valkey())).url

        async def store(kind: str, name: str, rows: int) -> Store:
            if kind == "SQLite":
                made = Store(f"sqlite:///{folder}/{name}.db")
            else:
                made = Store(server.url_of(server.create_database()))
            await made.fill(rows)
            return made

        for kind in ("SQLite", "PostgreSQL"):
            yield await _idle(kind, await store(kind, "idle", PRODUCTS), redis_url, quick=quick)
        yield await _single(
            [await store("PostgreSQL", name, PRODUCTS) for name in ("one", "plain")], redis_url, quick=quick
        )
        rows = 10_000 if quick else MANY
        for kind in ("SQLite", "PostgreSQL"):
            stores = [await store(kind, name, rows) for name in ("many", "many-plain")]
            yield await _bulk(kind, stores, redis_url, rows, quick=quick)
        for kind in ("SQLite", "PostgreSQL"):
            for clients in (1, AT_ONCE):
                stores = [await store(kind, f"{name}{clients}", PRODUCTS) for name in ("ours", "hand")]
                yield await _sessions(kind, stores, redis_url, clients, quick=quick)


async def _idle(kind: str, store: Store, redis_url: str, *, quick: bool) -> Case:
    async def measure() -> Sample:
        taken: list[float] = []
        async with _running(store, redis_url, f"idle-{kind}") as app:
            for number in range(5 if quick else 40):
                await asyncio.sleep(0.31)  # no multiple of any interval of diptych's
                stock = int(time.time() * 1000) % 1_000_000_000
                mark = "?" if store.is_sqlite else "$1"
                await store.execute(f"UPDATE products SET stock = {mark} WHERE id = {number + 1}", stock)
                committed = time.perf_counter()
                while await _found(app, number) != ("redis", stock):  # noqa: ASYNC110 - as a client polls
                    await asyncio.sleep(0.001)
                taken.append(1000 * (time.perf_counter() - committed))
        taken.sort()
        return {STALENESS: taken[len(taken) // 2], WORST: taken[-1]}

    return Case(IDLE.format(kind), 1, {"diptych": measure}, warm_up=False, compared=False)


async def _single(stores: list[Store], redis_url: str, *, quick: bool) -> Case:
    captured, plain = stores
    async with _running(captured, redis_url, "single"):
        pass

    def updating(store: Store) -> Candidate:
        async def measure() -> Sample:
            async def work(client: int) -> int:
                connection, count = await asyncpg.connect(store.url), 0
                try:
                    while time.perf_counter() < end:
                        number = count % (PRODUCTS // AT_ONCE) * AT_ONCE + client
                        await connection.execute(
                            "UPDATE products SET stock = $2 WHERE name = $1", name_of(number), count
                        )
                        count += 1
                finally:
                    await connection.close()
                return count

            begun = time.perf_counter()
            end = begun + (0.5 if quick else 3.0)
            counts = await asyncio.gather(*map(work, range(AT_ONCE)))
            return {RATE: sum(counts) / (time.perf_counter() - begun)}

        return measure

    candidates = {PLAIN: updating(plain), CAPTURED: updating(captured)}
    return Case(ONE.format(AT_ONCE), 1 if quick else 9, candidates, warm_up=not quick)


async def _bulk(kind: str, stores: list[Store], redis_url: str, rows: int, *, quick: bool) -> Case:
    captured, plain = stores
    stock = 1

    async def without() -> Sample:
        begun = time.perf_counter()
        await plain.execute("UPDATE products SET stock = stock + 1")
        return {TIME: time.perf_counter() - begun}

    async def noticed() -> Sample:
        nonlocal stock
        stock += 1
        async with _running(captured, redis_url, f"bulk-{kind}") as app:
            counts = {"redis": 0, "sql": 0, "stale": 0}
            committed = float("inf")
            lease_s = app.config.settings.lease_s

            async def ask() -> None:
                while counts["redis"] >= 0:
                    asked = time.perf_counter()
                    served, found = await _found(app, rows - 1)
                    counts[served] += 1
                    counts["stale"] += found != stock and asked > committed + lease_s
                    if found == stock and served == "redis":
                        return
                    await asyncio.sleep(0.002)

            asking = asyncio.create_task(ask())
            begun = time.perf_counter()
            await captured.execute("UPDATE products SET stock = stock + 1")
            committed = time.perf_counter()
            await asking
            return {
                TIME: committed - begun,
                "until Redis shows it, s": time.perf_counter() - committed,
                "answers by Redis meanwhile, in all": counts["redis"],
                "answers by SQL meanwhile, in all": counts["sql"],
                "stale answers, in all": counts["stale"],
            }

    candidates: dict[str, Callable[[], Awaitable[Sample]]] = {PLAIN: without, CAPTURED: noticed}
    return Case(BULK.format(rows, kind), 1 if quick else 5, candidates, warm_up=False)


async def _sessions(kind: str, stores: list[Store], redis_url: str, clients: int, *, quick: bool) -> Case:
    seconds = 0.5 if quick else 2.0
    ours, hand = stores

    async def loop(change: Callable[[int, int], Awaitable[None]]) -> Sample:
        async def work(client: int) -> int:
            count = 0
            while time.perf_counter() < end:
                count += 1
                await change(count % (PRODUCTS // clients) * clients + client + 1, count)
            return count

        begun = time.perf_counter()
        end = begun + seconds
        counts = await asyncio.gather(*map(work, range(clients)))
        return {RATE: sum(counts) / (time.perf_counter() - begun)}

    async def by_diptych() -> Sample:
        async with _running(ours, redis_url, f"session-{kind}-{clients}") as app:
            return await loop(lambda number, stock: app.execute(SetStock(number, stock)))

    async def by_hand() -> Sample:
        # SQLite has one writer: those who wait for it in this process beat those who wait in the file.
        engine = create_async_engine(_with_driver(hand.url), pool_size=1 if hand.is_sqlite else 10)

        async def change(number: int, stock: int) -> None:
            async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
                (await session.get_one(Product, number)).stock = stock

        try:
            return await loop(change)
        finally:
            await engine.dispose()

    candidates = {BY_HAND: by_hand, OURS: by_diptych}
    return Case(SESSION.format(kind, clients), 1 if quick else 5, candidates, warm_up=not quick)
