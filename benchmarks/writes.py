"""Commands over HTTP: adding a book, and changing a row, at equal durability, beside peers, without Redis.

``POST /books/action/add`` with a JSON body; the answer is 201 with the book, sent when both rows (the book, and its
row of the change log) are on the disk: SQLite in WAL mode with ``synchronous=FULL``, PostgreSQL with ``fsync``. At
1 and at 32 clients. "Core by hand" is the same transaction written for this one purpose, in raw ASGI, and once more
behind Litestar, through which our commands go. python-cqrs writes its outbox in place of the log. The server has one
core, the load and PostgreSQL the other. The time of the disk stands first: no commit alone can be faster. In the end
each database is asked whether there is a row of the log for every book.

``PUT /products/{name}`` changes the stock of a product and answers with the product, on PostgreSQL: diptych in raw
ASGI beside ``UPDATE … RETURNING`` by asyncpg without any log, and FastAPI with asyncpg, which writes diptych's row of
the log in the statement of the change. The CPU is that of the server, PostgreSQL's excepted. Revisions of diptych are
compared on SQLite as well.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import updates
from benchmarks.books import seed, title
from benchmarks.claims import Claim
from benchmarks.disk import appended
from benchmarks.driver import drive, sample_of
from benchmarks.http_job import Exchange, Job, Numbered
from benchmarks.plot import bars
from benchmarks.runner import Candidate, Case, Comparison, Sample
from benchmarks.served import seed_as
from benchmarks.servers import Peer, catalogue, running, serving, stored
from benchmarks.trees import Tree
from tests.servers import PostgresServer

CLIENTS = (1, 32)
BOOKS = 1000
OURS = "diptych"
BY_HAND = "Core by hand"
BEHIND_LITESTAR = "Core by hand, Litestar"
FASTAPI_ORM = "FastAPI, ORM, aiosqlite"
PYTHON_CQRS = "python-cqrs, FastAPI, ORM, aiosqlite"

RATE = "requests/s"
SQLITE = "Adding a book, SQLite, {} at once"
POSTGRESQL = "Adding a book, PostgreSQL, {} at once"
CLAIMS = (
    Claim(SQLITE.format(32), RATE, OURS, FASTAPI_ORM, at_least=3),
    *(
        Claim(case.format(clients), RATE, OURS, BY_HAND, at_least=0.8)
        for case in (SQLITE, POSTGRESQL)
        for clients in CLIENTS
    ),
    *updates.CLAIMS,
)


class Server(NamedTuple):
    """A candidate that is running, how many books it was given, and how to ask its database for a number."""

    port: int
    ask: Callable[[str], int]
    log: str = "diptych_log"


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """The disk, SQLite, PostgreSQL."""
    rounds, seconds = (1, 0.5) if quick else (5, 2.0)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        disk = {"append 4 KB and fdatasync": appended(folder)}
        yield Case("The disk", rounds, disk, warm_up=not quick, compared=False)
        for name, start in ((SQLITE, _on_sqlite), (POSTGRESQL, _on_postgresql)):
            with contextlib.ExitStack() as servers:
                started = await start(servers, folder)
                for clients in CLIENTS:
                    candidates = {who: _adding(one, clients, seconds) for who, one in started.items()}
                    yield Case(name.format(clients), rounds, candidates, warm_up=not quick)
                for server in started.values():
                    _check(server)
    async for case in updates.cases(quick):
        yield case


async def against(quick: bool, trees: Sequence[Tree]) -> AsyncGenerator[Case, None]:
    """Commands over HTTP, durably, without Redis, at 1 and at 32 clients, as `writes` measures them."""
    rounds, seconds = (1, 0.5) if quick else (15, 2.0)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgresql = stack.enter_context(stored(PostgresServer(durable=True)))
        for case in (SQLITE, POSTGRESQL):
            started: dict[str, Server] = {}
            for tree in trees:
                if case == SQLITE:
                    file = folder / f"{tree.name}.db"
                    url, ask = f"sqlite:///{file}", _sqlite(file)
                else:
                    name = postgresql.create_database()
                    url, ask = postgresql.url_of(name), _postgresql(postgresql, name)
                await seed_as(tree, url, BOOKS)
                started[tree.name] = Server(stack.enter_context(serving(catalogue(url, tree=tree))), ask)
            for clients in CLIENTS:
                candidates = {name: _adding(one, clients, seconds) for name, one in started.items()}
                yield Case(case.format(clients), rounds, candidates, warm_up=not quick)
            for server in started.values():
                _check(server)
    async for change in updates.against(quick, trees):
        yield change


def plots(comparisons: Sequence[Comparison]) -> Mapping[str, str]:
    """Bars of each comparison but that of the disk."""
    return {
        one.name: bars(one.name, RATE, {n: f.value.median for n, f in one.figures[RATE].items()}, BY_HAND)
        for one in comparisons
        if one.compared and BY_HAND in one.figures[RATE]
    }


async def _on_sqlite(stack: contextlib.ExitStack, folder: Path) -> dict[str, Server]:
    for name in ("diptych", "core", "litestar", "orm", "cqrs"):
        await seed(f"sqlite:///{folder / name}.db", BOOKS)

    def peer(module: str, name: str, log: str = "diptych_log", path: str | None = None) -> Server:
        server = Peer(module, DATABASE_URL=f"sqlite+aiosqlite:///{folder / name}.db")
        return Server(stack.enter_context(running(server, path=path)), _sqlite(folder / f"{name}.db"), log)

    ours = catalogue(f"sqlite:///{folder / 'diptych'}.db")
    return {
        BY_HAND: peer("core_by_hand", "core"),
        BEHIND_LITESTAR: peer("core_litestar", "litestar"),
        OURS: Server(stack.enter_context(serving(ours)), _sqlite(folder / "diptych.db")),
        FASTAPI_ORM: peer("fastapi_orm", "orm"),
        PYTHON_CQRS: peer("python_cqrs", "cqrs", "outbox", "/openapi.json"),
    }


async def _on_postgresql(stack: contextlib.ExitStack, _folder: Path) -> dict[str, Server]:
    postgresql = stack.enter_context(stored(PostgresServer(durable=True)))
    names = [postgresql.create_database() for _ in range(3)]
    for name in names:
        await seed(postgresql.url_of(name), BOOKS)

    def by_hand(module: str, name: str) -> Server:
        server = Peer(module, DATABASE_URL=postgresql.url_of(name).replace("://", "+asyncpg://"))
        return Server(stack.enter_context(running(server)), _postgresql(postgresql, name))

    ours = catalogue(postgresql.url_of(names[1]))
    return {
        BY_HAND: by_hand("core_by_hand", names[0]),
        BEHIND_LITESTAR: by_hand("core_litestar", names[2]),
        OURS: Server(stack.enter_context(serving(ours)), _postgresql(postgresql, names[1])),
    }


def _sqlite(file: Path) -> Callable[[str], int]:
    def ask(query: str) -> int:
        with contextlib.closing(sqlite3.connect(file)) as connection:
            return int(connection.execute(query).fetchone()[0])

    return ask


def _postgresql(server: PostgresServer, name: str) -> Callable[[str], int]:
    return lambda query: int(server.execute(query, name))


def _adding(server: Server, clients: int, seconds: float) -> Candidate:
    async def measure() -> Sample:
        first = server.ask("SELECT max(id) FROM books") + 1  # ids are drawn in order: no such number was used
        new = Numbered(_add_book(), first)
        return sample_of(await drive(Job(server.port, clients, seconds, new, status=b"201")))

    return measure


def _add_book() -> Exchange:
    """The request that adds a book, with its number left open."""
    name = title(0).replace(f"{0:09d}", "%09d")
    fields = '"author":"Author 7","published_date":"1965-08-01","isbn":"%013d","stock_quantity":12'
    body = f'{{"title":"{name}",{fields}}}'
    lines = (
        "POST /books/action/add HTTP/1.1",
        "host: localhost",
        "accept: application/json",
        "content-type: application/json",
        f"content-length: {len(body % (0, 0))}",
        "",
        body,
    )
    return Exchange("\r\n".join(lines).encode(), f'"title":"{name}"'.encode())


def _check(server: Server) -> None:
    books, logged = (server.ask(f"SELECT count(*) FROM {table}") for table in ("books", server.log))
    assert books - BOOKS == logged, f"{books - BOOKS} books were added, and {logged} logged"
