"""What a framework behind hot queries costs: one document by its key, of the example shops beside the demonstration.

Each application is served by `diptych run` with one worker, at diptych's default settings, with a SQLite file and a
Valkey, and asked over 64 connections in a closed loop; all answers come from Redis. The demonstration answers hot
queries in front of Litestar, as the shop with Litestar does; with FastAPI they are answered first of all, unless the
application has middleware. A product is a shorter document than a book.

To be shown: the shop with FastAPI has at least 0.8 of the demonstration's rate.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import httpx

from benchmarks.books import SEEDED, seed
from benchmarks.claims import Claim
from benchmarks.driver import drive, get_one
from benchmarks.http_job import Exchange, Job, Repeated
from benchmarks.runner import Candidate, Case, Sample
from benchmarks.servers import catalogue, fill_redis, running, serving, stored
from benchmarks.valkey import valkey
from tests.acceptance.shops import ShopServer, migrate

CONNECTIONS, PRODUCTS = 64, 1_000
CASE, RATE = "One document by its key", "answers/s"
DEMO, FASTAPI, LITESTAR = "the demonstration", "the shop with FastAPI", "the shop with Litestar"
CLAIMS = (Claim(CASE, RATE, FASTAPI, DEMO, at_least=0.8),)


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """One comparison."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        books = f"sqlite:///{folder / 'books.db'}"
        await seed(books, SEEDED)
        store = stack.enter_context(stored(valkey()))
        fill_redis(store.url, SEEDED)
        jobs = {DEMO: (stack.enter_context(serving(catalogue(books, store.url))), get_one(SEEDED))}
        for name, framework in ((FASTAPI, "fastapi"), (LITESTAR, "litestar")):
            port = stack.enter_context(_shop(framework, f"sqlite:///{folder / framework}.db"))
            jobs[name] = port, _products()
        seconds = 0.5 if quick else 2.0
        candidates = {name: _asked(port, asked, seconds) for name, (port, asked) in jobs.items()}
        yield Case(CASE, 2 if quick else 15, candidates)


def _asked(port: int, asked: Repeated, seconds: float) -> Candidate:
    async def measure() -> Sample:
        outcome = await drive(Job(port, CONNECTIONS, seconds, asked, head=b"cache-status: diptych; hit"))
        return {RATE: outcome.answers / outcome.seconds, "errors, in all": outcome.error_count}

    return measure


@contextlib.contextmanager
def _shop(framework: str, database: str) -> Iterator[int]:
    """Serves a shop with a Valkey of its own and with products; yields the port."""
    migrate(database)
    with stored(valkey()) as store:
        server = ShopServer(
            framework, "diptych run", {"DATABASE_URL": database, "REDIS_URL": store.url}, workers=1
        )
        with running(server, path="/products"), httpx.Client(base_url=server.url, timeout=30) as client:
            client.post("/suppliers", json={"name": "Lux"}).raise_for_status()
            for number in range(PRODUCTS):
                fields = {
                    "sku": _sku(number),
                    "name": "A lamp",
                    "price": "9.90",
                    "stock": 5,
                    "supplier_id": 1,
                }
                client.post("/products", json=fields).raise_for_status()
            yield server.port


def _products() -> Repeated:
    lines = ("GET /products/{} HTTP/1.1", "host: localhost", "accept: application/json", "", "")
    request = "\r\n".join(lines)
    skus = map(_sku, range(PRODUCTS))
    return Repeated([Exchange(request.format(sku).encode(), f'"sku":"{sku}"'.encode()) for sku in skus])


def _sku(number: int) -> str:
    return f"LAMP-{number}"
