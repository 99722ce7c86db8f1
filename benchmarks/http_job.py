"""What the load is asked to do, and what it answers: the messages between it and who starts it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import msgspec


class Exchange(msgspec.Struct, frozen=True, array_like=True):
    """A request as it is sent, and what the body of its answer has to hold."""

    request: bytes
    body: bytes


class Numbered(msgspec.Struct, frozen=True, tag=True):
    """Requests that are each sent once. Every ``%d`` becomes a number, from ``first`` on; the body has one."""

    exchange: Exchange
    first: int

    def exchanges(self, _seed: int) -> Iterator[Exchange]:
        """One for each number, for ever."""
        asked = self.exchange.request.count(b"%")
        for number in itertools.count(self.first):
            yield Exchange(self.exchange.request % ((number,) * asked), self.exchange.body % number)


class Repeated(msgspec.Struct, frozen=True, tag=True):
    """Requests that are sent again and again, in the random order of a seed."""

    choices: list[Exchange]

    def exchanges(self, seed: int) -> Iterator[Exchange]:
        """All of them, in the same order each time."""
        shuffled = list(self.choices)
        random.Random(seed).shuffle(shuffled)
        return itertools.cycle(shuffled)


class Job(msgspec.Struct, frozen=True):
    """What is asked of which server, and how. Without a ``rate`` the loop is closed."""

    port: int
    connections: int
    seconds: float
    exchanges: Numbered | Repeated
    status: bytes = b"200"
    head: bytes = b""
    """What the head of every answer has to hold."""
    rate: float | None = None
    warm_up_s: float = 0.3
    seed: int = 7


class Outcome(msgspec.Struct, frozen=True):
    """What came of it. Latencies are in ms; ``late_ms`` is how late the load itself was with 99 % of its requests."""

    answers: int
    seconds: float
    cpu: float
    median_ms: float
    p99_ms: float
    longest_ms: float
    late_ms: float
    sent: int
    error_count: int
    errors: list[str]
