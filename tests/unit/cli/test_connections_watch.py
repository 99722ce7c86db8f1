"""The watch of a process's connections: how often it looks, and whom it takes for silent."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from diptych.cli.serving.connections import Connections, Pace
from diptych.cli.serving.sockets import Client
from diptych.cli.serving.under_way import UnderWay


class _Counted(Connections):
    """Connections whose looks are counted; ``enough`` of them are the last."""

    def __init__(self, enough: int) -> None:
        super().__init__(0, 100, UnderWay({}, {}))
        self.looks = 0
        self.are_enough = threading.Event()
        self._enough = enough

    def count(self) -> None:
        self.looks += 1
        if self.looks == self._enough:
            self.are_enough.set()
            threading.Event().wait()  # the thread lives as long as the process


class _Failing(_Counted):
    """Connections of which each look fails, as it does without a file descriptor to list the open files."""

    def look(self, loop: asyncio.AbstractEventLoop) -> Pace:
        self.count()
        raise OSError(errno.EMFILE, "too many open files")


class _Waiting(_Counted):
    """Connections whose looks wait for a core, as they do while others have them all."""

    def look(self, loop: asyncio.AbstractEventLoop) -> Pace:
        time.sleep(0.5)
        self.count()
        return Pace(pause_s=0.01, share=4)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in another thread, as the server's does for the watch."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class _Server:
    """A listening socket, its clients, and what it has accepted, each until the end of the test."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port: int = self._listener.getsockname()[1]

    def connect(self, number: int) -> list[socket.socket]:
        address = ("127.0.0.1", self.port)
        return [
            self._stack.enter_context(socket.create_connection(address, timeout=5)) for _ in range(number)
        ]

    def two_that_sent(self, sent: bytes) -> list[socket.socket]:
        """Returns two clients that sent this, which the server has read, and have been silent for a while."""
        clients = self.connect(2)
        for client in clients:
            client.sendall(sent)
        time.sleep(0.1)
        for connection in self.accept(2):
            connection.recv(100)
        return clients

    def accept(self, number: int) -> list[socket.socket]:
        return [self._stack.enter_context(self._listener.accept()[0]) for _ in range(number)]


@pytest.fixture
def server() -> Iterator[_Server]:
    with contextlib.ExitStack() as stack:
        yield _Server(stack)


def is_ended(client: socket.socket) -> bool:
    """Returns whether the server has ended the connection, of a client that has read all of its answers."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False


def test_a_look_that_waited_for_a_core_is_soon_followed_by_another(loop: asyncio.AbstractEventLoop) -> None:
    """The rest is four times what a look takes of a core: by the clock it was two seconds after each of these."""
    connections = _Waiting(enough=3)
    connections.watch(loop)
    assert connections.are_enough.wait(4), f"{connections.looks} looks"


def test_looks_that_fail_one_after_another_are_told_once(
    loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """Each had its traceback in the log, ten times a second."""
    connections = _Failing(enough=5)
    with caplog.at_level(logging.ERROR, "diptych.server"):
        connections.watch(loop)
        assert connections.are_enough.wait(10)
    assert len(caplog.records) == 1


def test_a_client_whose_request_waits_to_be_read_is_not_silent(
    loop: asyncio.AbstractEventLoop, server: _Server
) -> None:
    """Near the limit requests wait for long to be accepted, and are old when the server comes to them."""
    clients = server.connect(2)
    clients[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
    time.sleep(0.1)  # longer than a client may take between its connection and its request
    accepted = server.accept(2)
    connections = Connections(server.port, 2, UnderWay({}, {}))
    connections.look(loop)
    assert accepted[0].recv(100) == b"GET / HTTP/1.1\r\n\r\n"
    accepted[0].sendall(b"answer")
    assert clients[0].recv(100) == b"answer"
    assert clients[1].recv(100) == b"", "the silent client is ended"
    clients[0].sendall(b"of which nothing is read")
    time.sleep(0.7)
    connections.look(loop)
    assert clients[0].recv(100) == b"", "unread bytes are no reason to leave a client alone"


def test_a_client_whose_request_waits_for_the_event_loop_is_not_silent(
    loop: asyncio.AbstractEventLoop, server: _Server
) -> None:
    """The server has read the request, and the application, busy with others, has not been called with it yet."""
    under_way = UnderWay({}, {})
    clients = server.two_that_sent(b"GET / HTTP/1.1\r\n\r\n")
    loop.call_soon_threadsafe(time.sleep, 0.5)
    loop.call_soon_threadsafe(under_way.clients.__setitem__, 1, client_of(clients[0]))
    Connections(server.port, 2, under_way).look(loop)
    assert [is_ended(client) for client in clients] == [False, True], "the second is of half a head"


def test_a_client_whose_whole_body_waits_for_the_event_loop_is_not_silent(
    loop: asyncio.AbstractEventLoop, server: _Server
) -> None:
    clients = server.two_that_sent(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
    waits_since = dict.fromkeys((1, 2), time.monotonic())
    under_way = UnderWay({1: client_of(clients[0]), 2: client_of(clients[1])}, waits_since)
    loop.call_soon_threadsafe(time.sleep, 0.5)
    loop.call_soon_threadsafe(waits_since.pop, 1)
    Connections(server.port, 2, under_way).look(loop)
    assert [is_ended(client) for client in clients] == [False, True], "of the second body half is missing"


def client_of(connection: socket.socket) -> Client:
    address, port = connection.getsockname()
    return address, str(port)


def test_a_client_with_one_request_that_waits_for_its_body_and_another_that_does_not_is_not_silent(
    loop: asyncio.AbstractEventLoop, server: _Server
) -> None:
    clients = server.two_that_sent(b"of several requests")
    first, second = map(client_of, clients)
    under_way = UnderWay({1: first, 2: first, 3: second}, dict.fromkeys((2, 3), time.monotonic()))
    Connections(server.port, 2, under_way).look(loop)
    assert [is_ended(client) for client in clients] == [False, True]


def test_a_client_whose_request_ends_during_a_look_is_not_silent(
    loop: asyncio.AbstractEventLoop, server: _Server
) -> None:
    """The server may not have begun to send the answer."""
    clients = server.two_that_sent(b"GET / HTTP/1.1\r\n\r\n")
    under_way = UnderWay({1: client_of(clients[0])}, {})
    loop.call_soon_threadsafe(time.sleep, 0.5)
    loop.call_soon_threadsafe(under_way.clients.pop, 1)
    Connections(server.port, 2, under_way).look(loop)
    assert [is_ended(client) for client in clients] == [False, True]


def test_connections_that_are_closed_during_a_count_do_not_hide_those_that_come_after_it(
    loop: asyncio.AbstractEventLoop, server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for files of another kind, they made a full process look empty, for up to five seconds."""
    connections = Connections(server.port, 32, UnderWay({}, {}))
    former = server.connect(32)
    former += server.accept(32)
    listed = os.listdir

    def listed_and_closed(folder: str) -> list[str]:
        files = listed(folder)
        for end in former:
            end.close()
        return files

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", listed_and_closed)
        connections.look(loop)
    silent = server.connect(32)
    server.accept(32)
    time.sleep(0.1)
    connections.look(loop)
    assert all(map(is_ended, silent))


def test_a_worker_starts_where_the_system_does_not_list_its_open_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Under macOS it did not: it makes the watch, and has none of it start."""
    monkeypatch.setattr("diptych.cli.serving.sockets._FILES", tmp_path / "missing")
    Connections(0, 4096, UnderWay({}, {}))


def test_a_socket_of_the_application_on_which_calls_block_stays_so(
    loop: asyncio.AbstractEventLoop, server: _Server
) -> None:
    """A library in C may have it, and knows nothing of a default time-out of Python's."""
    mine, other = socket.socketpair()
    silent = server.connect(2)
    server.accept(2)
    time.sleep(0.1)
    socket.setdefaulttimeout(5)
    try:
        Connections(server.port, 2, UnderWay({}, {})).look(loop)
    finally:
        socket.setdefaulttimeout(None)
    with mine, other:
        assert all(map(is_ended, silent))
        assert os.get_blocking(mine.fileno())


def test_far_from_the_limit_a_look_opens_no_file(
    loop: asyncio.AbstractEventLoop, server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A count has the event loop yield to it for each file: ten times a second, it took an eighth of a hot read."""
    server.connect(3)
    opened: list[int] = []
    monkeypatch.setattr(os, "dup", opened.append)
    Connections(server.port, 4096, UnderWay({}, {})).look(loop)
    assert opened == []
