"""Commands over HTTP that change one row of PostgreSQL: diptych beside raw ASGI and FastAPI, both with asyncpg.

A part of ``benchmarks.writes``, which says what is measured.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import asyncpg
import psutil

from benchmarks.claims import Claim
from benchmarks.driver import drive, sample_of
from benchmarks.http_job import Exchange, Job, Repeated
from benchmarks.peers.update import ATTRIBUTES, PRODUCTS, name_of
from benchmarks.runner import Candidate, Case, Sample
from benchmarks.servers import Peer, running, stored
from benchmarks.trees import THIS, Tree
from diptych import ConfigService, ORMService
from tests.servers import PostgresServer

OURS = "diptych"
BARE = "ASGI, asyncpg, no log"
FASTAPI = "FastAPI, asyncpg, the same log"
RATE, CPU = "requests/s", "the server's CPU, µs a request"
PLAIN = "Changing a row, PostgreSQL, {} at once"
JSONB = "Changing a row with a column of JSONB, PostgreSQL, {} at once"
CLIENTS = (1, 32)

CLAIMS = (
    Claim(PLAIN.format(32), RATE, OURS, BARE, at_least=0.35),
    *(Claim(case.format(32), RATE, OURS, FASTAPI, at_least=1) for case in (PLAIN, JSONB)),
)


class Updating(Peer):
    """A server of ``benchmarks.peers``, with the diptych of a tree."""

    def __init__(self, name: str, tree: Tree, variables: dict[str, str]) -> None:
        super().__init__(name)
        self.tree = tree
        self.variables = variables

    def run_as(self) -> dict[str, Any]:
        """With the tree's modules."""
        return {"env": self.tree.environment(**self.variables)}


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """The peers, for products without and with a column of JSONB."""
    named = {BARE: "update_asgi", OURS: "update_diptych", FASTAPI: "update_fastapi"}
    async for case in _cases(quick, {who: (name, THIS) for who, name in named.items()}, rounds=5):
        yield case


async def against(quick: bool, trees: Sequence[Tree]) -> AsyncGenerator[Case, None]:
    """The same command in the trees that are compared."""
    named = {tree.name: ("update_diptych", tree) for tree in trees}
    async for case in _cases(quick, named, rounds=15):
        yield case


async def _cases(quick: bool, named: dict[str, tuple[str, Tree]], rounds: int) -> AsyncGenerator[Case, None]:
    rounds, seconds = (1, 0.5) if quick else (rounds, 2.0)
    with contextlib.ExitStack() as stack:
        postgresql = stack.enter_context(stored(PostgresServer(durable=True)))
        for title, variables in ((PLAIN, {}), (JSONB, {"DOCUMENTS": "1"})):
            with contextlib.ExitStack() as servers:
                started: dict[str, Updating] = {}
                for who, (module, tree) in named.items():
                    url = postgresql.url_of(postgresql.create_database())
                    await _fill(url, tree, has_documents=bool(variables))
                    started[who] = server = Updating(module, tree, {"DATABASE_URL": url, **variables})
                    servers.enter_context(running(server, path="/products/x"))
                for clients in CLIENTS:
                    candidates = {who: _changing(one, clients, seconds) for who, one in started.items()}
                    yield Case(title.format(clients), rounds, candidates, warm_up=not quick)


async def _fill(url: str, tree: Tree, *, has_documents: bool) -> None:
    if tree is THIS:  # the peers' log is this tree's; another tree makes its own
        async with ORMService(ConfigService(environ={}, database_url=url)):
            pass
    connection = await asyncpg.connect(url)
    try:
        more = ", attributes jsonb NOT NULL" if has_documents else ""
        await connection.execute(
            "CREATE TABLE products (id serial PRIMARY KEY, name varchar(100) NOT NULL UNIQUE,"
            f" maker varchar(100) NOT NULL, stock integer NOT NULL{more})"
        )
        names, values = "name, maker, stock", "$1, $2, $3"
        extra = [json.dumps(ATTRIBUTES)] if has_documents else []
        names, values = (f"{names}, attributes", f"{values}, $4") if has_documents else (names, values)
        rows = [[name_of(n), f"maker {n % 97}", 1, *extra] for n in range(PRODUCTS)]
        await connection.executemany(f"INSERT INTO products ({names}) VALUES ({values})", rows)
    finally:
        await connection.close()


def _changing(server: Updating, clients: int, seconds: float) -> Candidate:
    async def measure() -> Sample:
        before = _cpu_s(server)
        outcome = await drive(Job(server.port, clients, seconds, _changes()))
        # The load's warm-up is in the time and in the number of requests.
        return sample_of(outcome) | {CPU: 1e6 * (_cpu_s(server) - before) / max(1, outcome.sent)}

    return measure


def _cpu_s(server: Updating) -> float:
    process = psutil.Process(server.pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def _changes() -> Repeated:
    exchanges = []
    for number in range(PRODUCTS):
        body = f'{{"stock":{number}}}'
        lines = (
            f"PUT /products/{name_of(number)} HTTP/1.1",
            "host: localhost",
            "accept: application/json",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "",
            body,
        )
        exchanges.append(Exchange("\r\n".join(lines).encode(), f'"stock":{number}'.encode()))
    return Repeated(exchanges)
