"""The server's sockets, reached by the numbers of the open files, and what the kernel tells of them.

A socket is looked at on a duplicate, and made sure of by its addresses: under its number there may be another file by
then.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

Client: TypeAlias = tuple[str, str]
"""Address and port of a client, as the server has them in the scope of a request."""

YOUNG_S = 0.05
"""A client that is silent for less may be sending a request, in seconds."""

_FILES = Path("/proc/self/fd")
_STALLED_S = 0.5  # bytes that neither side takes for longer are of a client that does not read its answers
# Of the kernel's struct tcp_info: tcpi_unacked, tcpi_last_data_sent and tcpi_last_data_recv, both in milliseconds,
# tcpi_bytes_received, and tcpi_notsent_bytes.
_TCP_INFO = struct.Struct("24xI16xI4xI72xQ8xI")


class Connection(NamedTuple):
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


class Sockets(NamedTuple):
    """The open files of a process: connections to a port, the number that listens there, and how many others."""

    connections: list[Connection]
    listener: int | None
    others: int


class OpenFiles:
    """The open files of this process."""

    def __init__(self) -> None:
        # From Linux 6.2 on the size of the directory is the number of the open files. Other systems have neither.
        self._has_size = False
        with contextlib.suppress(OSError):
            self._has_size = abs(_FILES.stat().st_size - len(os.listdir(_FILES))) <= 1  # noqa: PTH208 - numbers

    def number(self) -> int:
        """Returns how many there are."""
        # For each file that is listed the event loop has to yield its core: ten times a second, that takes some
        # percent of a hot read.
        return _FILES.stat().st_size if self._has_size else len(os.listdir(_FILES))  # noqa: PTH208


def sockets_of(port: int) -> Sockets:
    """Looks at all open files."""
    found: list[Connection] = []
    listener, others = None, 0
    for number in map(int, os.listdir(_FILES)):  # noqa: PTH208
        # A file that is closed meanwhile is neither: counted among the others it would hide a connection.
        with contextlib.suppress(OSError), duplicate(number) as copy:
            # When a connection is over, it has no port any more.
            if copy is None or copy.getsockname()[1:2] not in ((port,), (0,)):
                others += 1
            elif copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                others += 1
                listener = number
            else:
                found.append(_seen(copy, number))
    return Sockets(found, listener, others)


def end(connection: Connection) -> bool:
    """Shuts a connection down, and returns True, if nothing has happened to it since it was seen."""
    with contextlib.suppress(OSError), duplicate(connection.file) as found:
        if found and _is_as_before(_seen(found, connection.file), connection):
            found.shutdown(socket.SHUT_RDWR)
            return True
    return False


@contextlib.contextmanager
def duplicate(file: int | None) -> Iterator[socket.socket | None]:
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


def _seen(connection: socket.socket, number: int) -> Connection:
    told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    unacknowledged, sent_ms, received_ms, received, unsent = _TCP_INFO.unpack(told)
    silent_s = min(sent_ms, received_ms) / 1000
    is_unread = bool(received) and _is_unread(connection)
    # The application may have come to the end of a request long before the client has its answer.
    if (is_unread or unacknowledged or unsent) and silent_s < _STALLED_S:
        silent_s = 0.0
    return Connection(silent_s, number, _peer_of(connection), received, is_unread, time.monotonic())


def _is_as_before(now: Connection, before: Connection) -> bool:
    """Returns whether it is the same connection, to which nothing has arrived, and of which nothing has been read.

    Of an answer nothing has left.
    """
    return (
        (now.peer, now.received) == (before.peer, before.received)
        and now.silent_s > YOUNG_S
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
