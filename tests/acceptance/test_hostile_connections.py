"""Connections that are held open stop nobody: they are ended in time, and others are served meanwhile."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from collections.abc import Callable

import pytest

from tests.acceptance.hostile.flood import KINDS, flood, rounds
from tests.acceptance.hostile.serving import LIMIT_S, at_limit, plenty
from tests.acceptance.serving import CatalogueServer
from tests.servers import HOST

NUMBER = 1_200
# Other tests have the machine at the same time. `python -m tests.acceptance.hostile` demands a second.
HEALTH_S = 4.0


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("workers", [1, 2])
def test_silent_connections_half_heads_and_half_bodies_are_ended_in_time(workers: int) -> None:
    with plenty(workers) as server:
        for kinds in rounds():
            found = flood(server.port, kinds, NUMBER, wait_s=10 * LIMIT_S)
            assert (found.left, found.failures) == (0, [])
            assert max(found.health_s) < HEALTH_S
            for kind, ending in found.endings.items():
                assert ending.number == NUMBER
                assert ending.longest_s < 3 * LIMIT_S
                answers = {b"HTTP/1.1 408 Request Timeout": NUMBER} if kind == "body" else {}
                assert ending.answers == answers
        assert "MAX_CONNECTIONS" not in server.log_file.read_text(), "the limit was never near"


@pytest.mark.parametrize("workers", [1, 2])
def test_at_the_limit_of_files_the_longest_silent_are_ended_and_others_are_served(workers: int) -> None:
    with at_limit(workers) as server:
        assert "126 connections at once at most for each process" in server.log_file.read_text()
        for kinds in (("silent",), tuple(KINDS)):
            found = flood(server.port, kinds, NUMBER, wait_s=10 * LIMIT_S)
            assert found.left == 0
            assert max(found.health_s) < HEALTH_S
            assert len(found.failures) <= 1, "a client may be taken for a silent one, and asks again"
        log = server.log_file.read_text()
        assert "Traceback" not in log
        # One line for each burst and process. A burst may fall into two on a busy machine.
        assert 2 <= log.count("connections near the limit of 126 were ended within") <= 2 * workers * 3


SLOW = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for state in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{state}.complete"})
    else:
        if scope["path"] == "/slow":
            print("slow", flush=True)
            await asyncio.sleep(600)
        body = b"x" * 20_000_000 if scope["path"] == "/large" else b""
        await send({"type": "http.response.start", "status": 200 if body else 204, "headers": []})
        await send({"type": "http.response.body", "body": body})
        if scope["path"] == "/work-afterwards":
            await asyncio.sleep(0.2)
            print("worked", flush=True)
"""


class SlowServer(CatalogueServer):
    """An application with a request that takes minutes, in a process with sixteen connections."""

    ready_line = "Serving slow:app at"

    def command(self) -> list[str]:
        (self.directory / "slow.py").write_text(SLOW)
        return ["slow:app" if part == "demo_app.app:app" else part for part in super().command()]


def ask(port: int, path: str) -> bytes:
    with socket.create_connection((HOST, port), timeout=30) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_a_newcomer_is_refused_at_once_if_every_connection_has_a_request_under_way() -> None:
    with SlowServer(MAX_CONNECTIONS="16") as server, contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection((HOST, server.port))) for _ in range(16)]
        for connection in held:
            connection.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: server.log_file.read_text().count("slow\n") == 16)
        began = time.monotonic()
        answer = ask(server.port, "/quick")
        assert time.monotonic() - began < HEALTH_S
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert {b"retry-after: 1", b"connection: close", b"x-content-type-options: nosniff"} <= set(
            head.split(b"\r\n")
        )
        assert json.loads(body)["detail"] == "the server has as many connections as it can have; try again"
        eventually(lambda: "1 connections beyond the limit of 16 were refused" in server.log_file.read_text())
        assert not any(select.select(held, [], [], 0)[0]), "requests under way go on"
        held.pop().close()
        eventually(lambda: ask(server.port, "/quick").startswith(b"HTTP/1.1 204"))


SLOW_REQUEST = b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_request_that_comes_during_the_work_after_an_answer_is_not_taken_for_a_silent_client() -> None:
    with SlowServer(MAX_CONNECTIONS="16") as server, contextlib.ExitStack() as stack:
        client = stack.enter_context(socket.create_connection((HOST, server.port), timeout=30))
        client.sendall(SLOW_REQUEST.replace(b"slow", b"work-afterwards"))
        assert client.recv(65_536).startswith(b"HTTP/1.1 204")
        client.sendall(SLOW_REQUEST)
        eventually(lambda: has_lines(server, "slow", "worked"))
        flood_with_silence(server, stack)
        assert not select.select([client], [], [], 0)[0], "its connection was ended"


def test_a_client_that_reads_a_large_answer_is_not_taken_for_a_silent_client() -> None:
    """The application has given it to the server at once, and has come to the end of the request."""
    with SlowServer(MAX_CONNECTIONS="16") as server, contextlib.ExitStack() as stack:
        client = stack.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.settimeout(30)
        client.connect((HOST, server.port))
        client.sendall(
            SLOW_REQUEST.replace(b"slow", b"large").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        received = len(client.recv(65_536))
        began = time.monotonic()
        silent: list[socket.socket] = []
        while some := client.recv(65_536):
            received += len(some)
            if time.monotonic() - began < 1.0:
                time.sleep(0.02)
                if len(silent) < 20:
                    silent.append(stack.enter_context(socket.create_connection((HOST, server.port))))
        assert received > 20_000_000
        assert len(select.select(silent, [], [], 0)[0]) >= 6, "silent ones were ended meanwhile"


def test_a_request_is_not_taken_for_a_silent_client_when_another_of_its_http_2_connection_ends() -> None:
    with SlowServer(MAX_CONNECTIONS="16", HTTP2="true") as server, contextlib.ExitStack() as stack:
        client = stack.enter_context(socket.create_connection((HOST, server.port), timeout=30))
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + http_2_frame(type_=4, flags=0, stream=0))
        client.sendall(http_2_request(1, b"/slow") + http_2_request(3, b"/work-afterwards"))
        eventually(lambda: has_lines(server, "slow", "worked"))
        while select.select([client], [], [], 0.2)[0]:
            assert client.recv(65_536)
        flood_with_silence(server, stack)
        assert not select.select([client], [], [], 0)[0], "its connection was ended"


def http_2_request(stream: int, path: bytes) -> bytes:
    fields = b"\x82\x86\x01\x09localhost\x04" + bytes([len(path)]) + path  # GET, http, :authority, :path
    return http_2_frame(type_=1, flags=0x5, stream=stream, payload=fields)  # headers, the end of both


def http_2_frame(type_: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([type_, flags]) + stream.to_bytes(4, "big") + payload


def has_lines(server: SlowServer, *lines: str) -> bool:
    return set(lines) <= set(server.log_file.read_text().splitlines())


def flood_with_silence(server: SlowServer, stack: contextlib.ExitStack) -> None:
    """Opens more silent connections than the server can have, and returns when as many are ended as must be."""
    silent = [stack.enter_context(socket.create_connection((HOST, server.port))) for _ in range(20)]
    eventually(lambda: len(select.select(silent, [], [], 0)[0]) >= 6)


def eventually(holds: Callable[[], bool]) -> None:
    """Waits for what another process does, which has no event for it."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
