"""The watch of a process's connections: how often it looks, and whom it takes for silent."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from diptych.cli.serving.connections import Connections


class _Waiting(Connections):
    """Connections whose looks wait for a core, as they do while others have them all."""

    def __init__(self) -> None:
        super().__init__(0, 100, set())
        self.looks = 0
        self.three_times = threading.Event()

    def look(self) -> float:
        time.sleep(0.5)
        self.looks += 1
        if self.looks == 3:
            self.three_times.set()
        if self.looks > 3:
            threading.Event().wait()  # the thread lives as long as the process
        return 0.01


def test_a_look_that_waited_for_a_core_is_soon_followed_by_another() -> None:
    """The rest is four times what a look takes of a core: by the clock it was two seconds after each of these."""
    connections = _Waiting()
    connections.watch()
    assert connections.three_times.wait(4), f"{connections.looks} looks"


def test_a_client_whose_request_waits_to_be_read_is_not_silent() -> None:
    """Near the limit requests wait for long to be accepted, and are old when the server comes to them."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = listener.getsockname()
        clients = [stack.enter_context(socket.create_connection(address)) for _ in range(2)]
        clients[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
        time.sleep(0.1)  # longer than a client may take between its connection and its request
        accepted = [stack.enter_context(listener.accept()[0]) for _ in clients]
        connections = Connections(address[1], 2, set())
        connections.look()
        assert accepted[0].recv(100) == b"GET / HTTP/1.1\r\n\r\n"
        accepted[0].sendall(b"answer")
        assert clients[0].recv(100) == b"answer"
        assert clients[1].recv(100) == b"", "the silent client is ended"
        clients[0].sendall(b"of which nothing is read")
        time.sleep(0.7)
        connections.look()
        assert clients[0].recv(100) == b"", "unread bytes are no reason to leave a client alone"
