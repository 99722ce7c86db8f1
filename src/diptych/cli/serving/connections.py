"""The connections of clients of a process, kept below their limit.

The server accepts no more connections than its limit, and leaves all others waiting: then as many silent clients stop
a process. So near the limit those connections are ended whose clients have been silent for longest, silent ones, idle
ones, half requests, and only these: never one with a request under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import math
import os
import socket
import stat
import struct
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import NamedTuple, TypeAlias

from diptych.aio.bursts import Burst
from diptych.http.answers import answer_problem
from diptych.http.asgi import DATA_HEADERS
from diptych.http.errors import Problem

Client: TypeAlias = tuple[str, str]
"""Address and port of a client, as the server has them in the scope of a request."""

IN_APPLICATION = math.inf
"""A request that does not wait for its body, in place of the time since when it does."""

_FILES = Path("/proc/self/fd")
_YOUNG_S = 0.05  # a client that is silent for less may be sending a request
_TURNS = 3  # of the event loop, which it takes at most from a request that is handed to it to the application's call
_HANDED_ON_S = 0.003  # time for the server to hand on to the event loop what it has read
_LONGEST_WAIT_S = 2.0
_TRIES = 4  # until most clients of a full process are known to have no request
_STALLED_S = 0.5  # bytes that neither side takes for longer are of a client that does not read its answers
_FULL_S = 0.3
_REFUSED_AT_ONCE = 500
# Of the kernel's struct tcp_info: tcpi_unacked, tcpi_last_data_sent and tcpi_last_data_recv, both in milliseconds,
# tcpi_bytes_received, and tcpi_notsent_bytes.
_TCP_INFO = struct.Struct("24xI16xI4xI72xQ8xI")
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


class UnderWay(NamedTuple):
    """The requests in the application, each under the `id` of its scope: an object for each would cost more.

    ``clients`` has the client of each, ``waits_since`` since when the application waits for a body, by the monotonic
    clock. A client may have several: the application may have work to do after an answer, and the next request of the
    connection comes meanwhile; with HTTP/2 they come side by side. The event loop changes both while the watch reads.
    """

    clients: dict[int, Client]
    waits_since: dict[int, float]

    def by_client(self) -> dict[Client, float]:
        """Returns since when each client's request waits for its body; of several, the one that came last to it."""
        found: dict[Client, float] = {}
        for request, client in self.clients.copy().items():
            since = self.waits_since.get(request, IN_APPLICATION)
            found[client] = max(since, found.get(client, 0.0))
        return found


class _Connection(NamedTuple):
    """A connection: for how long it has been silent, its number among the open files, and its client.

    It is silent while nothing arrives, and nothing of an answer leaves. Without a client it is over, and the server
    is about to close it. ``received`` are the bytes that had come in all when it was ``seen``, by the monotonic
    clock. ``is_unread`` says that the server had not read the last of them: of a request that has just been accepted,
    or of a client that does not read its answers, of which the server reads no more.
    """

    silent_s: float
    file: int
    peer: Client | None
    received: int
    is_unread: bool
    seen: float


class Connections:
    """The connections to ``port`` of this process, ``most`` of them.

    The socket of a connection is the server's. It is reached by its number among the open files, and made sure of by
    its addresses, on a duplicate: under the number there may be another file by then.
    """

    def __init__(self, port: int, most: int, under_way: UnderWay) -> None:
        self._port = port
        self._most = most
        self._near = most * 15 // 16
        self._low = most * 3 // 4
        self._under_way = under_way
        self._has_size = _size_is_number()
        self._others = 0  # open files that were no connections at the last count
        self._known_until = 0.0
        self._listener: int | None = None
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
        if self._open_files() - others < self._near:
            return _SELDOM
        # Of a request that ends during the look, the server may not have begun to send the answer at its end.
        before = self._under_way.by_client()
        found = self._count()
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
        silent = sorted((c for c in waiting if c.silent_s > _YOUNG_S), reverse=True)
        too_many = silent[: number - (0 if is_full else self._low)]
        requests = self._under_way.by_client()
        ended = sum(self._end(c) for c in too_many if not _has_request(c, requests, until))
        refused = self._refuse_newcomers() if self._is_full(number, waiting) else 0
        self._ended.note(ended)
        self._refused.note(refused)
        if is_full and ended > number // 2:
            return _AT_ONCE
        return _OFTEN if waiting or self._full_since < math.inf else _SELDOM

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

    def _open_files(self) -> int:
        # For each file that is listed the event loop has to yield its core: ten times a second, that takes some
        # percent of a hot read.
        return _FILES.stat().st_size if self._has_size else len(os.listdir(_FILES))  # noqa: PTH208 - numbers

    def _count(self) -> list[_Connection]:
        """Returns the connections among the open files, and notes how many files are others."""
        began = time.thread_time()
        found = []
        others = 0
        for number in map(int, os.listdir(_FILES)):  # noqa: PTH208
            # A file that is closed meanwhile is neither: counted among the others it would hide a connection.
            with contextlib.suppress(OSError), _duplicate(number) as copy:
                # When a connection is over, it has no port any more.
                if copy is None or copy.getsockname()[1:2] not in ((self._port,), (0,)):
                    others += 1
                elif copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    others += 1
                    self._listener = number
                else:
                    found.append(_seen(copy, number))
        self._others = others
        self._known_until = time.monotonic() + max(_KNOWN_S, _KNOWN_FOR * (time.thread_time() - began))
        return found

    def _end(self, connection: _Connection) -> bool:
        with contextlib.suppress(OSError), _duplicate(connection.file) as found:
            if found and _is_as_before(_seen(found, connection.file), connection):
                found.shutdown(socket.SHUT_RDWR)
                return True
        return False

    def _refuse_newcomers(self) -> int:
        """Answers clients that wait to be accepted, since nothing else can be done for them, and returns how many."""
        refused = 0
        with contextlib.suppress(OSError), _duplicate(self._listener) as listener:
            while listener is not None and refused < _REFUSED_AT_ONCE:
                with listener.accept()[0] as newcomer:
                    refused += 1
                    newcomer.setblocking(False)
                    with contextlib.suppress(OSError):
                        newcomer.recv(65_536)  # unread, it would make the answer get lost
                    with contextlib.suppress(OSError):
                        newcomer.send(_TOO_MANY)
        return refused

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


def _size_is_number() -> bool:
    """Returns whether the size of the directory is the number of the open files, as it is from Linux 6.2 on."""
    with contextlib.suppress(OSError):  # other systems have no such directory
        return abs(_FILES.stat().st_size - len(os.listdir(_FILES))) <= 1  # noqa: PTH208
    return False


@contextlib.contextmanager
def _duplicate(file: int | None) -> Iterator[socket.socket | None]:
    """Opens the socket that is open under this number; None if there is none, or another kind of file."""
    if file is None or not stat.S_ISSOCK(os.fstat(file).st_mode):
        yield None
        return
    # With a default time-out Python would have no call block on any of these sockets, the application's among them.
    has_timeout = socket.getdefaulttimeout() is not None
    is_blocking = has_timeout and os.get_blocking(file)
    copy = os.dup(file)
    try:
        found = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    with found:
        if has_timeout:
            found.setblocking(is_blocking)
        yield found


def _seen(connection: socket.socket, number: int) -> _Connection:
    told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    unacknowledged, sent_ms, received_ms, received, unsent = _TCP_INFO.unpack(told)
    silent_s = min(sent_ms, received_ms) / 1000
    is_unread = bool(received) and _is_unread(connection)
    # The application may have come to the end of a request long before the client has its answer.
    if (is_unread or unacknowledged or unsent) and silent_s < _STALLED_S:
        silent_s = 0.0
    return _Connection(silent_s, number, _peer_of(connection), received, is_unread, time.monotonic())


def _has_request(connection: _Connection, requests: Mapping[Client, float], until: float) -> bool:
    """Returns whether the application has a request of the client, or may get one: by ``until`` it has come.

    How long a client is silent does not tell: its request may have waited to be accepted, or for the event loop.
    """
    since = requests.get(connection.peer) if connection.peer else None
    if since is None:
        return bool(connection.received) and connection.seen > until
    return since > until


def _is_as_before(now: _Connection, before: _Connection) -> bool:
    """Returns whether it is the same connection, to which nothing has arrived, and of which nothing has been read.

    Of an answer nothing has left.
    """
    return (
        (now.peer, now.received) == (before.peer, before.received)
        and now.silent_s > _YOUNG_S
        and (now.is_unread or not before.is_unread)
    )


def _is_unread(connection: socket.socket) -> bool:
    """Returns whether something has arrived that the server has not read."""
    unread = bytearray(4)
    fcntl.ioctl(connection, termios.FIONREAD, unread)
    return any(unread)


def _peer_of(connection: socket.socket) -> Client | None:
    try:
        address, port = connection.getpeername()[:2]
    except OSError:
        return None
    return address, str(port)


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
