"""The connections of clients of a process, kept below their limit.

The server accepts no more connections than its limit, and leaves all others waiting: then as many silent clients stop
a process. So near the limit those connections are ended whose clients have been silent for longest, silent ones, idle
ones, half requests, and only these: never one with a request under way.
"""

from __future__ import annotations

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
from collections.abc import Container, Iterator, Sized
from pathlib import Path
from typing import NamedTuple, TypeAlias

from diptych.aio.bursts import Burst
from diptych.http.answers import answer_problem
from diptych.http.asgi import DATA_HEADERS
from diptych.http.errors import Problem

Client: TypeAlias = tuple[str, str]
"""Address and port of a client, as the server has them in the scope of a request."""

_FILES = Path("/proc/self/fd")
_PAUSE_S = 0.25
_SHORT_PAUSE_S = 0.02
_SHARE = 4  # pause of the watch, at least, for each second of a core that a look takes, in seconds
_LONGEST_BLIND_S = 5.0
_YOUNG_S = 0.05  # a client that is silent for less may be sending a request
_UNREAD_S = 0.5  # bytes that are not read for longer are of a client that does not read its answers
_FULL_S = 0.3
_REFUSED_AT_ONCE = 500
_LAST_RECEIVED = struct.Struct(
    "52xI"
)  # of the kernel's struct tcp_info: tcpi_last_data_recv, in milliseconds

_UNREAD = struct.Struct("i")

_log = logging.getLogger("diptych.server")


class _Connection(NamedTuple):
    """A connection: since when its client is silent, its number among the open files, and its client.

    Without a client it is over, and the server is about to close it.
    """

    silent_s: float
    file: int
    peer: Client | None


class Connections:
    """The connections to ``port`` of this process, ``most`` of them. ``under_way`` has the clients whose request is
    being answered.

    The socket of a connection is the server's. It is reached by its number among the open files, and made sure of by
    its addresses, on a duplicate: under the number there may be another file by then.
    """

    def __init__(self, port: int, most: int, under_way: Container[Client]) -> None:
        self._port = port
        self._most = most
        self._near = most * 15 // 16
        self._low = most * 3 // 4
        self._under_way = under_way
        self._others = 0  # open files that are no connections, when last looked at
        self._looked = 0.0
        self._listener: int | None = None
        self._full_since = math.inf
        self._ended, self._refused = Burst(), Burst()

    def watch(self) -> None:
        """Starts a thread that looks after the connections as long as the process lives."""
        threading.Thread(target=self._watch, daemon=True, name="diptych connections").start()

    def _watch(self) -> None:
        while True:
            # Not by the clock: where others have the cores, a look takes long and costs little.
            began = time.thread_time()
            pause_s = _PAUSE_S
            try:
                pause_s = self.look()
            except Exception:
                _log.exception(
                    "the number of connections could not be kept below its limit; it is tried again"
                )
            self._tell()
            time.sleep(max(pause_s, _SHARE * (time.thread_time() - began)))

    def look(self) -> float:
        """Ends connections if they are too many, and returns when to look again, in seconds."""
        files = len(os.listdir(_FILES))  # noqa: PTH208 - of numbers, not of paths
        is_blind = time.monotonic() - self._looked > _LONGEST_BLIND_S
        if files - (0 if is_blind else self._others) < self._near:
            return _PAUSE_S
        found = list(self._connections())
        number = len(found)
        self._looked, self._others = time.monotonic(), files - number
        if number < self._near:
            return _PAUSE_S
        waiting = [c for c in found if c.peer is not None and not self._has_request(c)]
        silent = sorted((c for c in waiting if c.silent_s > _YOUNG_S), reverse=True)
        # At the limit itself others wait to be accepted, nobody knows how many.
        ended = sum(map(self._end, silent[: number - (self._low if number < self._most else 0)]))
        refused = self._refuse_newcomers() if self._is_full(number, waiting) else 0
        self._ended.note(ended)
        self._refused.note(refused)
        return _PAUSE_S if self._full_since == math.inf and not waiting else _SHORT_PAUSE_S

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

    def _connections(self) -> Iterator[_Connection]:
        for number in os.listdir(_FILES):  # noqa: PTH208
            with contextlib.suppress(OSError), _duplicate(int(number)) as found:
                # When a connection is over, it has no port any more.
                if found is None or found.getsockname()[1:2] not in ((self._port,), (0,)):
                    continue
                if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    self._listener = int(number)
                    continue
                yield _Connection(_silent_s_of(found), int(number), _peer_of(found))

    def _has_request(self, connection: _Connection) -> bool:
        return connection.peer in self._under_way

    def _end(self, connection: _Connection) -> bool:
        with contextlib.suppress(OSError), _duplicate(connection.file) as found:
            if found and _peer_of(found) == connection.peer and not self._has_request(connection):
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


@contextlib.contextmanager
def _duplicate(file: int | None) -> Iterator[socket.socket | None]:
    """Opens the socket that is open under this number; None if there is none, or another kind of file."""
    if file is None or not stat.S_ISSOCK(os.fstat(file).st_mode):
        yield None
        return
    copy = os.dup(file)
    try:
        found = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    with found:
        yield found


def _silent_s_of(connection: socket.socket) -> float:
    """Returns the seconds since the client sent something, 0 if the server has not read that yet.

    A request that waited to be accepted, or for a core, may be old when the server comes to it. But not of any age:
    of a client that does not read its answers the server reads no more either.
    """
    unread = bytearray(_UNREAD.size)
    fcntl.ioctl(connection, termios.FIONREAD, unread)
    told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_RECEIVED.size)
    silent_s = float(_LAST_RECEIVED.unpack(told)[0]) / 1000
    return 0.0 if _UNREAD.unpack(unread)[0] and silent_s < _UNREAD_S else silent_s


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
