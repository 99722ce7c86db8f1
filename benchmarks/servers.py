"""The servers that are measured: the catalogue and its peers, each with its one core, and where their data are."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPConnection, HTTPException
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

import msgspec
import redis

from benchmarks.books import book, document, title
from benchmarks.cores import load_core, on_cores, server_core
from benchmarks.nestjs import Installed
from benchmarks.trees import THIS, Tree
from tests.acceptance.serving import CatalogueServer, environment
from tests.servers import HOST, Server

S = TypeVar("S", bound=Server)

PATIENCE_S = 180.0  # a million books take a while to be brought to Redis
_AT_ONCE = 10_000


class Peer(Server):
    """An application of ``benchmarks.peers``, in one process of Granian, as ``diptych run`` sets it up."""

    ready_line: ClassVar[str] = "Listening at"
    last_resort = signal.SIGTERM  # the parent ends its workers then, which would outlive it

    def __init__(self, name: str, app: str = "app", *, workers: int = 1, **variables: str) -> None:
        super().__init__()
        self.name = name
        self.app = app
        self.workers = workers
        self.variables = variables

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str]:
        """Granian with a few of its own defaults changed, as diptych changes them."""
        return [
            *(sys.executable, "-m", "granian", f"benchmarks.peers.{self.name}:{self.app}"),
            *("--interface", "asgi", "--no-ws", "--host", HOST, "--port", str(self.port)),
            *("--workers", str(self.workers), "--respawn-failed-workers"),
        ]

    def run_as(self) -> dict[str, Any]:
        """Its variables say where its data are."""
        return {"env": environment(**self.variables)}


class NestServer(Server):
    """NestJS as it was installed."""

    ready_line: ClassVar[str] = "Listening"

    def __init__(self, installed: Installed, redis_url: str) -> None:
        super().__init__()
        self.installed = installed
        self.redis_url = redis_url

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str]:
        """What was compiled, in node."""
        return [self.installed.node, str(self.installed.main)]

    def run_as(self) -> dict[str, Any]:
        """Its variables say that it is in production, and where its data are."""
        variables = {
            "NODE_ENV": "production",
            "HOST": HOST,
            "PORT": str(self.port),
            "REDIS_URL": self.redis_url,
        }
        return {"env": environment(**variables)}


@contextmanager
def running(server: Server, cores: set[int] | None = None, *, path: str | None = None) -> Iterator[int]:
    """Starts a server on the core of servers (or ``cores``), waits until it answers, and yields its port."""
    with on_cores(server_core() if cores is None else cores):
        server.start()
    try:
        _await_answer(server, path or _path_of(0))
        yield server.port
    finally:
        server.close()


@contextmanager
def stored(server: S) -> Iterator[S]:
    """Starts a Valkey or a PostgreSQL on the load's core. What is started while it runs is not kept there with it."""
    try:
        with on_cores(load_core()):
            server.start()
        yield server
    finally:
        server.close()


class BenchedCatalogue(CatalogueServer):
    """The catalogue of a tree as a user serves it: ``diptych run demo_app.app:app`` at diptych's default settings."""

    def __init__(self, database: str, redis_url: str, *, workers: int, tree: Tree) -> None:
        super().__init__(database, redis_url, workers=workers)
        self.tree = tree

    def command(self) -> list[str]:
        """By the tree's own ``diptych``."""
        arguments = ("run", "demo_app.app:app", "--port", str(self.port), "--redis", self.redis)
        return [*self.tree.diptych(), *arguments, "--workers", str(self.workers)]

    def run_as(self) -> dict[str, Any]:
        """With the tree's modules."""
        return {"env": self.tree.environment(DIPTYCH_DATABASE_URL=self.database)}


def catalogue(
    database: str, redis_url: str = "none", *, workers: int = 1, tree: Tree = THIS
) -> CatalogueServer:
    """The catalogue, to be started; its database is seeded."""
    return BenchedCatalogue(database, redis_url, workers=workers, tree=tree)


@contextmanager
def serving(server: CatalogueServer, cores: set[int] | None = None) -> Iterator[int]:
    """Starts the catalogue and waits until it answers from where it is to: from Redis, or from SQL without one."""
    with running(server, cores) as port:
        for _ in range(10 * server.workers):  # a new connection goes to any of the workers
            _await_answer(server, _path_of(0), server.cache_status)
        _, headers, _ = get(port, _path_of(0))
        assert headers["etag"], "an answer of diptych is to be told from others without its body"
        yield port


def fill_redis(url: str, count: int, author_size: int = 0) -> None:
    """The books as the peers keep them: a key for each document, and the titles in their order."""
    with redis.Redis.from_url(url) as client:
        for first in range(0, count, _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, count))
            client.mset({f"book:{title(n)}": document(n, author_size) for n in numbers})
            client.zadd("books", {title(n): 0 for n in numbers})


def check_answers(port: int, author_size: int = 0) -> None:
    """Candidates do the same work: the row of a book has to be the same, whatever else comes with it."""
    for number in (0, 1, 7):
        _, _, body = get(port, _path_of(number))
        row = msgspec.to_builtins({"id": number + 1, **book(number, author_size)})
        found = msgspec.json.decode(body)
        assert {name: found.get(name) for name in row} == row, f"{found} is not {row}"


def _await_answer(server: Server, path: str, wanted: str | None = None) -> None:
    """Returns when it answers with 200, and with this ``Cache-Status`` if one is wanted."""
    deadline, found = time.monotonic() + PATIENCE_S, "nothing"
    while time.monotonic() < deadline and server.running:
        try:
            status, headers, _ = get(server.port, path)
        except (OSError, HTTPException) as error:
            found = repr(error)
        else:
            found = f"{status} {headers['cache-status']}"
            if status == 200 and wanted in (None, headers["cache-status"]):
                return
        time.sleep(0.02)
    raise AssertionError(f"{' '.join(server.command())} answers with {found}:\n{server.log()[-2000:]}")


def get(port: int, path: str) -> tuple[int, Message, bytes]:
    """GET by a connection of its own, which may lead to any worker: status, headers and body of the answer."""
    with contextlib.closing(HTTPConnection(HOST, port, timeout=PATIENCE_S)) as connection:
        connection.request("GET", path, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def _path_of(number: int) -> str:
    return f"/books/{quote(title(number), safe='')}"
