"""Hostile requests sent by several threads, each by a connection of its own, and the faults of their answers."""

from __future__ import annotations

import contextlib
import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.acceptance.hostile.requests import Hostile, fault_of, make
from tests.servers import HOST

_THREADS = 8
_TIMEOUT_S = 30.0


def send_all(port: int, number: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Sends ``number`` requests. Returns the status lines, and each fault with the beginning of its request."""
    seeds = [seed * 1_000_003 + at for at in range(number)]
    with ThreadPoolExecutor(_THREADS) as threads:
        results = list(threads.map(lambda each: _ask(port, each), seeds))
    statuses = Counter(line for line, _ in results)
    return statuses, [fault for _, fault in results if fault]


def _ask(port: int, seed: int) -> tuple[str, str | None]:
    hostile = make(random.Random(seed))
    try:
        received = _exchanged(port, hostile)
    except TimeoutError:
        return "no answer", f"no answer in time to {hostile.sent[:200]!r} (seed {seed})"
    fault = fault_of(hostile, received)
    line = received.partition(b"\r\n")[0].decode("latin-1") or "closed"
    return line, fault and f"{fault}: {hostile.sent[:300]!r} got {received[:300]!r} (seed {seed})"


def _exchanged(port: int, hostile: Hostile) -> bytes:
    """Returns all that is received until the server closes the connection, or has nothing more to say."""
    with socket.create_connection((HOST, port), timeout=_TIMEOUT_S) as connection:
        received = b""
        # A server may answer and close before it has read everything.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(hostile.sent)
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65_536):
                received += part
        return received
