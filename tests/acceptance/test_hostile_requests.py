"""Requests that no client sends get problem details and security headers; byte by byte, by raw sockets."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from tests.acceptance.hostile.sending import send_all
from tests.acceptance.hostile.serving import plenty
from tests.acceptance.serving import Catalogue, CatalogueServer
from tests.servers import HOST

ADD = b"POST /books/action/add HTTP/1.1\r\nHost: localhost\r\n"
JSON = ADD + b"Content-Type: application/json\r\n"
DOCS = Path(__file__).parents[2] / "docs"


def exchange(server: CatalogueServer, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Sends these bytes, and returns status, headers and body of the answer after which the server closes."""
    with socket.create_connection((HOST, server.port), timeout=30) as connection:
        connection.sendall(sent)
        received = b""
        while part := connection.recv(65_536):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return int(status.split()[1]), {name.lower(): value for name, _, value in pairs}, body


def problem(server: CatalogueServer, sent: bytes) -> tuple[int, str]:
    """Returns status and detail of the problem that answers these bytes, whose headers have to be ours."""
    status, headers, body = exchange(server, sent)
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-content-type-options"] == "nosniff"
    found = json.loads(body)
    assert found["status"] == status
    return status, found["detail"]


def test_some_hundred_hostile_requests_get_problem_details_and_no_5xx() -> None:
    """`python -m tests.acceptance.hostile` sends 20,000."""
    with plenty(1) as server:
        statuses, faults = send_all(server.port, 800, seed=17)
    assert faults == []
    assert len(statuses) > 10, statuses


@pytest.mark.parametrize("path", [b"/health", b"/books/Dune", b"/books", b"/static/books.css", b"/nowhere"])
@pytest.mark.parametrize(
    ("hosts", "detail"),
    [
        (b"", "the request has no Host header"),
        (b"Host:\r\n", "the request has no Host header"),
        (b"Host: localhost\r\nHost: localhost\r\n", "the request has several Host headers"),
        (b"Host: local host\r\n", "the Host header is malformed"),
        (b"Host: evil.example\r\n", "under this name; ALLOWED_HOSTS lists the names of this server"),
    ],
)
def test_a_host_that_is_none_of_loopbacks_is_400_on_every_route(
    sql_books: Catalogue, path: bytes, hosts: bytes, detail: str
) -> None:
    sent = b"GET %b HTTP/1.1\r\n%bConnection: close\r\n\r\n" % (path, hosts)
    status, said = problem(sql_books.server, sent)
    assert status == 400
    assert said.endswith(detail)


def test_a_server_that_is_bound_to_loopback_is_asked_by_any_of_its_names(sql_books: Catalogue) -> None:
    for host in ("localhost:8000", "LOCALHOST", "shop.localhost", "127.0.0.1", "[::1]:80"):
        assert sql_books.get("/health", headers={"Host": host}).status_code == 200


def test_allowed_hosts_are_instead_of_those_of_loopback() -> None:
    with CatalogueServer(ALLOWED_HOSTS="shop.example, *.shop.example") as server, Catalogue(server) as client:
        for host in ("shop.example", "www.shop.example:443"):
            assert client.get("/books", headers={"Host": host}).status_code == 200
        assert client.get("/books").status_code == 400


@pytest.mark.parametrize("name", ["books.css/x", "x" * 256, "books.css/", "a/" * 3_000])
def test_a_static_file_that_can_not_be_is_404(sql_books: Catalogue, name: str) -> None:
    answer = sql_books.get(f"/static/{name}")
    assert answer.status_code == 404, answer.text


def test_a_malformed_chunk_is_said_to_be_one(sql_books: Catalogue) -> None:
    sent = JSON + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"
    detail = "the body is not whole: a chunk is malformed, or the client disconnected"
    assert problem(sql_books.server, sent) == (400, detail)


def test_a_transfer_coding_that_is_not_known_is_501(sql_books: Catalogue) -> None:
    sent = JSON + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert problem(sql_books.server, sent) == (501, "of the transfer codings only chunked is known here")


def test_a_compressed_body_is_415_and_says_what_is_read(sql_books: Catalogue) -> None:
    body = b"Content-Encoding: gzip\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    status, headers, _ = exchange(sql_books.server, JSON + body)
    assert (status, headers["accept-encoding"], "accept" in headers) == (415, "identity", False)


def test_a_charset_is_not_overlooked_for_a_blank(sql_books: Catalogue) -> None:
    kind = b"Content-Type: application/json; charset =utf-16\r\n"
    sent = ADD + kind + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}"
    assert problem(sql_books.server, sent) == (415, "only UTF-8 is read here")


BARE = [
    (b"GARBAGE\r\n\r\n", 400),
    (b"GET /books HTTP/3.0\r\nHost: localhost\r\n\r\n", 400),
    (b"GET /books HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", 400),
    (b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"a" * 66_000), 414),
    (b"GET / HTTP/1.1\r\n%b\r\n" % (b"X: 1\r\n" * 101), 431),
    (b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"a" * 200_000), 431),
]


@pytest.mark.parametrize(("sent", "status"), BARE, ids=[f"{sent[:20]!r}-{status}" for sent, status in BARE])
def test_what_the_server_answers_without_the_application_is_bare_and_named_in_the_docs(
    sql_books: Catalogue, sent: bytes, status: int
) -> None:
    found, headers, body = exchange(sql_books.server, sent)
    assert (found, headers["content-length"], body) == (status, "0", b"")
    named = re.search(
        r"(?s)## What the server answers itself\n(.*?)\n## ", (DOCS / "reference/http.md").read_text()
    )
    assert named
    assert f"| {status} |" in named[1]


def test_the_preface_of_http_2_is_closed_without_an_answer(sql_books: Catalogue) -> None:
    with socket.create_connection((HOST, sql_books.server.port), timeout=30) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert connection.recv(100) == b""


def test_nothing_that_a_client_sends_forges_a_line_of_the_access_log() -> None:
    with LoggingServer() as server:
        for target in (
            b"/books/a%0A127.0.0.1%20forged%20%22%5C%E2%80%AE",
            b"/books?title=a%0Ab&x=1",
            b"/health",
        ):
            problem_or_not = exchange(
                server, b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % target
            )
            assert problem_or_not[0] < 500
        server.stop()
        log = server.log_file.read_text()
    lines = [line for line in log.splitlines() if "GET" in line]
    form = r"[-0-9]{10} [:.0-9]{12}Z INFO granian\.access \[worker 1, process \d+\]: "
    pattern = form + r'127\.0\.0\.1 "GET (.*) HTTP/1\.1" \d{3} \d+\.\d ms'
    found = [re.fullmatch(pattern, line) for line in lines]
    assert [match and match[1] for match in found] == [
        r"/books/a\n127.0.0.1 forged \"\\\u202e",
        "/books?title=a%0Ab&x=1",
        "/health",
    ]


def test_the_access_log_has_the_client_of_a_trusted_proxy() -> None:
    with LoggingServer(FORWARDED_ALLOW_IPS="127.0.0.0/8") as server:
        forwarded = b"X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n"
        form = b"title=Dune&author=A"
        kind = b"Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n"
        sent = ADD + forwarded + kind + b"Content-Length: %d\r\n\r\n%b" % (len(form), form)
        status, headers, _ = exchange(server, sent.replace(b"Host", b"Accept: text/html\r\nHost"))
        assert (status, headers["set-cookie"].endswith("Secure")) == (303, True), headers
        server.stop()
        assert ': 203.0.113.7 "POST ' in server.log_file.read_text()


class LoggingServer(CatalogueServer):
    """The catalogue with an access log."""

    def command(self) -> list[str]:
        return [*super().command(), "--access-log"]
