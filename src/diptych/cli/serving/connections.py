"""The connections of clients of a process, kept below their limit.

The server accepts no more connections than its limit, and leaves all others waiting: then as many silent clients stop
a process. So near the limit those connections are ended whose clients have been silent for longest, silent ones, idle
ones, half requests, and only these: never one with a request under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Mapping, Sized
from typing import NamedTuple

from diptych.aio.bursts import Burst
from diptych.cli.serving.sockets import YOUNG_S, Client, Connection, OpenFiles, duplicate, end, sockets_of
from diptych.cli.serving.under_way import IN_APPLICATION, UnderWay
from diptych.http.answers import answer_problem
from diptych.http.asgi import DATA_HEADERS
from diptych.http.errors import Problem

_TURNS = 3  # of the event loop, which it takes at most from a request that is handed to it to the application's call
_HANDED_ON_S = 0.003  # time for the server to hand on to the event loop what it has read
_LONGEST_WAIT_S = 2.0
_TRIES = 4  # until most clients of a full process are known to have no request
_FULL_S = 0.3
_REFUSED_AT_ONCE = 500
_log = logging.getLogger("diptych.server")


class Pace(NamedTuple):
    """When to look again: after a pause in seconds, and at least ``share`` times what the look took of a core."""

    pause_s: float
    share: float


_SELDOM = Pace(0.1, 4)  # far from the limit
_OFTEN = Pace(0.02, 4)  # near it, with little to end
# Most connections of a full process were ended. Others that waited take their places, thousands in a flood, and a
# client with a request waits behind them.
_AT_ONCE = Pace(0.002, 0.5)
_QUIET_S = 10.0  # after a line about a look that failed: what makes one fail, makes the next
_KNOWN_FOR = 50  # seconds for which a count of other files holds, for each second of a core that it took
_KNOWN_S = 1.0  # and at least: a count has the event loop yield its core a thousand times


class Connections:
    """The connections to ``port`` of this process, ``most`` of them."""

    def __init__(self, port: int, most: int, under_way: UnderWay) -> None:
        self._port = port
        self._most = most
        self._near = most * 15 // 16
        self._low = most * 3 // 4
        self._under_way = under_way
        self._files = OpenFiles()
        self._others = 0  # open files that were no connections at the last count
        self._known_until = 0.0
        self._full_since = math.inf
        self._ended, self._refused = Burst(), Burst()

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts a thread that looks after the connections as long as the process lives, which serves in ``loop``."""
        threading.Thread(target=self._watch, args=(loop,), daemon=True, name="diptych connections").start()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        quiet_until = 0.0
        while True:
            # Not by the clock: where others have the cores, a look takes long and costs little.
            began = time.thread_time()
            pace = _SELDOM
            try:
                pace = self.look(loop)
            except Exception:
                if time.monotonic() >= quiet_until:
                    quiet_until = time.monotonic() + _QUIET_S
                    _log.exception(
                        "the number of connections could not be kept below its limit; it is tried again"
                    )
            self._tell()
            time.sleep(max(pace.pause_s, pace.share * (time.thread_time() - began)))

    def look(self, loop: asyncio.AbstractEventLoop) -> Pace:
        """Ends connections if they are too many, and returns when to look again."""
        others = self._others if time.monotonic() < self._known_until else 0
        if self._files.number() - others < self._near:
            return _SELDOM
        # Of a request that ends during the look, the server may not have begun to send the answer at its end.
        before = self._under_way.by_client()
        found, listener = self._count()
        number = len(found)
        if number < self._near:
            return _SELDOM
        # At the limit itself others wait to be accepted, nobody knows how many.
        is_full = number >= self._most
        idle = [c for c in found if c.peer and before.get(c.peer) != IN_APPLICATION]
        for _ in range(_TRIES if is_full else 1):
            until = self._wait_for(loop)
            requests = self._under_way.by_client()
            waiting = [c for c in idle if not _has_request(c, requests, until)]
            if not until or len(waiting) > number // 2:
                break
        silent = sorted((c for c in waiting if c.silent_s > YOUNG_S), reverse=True)
        too_many = silent[: number - (0 if is_full else self._low)]
        requests = self._under_way.by_client()
        ended = sum(end(c) for c in too_many if not _has_request(c, requests, until))
        refused = _refuse_newcomers(listener) if self._is_full(number, waiting) else 0
        self._ended.note(ended)
        self._refused.note(refused)
        if is_full and ended > number // 2:
            return _AT_ONCE
        return _OFTEN if waiting or self._full_since < math.inf else _SELDOM

    def _count(self) -> tuple[list[Connection], int | None]:
        """Returns the connections and the number of the listening socket, and notes how many files are others."""
        began = time.thread_time()
        found, listener, self._others = sockets_of(self._port)
        self._known_until = time.monotonic() + max(_KNOWN_S, _KNOWN_FOR * (time.thread_time() - began))
        return found, listener

    def _wait_for(self, loop: asyncio.AbstractEventLoop) -> float:
        """Waits for the event loop, which may have much else to do, and returns how far it is.

        The application has been called with everything that the server had read by then, by the monotonic clock; 0 if
        the loop does not say so in time.
        """
        has_come = threading.Event()

        def answer(turns: int) -> None:
            if turns:
                loop.call_soon(answer, turns - 1)
            else:
                has_come.set()

        read_until = time.monotonic()
        time.sleep(_HANDED_ON_S)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(answer, _TURNS)
        return read_until if has_come.wait(_LONGEST_WAIT_S) else 0.0

    def _is_full(self, number: int, waiting: Sized) -> bool:
        """Returns whether nothing can be done for newcomers: all connections have had requests for a while.

        The application may not have come to their bodies yet.
        """
        now = time.monotonic()
        if waiting or number < self._most:
            self._full_since = math.inf
        else:
            self._full_since = min(self._full_since, now)
        return now - self._full_since > _FULL_S

    def _tell(self) -> None:
        """Writes one line for each burst."""
        for burst, line in (
            (
                self._ended,
                "%d connections near the limit of %d were ended within %.1f s: their clients were silent",
            ),
            (
                self._refused,
                "%d connections beyond the limit of %d were refused within %.1f s: all had requests",
            ),
        ):
            if burst.left_s is not None and burst.left_s <= 0:
                number, seconds = burst.end()
                _log.warning(line + " (MAX_CONNECTIONS)", number, self._most, seconds)


def _has_request(connection: Connection, requests: Mapping[Client, float], until: float) -> bool:
    """Returns whether the application has a request of the client, or may get one: by ``until`` it has come.

    How long a client is silent does not tell: its request may have waited to be accepted, or for the event loop.
    """
    since = requests.get(connection.peer) if connection.peer else None
    if since is None:
        return bool(connection.received) and connection.seen > until
    return since > until


def _refuse_newcomers(file: int | None) -> int:
    """Answers clients that wait to be accepted, since nothing else can be done for them, and returns how many."""
    refused = 0
    with contextlib.suppress(OSError), duplicate(file) as listener:
        while listener is not None and refused < _REFUSED_AT_ONCE:
            with listener.accept()[0] as newcomer:
                refused += 1
                newcomer.setblocking(False)
                with contextlib.suppress(OSError):
                    newcomer.recv(65_536)  # unread, it would make the answer get lost
                with contextlib.suppress(OSError):
                    newcomer.send(_TOO_MANY)
    return refused


def _too_many() -> bytes:
    problem = Problem(
        type="urn:diptych:problem:unavailable",
        title="Unavailable",
        status=503,
        detail="the server has as many connections as it can have; try again",
        headers={"Retry-After": "1", "Connection": "close"},
    )
    answer = answer_problem(problem, DATA_HEADERS)
    head = [b"HTTP/1.1 503 Service Unavailable", *(b": ".join(pair) for pair in answer.headers)]
    return b"\r\n".join([*head, b"", answer.body])


_TOO_MANY = _too_many()
