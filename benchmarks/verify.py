"""``diptych verify`` over a million books, of which a hundred differ, while 200 commands a second change books.

One process at diptych's default settings runs the commands, on the first tenth of the books, at even intervals. By
hand, past diptych, twenty differences of each of five kinds are planted in Redis among the other books: documents
deleted, documents of no row, documents with other content, entries taken out of a list, entries put into a list. Then
the command is run as a user runs it, in a process of its own. "found" are those of the hundred that it names,
"others" what it names besides; "took" is its time from start to end.

To be shown: 100 found, no others, within five minutes. The quick run has 100,000 books.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import redis

from benchmarks.books import seed, title
from benchmarks.catalogue import open_catalogue, served_by_redis
from benchmarks.runner import Case, Sample
from benchmarks.valkey import valkey
from demo_app.messages import BookChanges, EditBook
from diptych import Diptych
from tests.servers import PostgresServer

BOOKS = 1_000_000
COMMANDS_A_SECOND = 200
OF_EACH_KIND = 20
_STAMP = (2**62).to_bytes(8, "big")


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """Both databases, one after the other."""
    books = BOOKS // 10 if quick else BOOKS
    with tempfile.TemporaryDirectory() as folder, PostgresServer(durable=True) as server:
        for name, database in (("SQLite", str(Path(folder) / "books.db")), ("PostgreSQL", server.url)):

            async def verified(database: str = database) -> Sample:
                await seed(database, books)
                return await _verified(database, books)

            yield Case(f"{name}, {books:,} books", 1, {"verify": verified}, warm_up=False, compared=False)


async def _verified(database: str, books: int) -> Sample:
    store = await asyncio.to_thread(valkey().__enter__)
    try:
        async with open_catalogue(database, store.url) as app:
            # Of the one that is built later, too: a build beside them leaves commands no time.
            await served_by_redis(app)
            planted = _plant(store.url, books)
            over, count = asyncio.Event(), [0]
            commanding = asyncio.create_task(_command(app, books // 10, over, count))
            began = time.monotonic()
            try:
                report = await _run(database, store.url)
            finally:
                took_s = time.monotonic() - began
                over.set()
                await commanding
    finally:
        await asyncio.to_thread(store.close)
    model = report["read_models"]["BookReadModel"]
    named = {each["key"] for each in model["named"]}
    assert model["documents"] == books
    return {
        "planted": len(planted),
        "found": len(named & planted),
        "others": model["differences"] - len(named & planted),
        "undecided": model["undecided"],
        "took, s": took_s,
        "books a second": books / took_s,
        "commands a second meanwhile": count[0] / took_s,
    }


async def _command(app: Diptych, books: int, over: asyncio.Event, count: list[int]) -> None:
    """Changes books at even intervals, each of which differs from its former state."""
    began, running = time.monotonic(), set[asyncio.Task[Any]]()
    while not over.is_set():
        number = count[0] * 7919 % books
        changes = BookChanges(author=f"Author {count[0]}", stock_quantity=count[0])
        task = asyncio.create_task(app.execute(EditBook(title(number), changes)))
        running.add(task)
        task.add_done_callback(running.discard)
        count[0] += 1
        await asyncio.sleep(max(0.0, began + count[0] / COMMANDS_A_SECOND - time.monotonic()))
    await asyncio.gather(*running)


async def _run(database: str, redis_url: str) -> dict[str, Any]:
    """Runs the command, and returns what it reports."""
    command = (
        sys.executable,
        "-m",
        "diptych.cli",
        "verify",
        "BookReadModel",
        "--app",
        "demo_app.app:app",
        "--json",
    )
    settings = {"DIPTYCH_DATABASE_URL": database, "DIPTYCH_REDIS_URL": redis_url}
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **settings}, stdout=asyncio.subprocess.PIPE
    )
    written, _ = await process.communicate()
    assert process.returncode == 1, process.returncode
    report: dict[str, Any] = json.loads(written)
    return report


def _plant(url: str, books: int) -> set[str]:
    """Plants the differences, and returns the keys of their books."""
    with redis.Redis.from_url(url) as store:
        prefix = next(store.scan_iter("*BookReadModel:*:marker", count=10_000)).removesuffix(b"marker")
        first, apart = books // 10, (books - books // 10) // (OF_EACH_KIND * 5)
        titles = [title(first + apart * n) for n in range(OF_EACH_KIND * 5)]
        for deleted in titles[:OF_EACH_KIND]:
            assert store.delete(prefix + b"d:" + deleted.encode()) == 1
        for at, changed in enumerate(titles[OF_EACH_KIND : 2 * OF_EACH_KIND]):
            name = prefix + b"d:" + changed.encode()
            stored = store.get(name)
            assert isinstance(stored, bytes)
            store.set(name, (stored[:8] if at % 2 else _STAMP) + stored[8:].replace(b"Author", b"author"))
        own = [prefix + b"i:" + name for name in (b"title", b"author,title", b"search", b"newest")]
        for at, taken in enumerate(titles[2 * OF_EACH_KIND : 3 * OF_EACH_KIND]):
            entry = _entry_of(store, prefix, taken)[at % 3]
            assert store.zrem(own[at % 3], entry) == 1
        for at, added in enumerate(titles[3 * OF_EACH_KIND : 4 * OF_EACH_KIND]):
            key = added.encode()
            entry = b"\x01" * (1 + at % 2) + key + len(key).to_bytes(4, "big")
            assert store.zadd(own[at % 4], {entry: 0}) == 1
        ghosts = [f"Nobody's book {at}" for at in range(OF_EACH_KIND)]
        for ghost in ghosts:
            store.set(prefix + b"d:" + ghost.encode(), _STAMP + b'{"id":0}')
    return {*titles[: 4 * OF_EACH_KIND], *ghosts}


def _entry_of(store: redis.Redis, prefix: bytes, of: str) -> list[bytes]:
    """Returns the list entries of a book, in the order of the lists."""
    unpack = "return cmsgpack.unpack(redis.call('HGET', KEYS[1], ARGV[1]))"
    found: Any = store.eval(unpack, 1, prefix + b"entries", of)
    return list(found)
