"""Queries over HTTP of a read model with one row that does not fit its document, beside the same one without it.

50,000 books in SQLite, all served from Valkey at diptych's default settings. In one of the two databases the stock of
one book was written as a word, past diptych, before the read model was built: its row is set aside. Pages of fifty:
the first, which leaves that book out and says so, and the second, which has nothing to do with it; and one book by
its title. One connection at a time, and 64. The servers have one core, the load and the two Valkeys the other. Every
answer is checked: it has to come from Redis, under a lease. To be shown: pages take as long as without such a row.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import msgspec

from benchmarks.books import PAGE_SIZE, seed, title
from benchmarks.claims import Claim
from benchmarks.driver import get_one, get_page, loaded
from benchmarks.http_job import Job, Repeated
from benchmarks.runner import Case
from benchmarks.servers import catalogue, get, serving, stored
from benchmarks.valkey import valkey
from tests.acceptance.serving import FROM_REDIS

BOOKS = 50_000
BAD = 7
"""The number of the book whose row is set aside: one of the first page, and none that is asked for by its title."""
CONNECTIONS = (1, 64)
FITTING = "all rows fit"
ASIDE = "one is set aside"

HOLDING = "The page that leaves it out, {} at once"
BESIDE = "A page beside it, {} at once"
ONE = "One book by its title, {} at once"
CLAIMS = tuple(
    Claim(case.format(connections), "median, ms", ASIDE, FITTING, at_most=1.05)
    for case in (HOLDING, BESIDE)
    for connections in CONNECTIONS
)


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """The page with the row, one without it, and one book."""
    rounds, seconds, books = (1, 0.5, 10_000) if quick else (15, 1.0, BOOKS)
    with contextlib.ExitStack() as stack:
        ports = await _start(stack, Path(stack.enter_context(tempfile.TemporaryDirectory())), books)
        second = {name: _second_page(port) for name, port in ports.items()}
        asked: Mapping[str, Mapping[str, Repeated]] = {
            HOLDING: dict.fromkeys(ports, get_page()),
            BESIDE: second,
            ONE: dict.fromkeys(ports, get_one(books)),
        }
        for case, exchanges in asked.items():
            for connections in CONNECTIONS:
                jobs = {
                    name: Job(port, connections, seconds, exchanges[name], head=FROM_REDIS.encode())
                    for name, port in ports.items()
                }
                candidates = {name: loaded(job) for name, job in jobs.items()}
                yield Case(case.format(connections), rounds, candidates, warm_up=not quick)
        _check(ports)


async def _start(stack: contextlib.ExitStack, folder: Path, books: int) -> dict[str, int]:
    ports = {}
    for number, name in enumerate((FITTING, ASIDE)):
        file = folder / f"{number}.db"
        await seed(f"sqlite:///{file}", books)
        if name == ASIDE:
            _spoil(file)
        store = stack.enter_context(stored(valkey()))
        ports[name] = stack.enter_context(serving(catalogue(f"sqlite:///{file}", store.url)))
    _check(ports)
    return ports


def _spoil(file: Path) -> None:
    """SQLite takes a word where the table says INTEGER; the document wants a number."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        changed = connection.execute("UPDATE books SET stock_quantity = 'many' WHERE title = ?", [title(BAD)])
        assert changed.rowcount == 1


def _check(ports: Mapping[str, int]) -> None:
    """The row is set aside in the one that has it, and nowhere else."""
    found = {name: get(port, _first_page())[1]["diptych-set-aside"] for name, port in ports.items()}
    assert found == {FITTING: None, ASIDE: "1"}, f"rows that are set aside: {found}"


def _second_page(port: int) -> Repeated:
    _, _, body = get(port, _first_page())
    return get_page(after=msgspec.json.decode(body)["next"], last=2 * PAGE_SIZE - 1)


def _first_page() -> str:
    return f"/books?limit={PAGE_SIZE}"
