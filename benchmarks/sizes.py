"""Costs drawn against size: the number of books, of connections and of workers, and the size of a document.

One book by its title, and where the number of books changes also a page of fifty. What is compared stands side by
side and is asked in turn. The server has one core and the load the other; but where the number of workers changes,
servers and load share both cores, since two workers need two. The long documents are books whose author has a long
name, which SQLite does not mind. To be shown: with one million books a page takes at most 1.3 times as long as with
one thousand.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.books import PAGE_SIZE, document, seed
from benchmarks.claims import Claim
from benchmarks.cores import load_core, server_core
from benchmarks.driver import get_one, get_page, loaded
from benchmarks.http_job import Job
from benchmarks.plot import curves
from benchmarks.runner import Candidate, Case, Comparison
from benchmarks.served import serve_each
from benchmarks.servers import Peer, catalogue, check_answers, fill_redis, running, serving, stored
from benchmarks.trees import Tree
from benchmarks.valkey import valkey

AT_ONCE = 64
FEW = 1_000  # books, where their number is not what counts
WORKERS = (1, 2)

LIMIT = "the limit"
OURS = "diptych, Redis"
OURS_SQLITE = "diptych, SQLite"
FASTAPI_REDIS = "FastAPI, redis-py, pydantic"

RATE = "requests/s"
BY_BOOKS = "One book, by the number of books"
PAGE_BY_BOOKS = f"A page of {PAGE_SIZE} books, by the number of books"
BY_CONNECTIONS = "One book, by the number of connections"
BY_WORKERS = "One book, by the number of workers"
BY_BYTES = "One book, by the size of its document in bytes"


class Scale(NamedTuple):
    """How much is measured."""

    rounds: int
    seconds: float
    series: Sequence[str]
    books: Sequence[int]
    connections: Sequence[int]
    document_bytes: Sequence[int]


FULL = Scale(
    rounds=4,
    seconds=0.8,
    series=(LIMIT, OURS, OURS_SQLITE, FASTAPI_REDIS),
    books=(1_000, 100_000, 1_000_000),
    connections=(1, 4, 16, 64, 256),
    document_bytes=(200, 2_000, 20_000),
)
QUICK = Scale(1, 0.3, (LIMIT, OURS), books=(1_000, 5_000), connections=(1, 16), document_bytes=(200, 2_000))

Ports = Mapping[str, int]
Candidates = dict[str, Candidate]
Start = Callable[..., Awaitable[Ports]]
"""Starts what is compared, with so many ``books``; ``author_size``, ``workers`` and ``cores`` may be left out."""


def _at(series: str, size: int) -> str:
    """The name of a candidate: a point of a curve."""
    return f"{series} @ {size:,}"


CLAIMS = (Claim(PAGE_BY_BOOKS, "median, ms", _at(OURS, 1_000_000), _at(OURS, 1_000), at_most=1.3),)


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """One comparison after the other, each with servers of its own."""
    scale = QUICK if quick else FULL
    for compare in COMPARISONS:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            start = partial(_start, stack, folder, scale.series)
            for name, candidates in (await compare(start, scale)).items():
                yield Case(name, scale.rounds, candidates, warm_up=not quick)


async def against(quick: bool, trees: Sequence[Tree]) -> AsyncGenerator[Case, None]:
    """Queries over HTTP, from Redis: more books, connections, workers, longer documents, as `sizes` measures them."""
    scale = (QUICK if quick else FULL)._replace(series=[tree.name for tree in trees])
    for compare in COMPARISONS:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            start = partial(serve_each, stack, folder, trees, redis=True)
            for name, candidates in (await compare(start, scale)).items():
                for size, of_it in _by_size(candidates).items():
                    yield Case(f"{name}: {size}", scale.rounds, of_it, warm_up=not quick)


def plots(comparisons: Sequence[Comparison]) -> Mapping[str, str]:
    """Curves of each comparison."""
    return {
        one.name: curves(one.name, one.name.rpartition("by the ")[2], RATE, _series(one))
        for one in comparisons
    }


def _by_size(candidates: Candidates) -> dict[str, Candidates]:
    """Those of the same size, by it and by the name of their series."""
    sizes: dict[str, Candidates] = {}
    for at, candidate in candidates.items():
        series, _, size = at.rpartition(" @ ")
        sizes.setdefault(size, {})[series] = candidate
    return sizes


def _series(comparison: Comparison) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for name, figure in comparison.figures[RATE].items():
        curve, _, size = name.rpartition(" @ ")
        series.setdefault(curve, []).append((float(size.replace(",", "")), figure.value.median))
    return series


async def _by_books(start: Start, scale: Scale) -> dict[str, Candidates]:
    one: Candidates = {}
    page: Candidates = {}
    for books in scale.books:
        for name, port in (await start(books=books)).items():
            one[_at(name, books)] = loaded(Job(port, AT_ONCE, scale.seconds, get_one(books)))
            if name != LIMIT:  # which knows no pages
                page[_at(name, books)] = loaded(Job(port, AT_ONCE, scale.seconds, get_page()))
    return {BY_BOOKS: _by_series(one, scale), PAGE_BY_BOOKS: _by_series(page, scale)}


def _by_series(candidates: Candidates, scale: Scale) -> Candidates:
    """In the order in which the tables are to be read."""
    return {at: candidates[at] for name in scale.series for at in candidates if at.startswith(f"{name} @ ")}


async def _by_connections(start: Start, scale: Scale) -> dict[str, Candidates]:
    ports, asked = await start(books=FEW), get_one(FEW)
    candidates = {
        _at(name, connections): loaded(Job(port, connections, scale.seconds, asked))
        for name, port in ports.items()
        for connections in scale.connections
    }
    return {BY_CONNECTIONS: candidates}


async def _by_workers(start: Start, scale: Scale) -> dict[str, Candidates]:
    both = server_core() | load_core()
    candidates: Candidates = {}
    for workers in WORKERS:
        ports = await start(books=FEW, workers=workers, cores=both)
        for name, port in ports.items():
            job = Job(port, AT_ONCE, scale.seconds, get_one(FEW))
            candidates[_at(name, workers)] = loaded(job, both)
    return {BY_WORKERS: _by_series(candidates, scale)}


async def _by_bytes(start: Start, scale: Scale) -> dict[str, Candidates]:
    candidates: Candidates = {}
    for size in scale.document_bytes:
        # All but the author's name takes as much room in every document.
        author_size = max(0, size - len(document(0)))
        for name, port in (await start(books=FEW, author_size=author_size)).items():
            candidates[_at(name, size)] = loaded(Job(port, AT_ONCE, scale.seconds, get_one(FEW)))
    return {BY_BYTES: _by_series(candidates, scale)}


COMPARISONS = (_by_books, _by_connections, _by_workers, _by_bytes)


async def _start(
    stack: contextlib.ExitStack,
    folder: Path,
    names: Sequence[str],
    *,
    books: int,
    author_size: int = 0,
    workers: int = 1,
    cores: set[int] | None = None,
) -> Ports:
    """Starts these servers, with a Valkey and a database of their own, and returns their ports."""
    database = f"sqlite:///{folder}/{books}-{author_size}-{workers}.db"
    await seed(database, books, author_size)
    store = stack.enter_context(stored(valkey()))
    fill_redis(store.url, books, author_size)
    starts: Mapping[str, Callable[[], contextlib.AbstractContextManager[int]]] = {
        LIMIT: lambda: running(Peer("limit", workers=workers, REDIS_URL=store.url), cores),
        OURS: lambda: serving(catalogue(database, store.url, workers=workers), cores),
        OURS_SQLITE: lambda: serving(catalogue(database, workers=workers), cores),
        FASTAPI_REDIS: lambda: running(Peer("fastapi_redis", workers=workers, REDIS_URL=store.url), cores),
    }
    ports = {name: stack.enter_context(starts[name]()) for name in names}
    for port in ports.values():
        check_answers(port, author_size)
    return ports
