"""Connections that are opened and held: silent, with half a head, with half a body; and what others get meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import resource
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tests.servers import HOST

KINDS: Mapping[str, bytes] = {
    "silent": b"",
    "head": b"GET /books HTTP/1.1\r\nHost: localh",
    "body": (
        b"POST /books/action/add HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b'Content-Length: 100\r\n\r\n{"title": '
    ),
}
"""What each kind of connection sends before it falls silent."""


@dataclass
class Ending:
    """How the connections of a kind ended: how many, after how many seconds at most, and with which status lines."""

    number: int = 0
    longest_s: float = 0.0
    answers: Counter[bytes] = field(default_factory=Counter)


@dataclass
class Flood:
    """What a flood found. ``health_s`` are the times of `GET /health` meanwhile, ``failures`` what it said else."""

    endings: dict[str, Ending]
    left: int
    health_s: list[float]
    failures: list[str]


def flood(port: int, kinds: Iterable[str], number: int, wait_s: float) -> Flood:
    """Opens ``number`` connections of each of ``kinds``, and waits for their end, ``wait_s`` seconds at most."""
    _raise_limit_of_files(number * 3 + 500)
    endings = {kind: Ending() for kind in kinds}
    with _Health(port) as health, contextlib.ExitStack() as stack:
        held: dict[int, _Held] = {}
        poll = select.poll()
        for kind in endings:
            for _ in range(number):
                connection = stack.enter_context(socket.create_connection((HOST, port), timeout=20))
                connection.sendall(KINDS[kind])
                held[connection.fileno()] = _Held(kind, connection, time.monotonic())
                poll.register(connection, select.POLLIN)
        deadline = time.monotonic() + wait_s
        while held and time.monotonic() < deadline:
            for file, _ in poll.poll(100):
                if held[file].read(endings):
                    poll.unregister(file)
                    held.pop(file).connection.close()
        return Flood(endings, len(held), health.times, health.failures)


@dataclass
class _Held:
    kind: str
    connection: socket.socket
    since: float

    def read(self, endings: Mapping[str, Ending]) -> bool:
        """Notes what came, and returns whether the connection is at its end."""
        try:
            received = self.connection.recv(65_536)
        except OSError:  # reset
            received = b""
        ending = endings[self.kind]
        if received:
            ending.answers[received.partition(b"\r\n")[0]] += 1
            return False
        ending.number += 1
        ending.longest_s = max(ending.longest_s, time.monotonic() - self.since)
        return True


class _Health:
    """Asks for `/health` again and again, in a thread, each time by a new connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.times: list[float] = []
        self.failures: list[str] = []

    def __enter__(self) -> _Health:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._is_over.wait(0.02):
            began = time.monotonic()
            with contextlib.closing(http.client.HTTPConnection(HOST, self._port, timeout=30)) as connection:
                try:
                    connection.request("GET", "/health")
                    answer = connection.getresponse()
                    if answer.status != 200:
                        self.failures.append(f"{answer.status} {answer.read().decode()}")
                except (OSError, http.client.HTTPException) as error:
                    self.failures.append(repr(error))
            self.times.append(time.monotonic() - began)


def _raise_limit_of_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def rounds() -> Iterator[tuple[str, ...]]:
    """Yields the kinds one after the other, and then all of them together."""
    yield from ((kind,) for kind in KINDS)
    yield tuple(KINDS)
