"""Commands over HTTP that change one row: on PostgreSQL beside raw ASGI and FastAPI, both with asyncpg.

Revisions are compared on SQLite too, and by commands that add a row; the application is the same for all of them. A
part of ``benchmarks.writes``, which says what is measured.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from benchmarks.claims import Claim
from benchmarks.driver import drive_and_count, loaded_and_counted
from benchmarks.http_job import Exchange, Job, Numbered, Repeated
from benchmarks.peers.update import ATTRIBUTES, PRODUCTS, name_of
from benchmarks.runner import Candidate, Case, Sample
from benchmarks.servers import Peer, running, stored
from benchmarks.trees import THIS, Tree
from diptych import ConfigService, ORMService
from tests.servers import PostgresServer

OURS = "diptych"
BARE = "ASGI, asyncpg, no log"
FASTAPI = "FastAPI, asyncpg, the same log"
RATE = "requests/s"
PLAIN = "Changing a row, PostgreSQL, {} at once"
JSONB = "Changing a row with a column of JSONB, PostgreSQL, {} at once"
SQLITE = "Changing a row, SQLite, {} at once"
ADDING, ADDING_ON_SQLITE = "Adding a row, PostgreSQL, {} at once", "Adding a row, SQLite, {} at once"
JSON = "Changing a row with a column of JSON, SQLite, {} at once"
CLIENTS = (1, 32)

CLAIMS = (
    Claim(PLAIN.format(32), RATE, OURS, BARE, at_least=0.35),
    *(Claim(case.format(32), RATE, OURS, FASTAPI, at_least=1) for case in (PLAIN, JSONB)),
)


class Products(NamedTuple):
    """A kind of table, on a kind of database; ``title`` is that of its cases. One that ``grows`` has rows added."""

    title: str
    on_sqlite: bool = False
    has_documents: bool = False
    grows: bool = False


ON_POSTGRESQL = (Products(PLAIN), Products(JSONB, has_documents=True))
ON_SQLITE = (Products(SQLITE, on_sqlite=True), Products(JSON, on_sqlite=True, has_documents=True))
GROWING = (Products(ADDING_ON_SQLITE, on_sqlite=True, grows=True), Products(ADDING, grows=True))


class Updating(Peer):
    """A server of ``benchmarks.peers``, with the diptych of a tree."""

    def __init__(self, name: str, tree: Tree, variables: dict[str, str]) -> None:
        super().__init__(name)
        self.tree = tree
        self.variables = variables
        self.added = 0

    def run_as(self) -> dict[str, Any]:
        """With the tree's modules."""
        return {"env": self.tree.environment(**self.variables)}


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """The peers, for products without and with a column of JSONB."""
    named = {BARE: "update_asgi", OURS: "update_diptych", FASTAPI: "update_fastapi"}
    peers = {who: (name, THIS) for who, name in named.items()}
    async for case in _cases(quick, ON_POSTGRESQL, peers, rounds=5):
        yield case


async def against(quick: bool, trees: Sequence[Tree]) -> AsyncGenerator[Case, None]:
    """The same commands in the trees that are compared, on both databases."""
    named = {tree.name: ("update_diptych", tree) for tree in trees}
    async for case in _cases(quick, (*ON_POSTGRESQL, *ON_SQLITE, *GROWING), named, rounds=15):
        yield case


async def _cases(
    quick: bool, tables: Sequence[Products], named: dict[str, tuple[str, Tree]], rounds: int
) -> AsyncGenerator[Case, None]:
    rounds, seconds = (1, 0.5) if quick else (rounds, 2.0)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgresql = stack.enter_context(stored(PostgresServer(durable=True)))
        for number, products in enumerate(tables):
            with contextlib.ExitStack() as servers:
                started: dict[str, Updating] = {}
                for who, (module, tree) in named.items():
                    if products.on_sqlite:
                        url = f"sqlite:///{folder / f'{tree.name} {number}'}.db"
                        _fill_sqlite(url, products)
                    else:
                        url = postgresql.url_of(postgresql.create_database())
                        await _fill_postgresql(url, tree, products)
                    variables = {"DATABASE_URL": url} | ({"DOCUMENTS": "1"} if products.has_documents else {})
                    started[who] = server = Updating(module, tree, variables)
                    servers.enter_context(running(server, path="/products/x"))
                for clients in CLIENTS:
                    load = _adding if products.grows else _changing
                    candidates = {who: load(one, clients, seconds) for who, one in started.items()}
                    yield Case(products.title.format(clients), rounds, candidates, warm_up=not quick)


async def _fill_postgresql(url: str, tree: Tree, products: Products) -> None:
    if tree is THIS:  # the peers' log is this tree's; another tree makes its own
        async with ORMService(ConfigService(environ={}, database_url=url)):
            pass
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_table(products, "serial", "jsonb"))
        names, rows = _rows(products)
        values = ", ".join(f"${number + 1}" for number in range(len(names)))
        await connection.executemany(f"INSERT INTO products ({', '.join(names)}) VALUES ({values})", rows)
    finally:
        await connection.close()


def _fill_sqlite(url: str, products: Products) -> None:
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(_table(products, "integer", "json"))
        names, rows = _rows(products)
        values = ", ".join("?" for _ in names)
        connection.executemany(f"INSERT INTO products ({', '.join(names)}) VALUES ({values})", rows)


def _table(products: Products, key: str, document: str) -> str:
    more = f", attributes {document} NOT NULL" if products.has_documents else ""
    return (
        f"CREATE TABLE products (id {key} PRIMARY KEY, name varchar(100) NOT NULL UNIQUE,"
        f" maker varchar(100) NOT NULL, stock integer NOT NULL{more})"
    )


def _rows(products: Products) -> tuple[list[str], Iterator[list[Any]]]:
    names, more = ["name", "maker", "stock"], list[Any]()
    if products.has_documents:
        names, more = [*names, "attributes"], [json.dumps(ATTRIBUTES)]
    return names, ([name_of(number), f"maker {number % 97}", 1, *more] for number in range(PRODUCTS))


def _changing(server: Updating, clients: int, seconds: float) -> Candidate:
    return loaded_and_counted(Job(server.port, clients, seconds, _changes()), server.pid)


def _adding(server: Updating, clients: int, seconds: float) -> Candidate:
    async def measure() -> Sample:
        new = Numbered(_addition(), server.added)
        sample, sent = await drive_and_count(Job(server.port, clients, seconds, new), server.pid)
        server.added += sent + clients  # each client may have taken one more number
        return sample

    return measure


def _changes() -> Repeated:
    bodies = {number: f'{{"stock":{number}}}' for number in range(PRODUCTS)}
    return Repeated(
        [
            Exchange(_request(f"PUT /products/{name_of(n)}", body, len(body)), f'"stock":{n}'.encode())
            for n, body in bodies.items()
        ]
    )


def _addition() -> Exchange:
    name = '"name":"added-%09d"'
    body = f'{{{name},"maker":"maker 7","stock":12}}'
    return Exchange(_request("POST /products", body, len(body % 0)), name.encode())


def _request(asked: str, body: str, length: int) -> bytes:
    lines = (
        f"{asked} HTTP/1.1",
        "host: localhost",
        "accept: application/json",
        "content-type: application/json",
        f"content-length: {length}",
        "",
        body,
    )
    return "\r\n".join(lines).encode()
