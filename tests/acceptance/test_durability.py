"""What was acknowledged is there: after kill -9, and while Redis comes and goes under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa

from demo_app.models.book import Book
from diptych import ConfigService, ORMService
from tests.acceptance.serving import FROM_REDIS, CatalogueServer
from tests.servers import RedisServer

ADDS = 1000
CLIENTS = 8


async def _add_until_killed(server: CatalogueServer, titles: list[str], kill_after: int) -> set[str]:
    """Adds titles from several clients; kills the server with SIGKILL in the middle. Returns the acknowledged."""
    acknowledged: set[str] = set()
    waiting = iter(titles)

    async def add_some(client: httpx.AsyncClient) -> None:
        for title in waiting:
            answer = await client.post("/books/action/add", json={"title": title, "author": "A"})
            assert answer.status_code == 201
            acknowledged.add(title)
            if len(acknowledged) == kill_after:
                await asyncio.to_thread(server.kill)

    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        adders = [asyncio.create_task(add_some(client)) for _ in range(CLIENTS)]
        for outcome in await asyncio.gather(*adders, return_exceptions=True):
            assert outcome is None or isinstance(outcome, httpx.TransportError), outcome
    return acknowledged


async def _from_redis(client: httpx.AsyncClient, path: str, **parameters: str) -> httpx.Response:
    """Asks until Redis answers: on a busy machine a lease may run out in between."""
    deadline = time.monotonic() + 30
    while True:
        answer = await client.get(path, params=parameters)
        if answer.headers["cache-status"] == FROM_REDIS:
            return answer
        assert time.monotonic() < deadline, answer.headers["cache-status"]
        await asyncio.sleep(0.05)


async def _listed(client: httpx.AsyncClient) -> list[dict[str, object]]:
    """Every book, page by page, each of them from Redis."""
    books: list[dict[str, object]] = []
    after: dict[str, str] = {}
    while True:
        page = (await _from_redis(client, "/books", limit="500", **after)).json()
        books += page["items"]
        if page["next"] is None:
            return books
        after = {"after": page["next"]}


async def _titles(client: httpx.AsyncClient) -> set[str]:
    return {str(book["title"]) for book in await _listed(client)}


async def _in_sql(database: str) -> tuple[set[str], set[str]]:
    """The titles in the table, and those that the change log amounts to."""
    async with ORMService(ConfigService(environ={}, database_url=database)) as orm:
        rows = {book.title async for book in orm.iterate(Book)}
        logged: set[str] = set()
        async with orm.database.reader.connect() as connection:
            statement = sa.text("SELECT kind, key, old_key FROM diptych_log ORDER BY position")
            for kind, key, old_key in await connection.execute(statement):
                if kind != "created":
                    logged.remove(json.loads(old_key)["title"])
                if kind != "deleted":
                    logged.add(json.loads(key)["title"])
    return rows, logged


@pytest.mark.parametrize("kill_after", [1, ADDS // 2])
async def test_kill_9_in_the_middle_of_adds_loses_nothing_acknowledged(
    database_url: str, valkey: RedisServer, kill_after: int
) -> None:
    """After the restart SQL, its log and Redis agree, and every acknowledged book is in all three."""
    titles = [f"Book {number:04}" for number in range(ADDS)]
    with CatalogueServer(database_url, valkey.url) as server:
        await asyncio.to_thread(server.await_cache_status, FROM_REDIS)
        acknowledged = await _add_until_killed(server, titles, kill_after)
        assert kill_after <= len(acknowledged) < ADDS
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(server.await_cache_status, FROM_REDIS)
        rows, logged = await _in_sql(database_url)
        async with httpx.AsyncClient(base_url=server.url) as client:
            from_redis = await _titles(client)
            assert acknowledged <= from_redis
            # What was committed and not acknowledged comes with the first pass.
            deadline = time.monotonic() + 30
            while from_redis != rows and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
                from_redis = await _titles(client)
    assert acknowledged <= rows
    assert rows == logged == from_redis
    assert len(rows - acknowledged) <= CLIENTS  # those under way when it was killed


class Load:
    """Writers and readers that note every answer, and every read that is older than an acknowledged write."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.acknowledged = dict.fromkeys(range(4), -1)
        self.stores: list[str] = []
        self.faults: list[str] = []

    async def write(self, number: int) -> None:
        """Counts the stock of one book up, one acknowledged command after the other."""
        stock = 0
        while True:
            answer = await self.client.patch(f"/books/{number}/edit", json={"stock_quantity": stock})
            if answer.status_code != 200:
                self.faults.append(f"write: {answer.status_code} {answer.text}")
            self.acknowledged[number] = stock
            stock += 1

    async def read(self, number: int) -> None:
        """Reads the book by key and in the list."""
        while True:
            for path in (f"/books/{number}", "/books"):
                known = self.acknowledged[number]
                answer = await self.client.get(path)
                if answer.status_code != 200:
                    self.faults.append(f"read: {answer.status_code} {answer.text}")
                    continue
                books = [answer.json()] if path != "/books" else answer.json()["items"]
                stock = next(book["stock_quantity"] for book in books if book["title"] == str(number))
                if stock < known:
                    self.faults.append(f"{path}: {stock} after {known} was acknowledged, {answer.headers}")
                self.stores.append(answer.headers["cache-status"])

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        workers = [self.write(n) for n in self.acknowledged] + [self.read(n) for n in self.acknowledged]
        tasks = [asyncio.create_task(worker) for worker in workers]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended

    async def until(self, store: str, count: int = 50) -> None:
        """Waits until so many answers in a row came from this store."""
        deadline, start = time.monotonic() + 30, len(self.stores)
        while len(self.stores) < start + count or set(self.stores[-count:]) != {store}:
            assert time.monotonic() < deadline, f"{store!r} did not answer, but {set(self.stores[-count:])}"
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["stop", "kill", "pause"])
async def test_redis_comes_and_goes_under_load_without_an_error_or_a_stale_answer(
    database_url: str, valkey: RedisServer, how: str
) -> None:
    with CatalogueServer(database_url, valkey.url) as server:
        await asyncio.to_thread(server.await_cache_status, FROM_REDIS)
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            load = Load(client)
            for number in load.acknowledged:
                answer = await client.post("/books/action/add", json={"title": str(number), "author": "A"})
                assert answer.status_code == 201
            async with load.running():
                for _ in range(2):
                    await load.until(FROM_REDIS)
                    await asyncio.to_thread(getattr(valkey, how))
                    await load.until("diptych; fwd=miss; detail=redis-away")
                    await asyncio.to_thread(valkey.resume if how == "pause" else valkey.start)
                await load.until(FROM_REDIS)
            assert load.faults == []
            for number, acknowledged in load.acknowledged.items():
                answer = await _from_redis(client, f"/books/{quote(str(number))}")
                assert answer.json()["stock_quantity"] >= acknowledged
            rows, logged = await _in_sql(database_url)
            assert {str(book["title"]) for book in await _listed(client)} == rows == logged
