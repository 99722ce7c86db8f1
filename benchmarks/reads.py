"""Queries over HTTP: the catalogue beside its peers, one book by its title, and a page of fifty.

All serve the same 10,000 books from one process on one core; the load and Valkey have the other core. Every Python
server is Granian with one worker. 64 connections ask for random titles, the same ones in the same order; every
answer is checked, of diptych's also that it came from Redis, under a lease. "The ceiling" answers from memory and
"the limit" by one GET over one connection to Redis that all requests share, both in raw ASGI. What is to be shown
stands above the figures. If the load's CPU is near 100 % of its core, the load was the limit.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from benchmarks.books import PAGE_SIZE, SEEDED, seed
from benchmarks.claims import Claim
from benchmarks.driver import get_one, get_page, loaded, loaded_and_counted
from benchmarks.http_job import Job, Repeated
from benchmarks.nestjs import install, versions
from benchmarks.plot import bars
from benchmarks.runner import Candidate, Case, Comparison
from benchmarks.served import start_each
from benchmarks.servers import (
    NestServer,
    Peer,
    catalogue,
    check_answers,
    fill_redis,
    running,
    serving,
    stored,
)
from benchmarks.trees import Tree
from benchmarks.valkey import valkey
from tests.acceptance.serving import FROM_REDIS, FROM_SQL
from tests.servers import Server

__all__ = ["CLAIMS", "against", "cases", "plots", "versions"]

CONNECTIONS = 64
LIMIT = "the limit"
CEILING = "the ceiling"
OURS = "diptych, Redis"
OURS_SQLITE = "diptych, SQLite"
NEST = "NestJS"
NEST_TEXT = "NestJS, text as it is stored"
FASTAPI_REDIS = "FastAPI, redis-py, pydantic"
FASTAPI_BYTES = "FastAPI, redis-py, bytes passed on"
FASTAPI_BARE = "FastAPI, redis-py, bytes passed on, no dependency"
FASTAPI_ORM = "FastAPI, ORM, aiosqlite"
PYTHON_CQRS = "python-cqrs, FastAPI, redis-py"

ONE = "One book by its title"
PAGE = f"A page of {PAGE_SIZE} books"
RATE = "requests/s"
CLAIMS = (
    Claim(ONE, RATE, OURS, LIMIT, at_least=0.83),
    Claim(ONE, RATE, OURS, NEST, at_least=1.1),
    Claim(ONE, RATE, OURS, FASTAPI_BARE, at_least=5),
    Claim(ONE, RATE, OURS_SQLITE, FASTAPI_ORM, at_least=10),
    Claim(ONE, RATE, OURS_SQLITE, OURS, at_least=0.4),
    Claim(PAGE, RATE, OURS, FASTAPI_BARE, at_least=2),
)


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """One book, then a page."""
    rounds, seconds = (1, 0.5) if quick else (7, 2.0)
    with contextlib.ExitStack() as stack:
        ports = await _start(stack, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        one = {name: _one(name, port, seconds) for name, port in ports.items()}
        if NEST in ports:
            job = Job(ports[NEST], CONNECTIONS, seconds, get_one(SEEDED, "/texts/"))
            one[NEST_TEXT] = loaded(job)
        yield Case(ONE, rounds, one, warm_up=not quick)
        with_pages = (FASTAPI_REDIS, FASTAPI_BYTES, FASTAPI_BARE, OURS, OURS_SQLITE, FASTAPI_ORM)
        pages = {name: _measured(name, ports[name], seconds, get_page()) for name in with_pages}
        yield Case(PAGE, rounds, pages, warm_up=not quick)


async def against(quick: bool, trees: Sequence[Tree]) -> AsyncGenerator[Case, None]:
    """Queries over HTTP, one book by its title and a page of fifty of 10,000, from Redis and from SQLite.

    As `reads` measures them: 64 connections, one process on one core; the load and Valkey have the other core. The
    server's CPU time for a request says most where others use the machine, too.
    """
    rounds, seconds = (1, 0.5) if quick else (15, 2.0)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for where, head in (("Redis", FROM_REDIS), ("SQLite", FROM_SQL)):
            servers = await start_each(stack, folder, trees, redis=head == FROM_REDIS)
            for what, asked in ((ONE, get_one(SEEDED)), (PAGE, get_page())):
                candidates = {
                    name: loaded_and_counted(
                        Job(server.port, CONNECTIONS, seconds, asked, head=head.encode()), server.pid
                    )
                    for name, server in servers.items()
                }
                yield Case(f"{what}, {where}", rounds, candidates, warm_up=not quick)


def plots(comparisons: Sequence[Comparison]) -> Mapping[str, str]:
    """Bars of each comparison."""
    return {one.name: bars(one.name, RATE, _medians(one), next(iter(one.samples))) for one in comparisons}


def _medians(comparison: Comparison) -> dict[str, float]:
    return {name: figure.value.median for name, figure in comparison.figures[RATE].items()}


async def _start(stack: contextlib.ExitStack, folder: Path) -> dict[str, int]:
    """Starts all of them, each with books of its own, and returns their ports."""
    await seed(f"sqlite:///{folder / 'books.db'}", SEEDED)
    store = stack.enter_context(stored(valkey()))
    fill_redis(store.url, SEEDED)

    def own(name: str, driver: str = "sqlite") -> str:
        shutil.copy(folder / "books.db", folder / f"{name}.db")
        return f"{driver}:///{folder / name}.db"

    def started(server: Server) -> int:
        return stack.enter_context(running(server))

    aiosqlite = "sqlite+aiosqlite"
    ports = {
        LIMIT: started(Peer("limit", REDIS_URL=store.url)),
        CEILING: started(Peer("ceiling")),
        OURS: stack.enter_context(serving(catalogue(own("redis"), store.url))),
        OURS_SQLITE: stack.enter_context(serving(catalogue(own("sqlite")))),
        FASTAPI_REDIS: started(Peer("fastapi_redis", REDIS_URL=store.url)),
        FASTAPI_BYTES: started(Peer("fastapi_bytes", REDIS_URL=store.url)),
        FASTAPI_BARE: started(Peer("fastapi_bytes", "bare", REDIS_URL=store.url)),
        FASTAPI_ORM: started(Peer("fastapi_orm", DATABASE_URL=own("orm", aiosqlite))),
        PYTHON_CQRS: started(Peer("python_cqrs", REDIS_URL=store.url, DATABASE_URL=own("cqrs", aiosqlite))),
    }
    if (installed := install()) is not None:
        ports[NEST] = started(NestServer(installed, store.url))
    for port in ports.values():
        check_answers(port)
    return ports


def _one(name: str, port: int, seconds: float) -> Candidate:
    return _measured(name, port, seconds, get_one(SEEDED))


def _measured(name: str, port: int, seconds: float, exchanges: Repeated) -> Candidate:
    head = {OURS: FROM_REDIS, OURS_SQLITE: FROM_SQL}.get(name, "").encode()
    return loaded(Job(port, CONNECTIONS, seconds, exchanges, head=head))
