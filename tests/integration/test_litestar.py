"""A Litestar application behind a real Granian: paths as they were sent, bodies, HEAD, errors, start and stop."""

from __future__ import annotations

import html
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.servers import HOST, Server

HTML = {"Accept": "text/html"}
MIB = 1 << 20


class Site(Server):
    """The application of `litestar_site.py`, served by Granian."""

    ready_line = "Started worker-1"

    @property
    def url(self) -> str:
        """Where it is served."""
        return f"http://{HOST}:{self.port}"

    def run_as(self) -> dict[str, Any]:
        """The database is in the server's own directory."""
        return {"env": os.environ | {"DIPTYCH_DATABASE_URL": f"sqlite:///{self.directory / 'books.db'}"}}

    def command(self) -> list[str]:
        """Granian in the foreground."""
        here = Path(__file__).parent
        options = [
            "--interface",
            "asgi",
            "--host",
            HOST,
            "--port",
            str(self.port),
            "--working-dir",
            str(here),
        ]
        return [sys.executable, "-m", "granian", *options, "litestar_site:app"]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as server:
        yield server


@pytest.fixture
def client(site: Site) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, timeout=20) as client:
        yield client


class Answer(NamedTuple):
    status: int
    headers: httpx.Headers
    body: bytes


def raw(site: Site, *parts: bytes) -> Answer:
    """What comes back for bytes sent as they are; a connection that hangs fails the test."""
    with socket.create_connection((HOST, site.port), timeout=20) as connection:
        received = b""
        try:
            for part in parts:
                connection.sendall(part)
        except ConnectionError:
            pass  # the server has heard enough and closed; its answer is there to be read
        while chunk := connection.recv(65536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return Answer(int(status.split()[1]), httpx.Headers(pairs), body)


def get(site: Site, path: bytes, *headers: bytes, method: bytes = b"GET") -> Answer:
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: books.example", b"Connection: close", *headers]
    return raw(site, b"\r\n".join(lines) + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (b"/books", b"list"),
        (b"/books/Dune", b"book Dune"),
        (b"/books/AC%2FDC", b"book AC/DC"),
        (b"/books/x%2Fedit", b"book x/edit"),
        (b"/books/x/edit", b"edit x"),
        (b"/books/AC%2FDC/edit", b"edit AC/DC"),
        (b"/books/action", b"book action"),
        (b"/books/add", b"book add"),
        (b"/books/edit", b"book edit"),
        (b"/books/delete", b"book delete"),
        (b"/books/action/add", b"add form"),
        (b"/books/action/edit", b"edit action"),
        (b"/books/add/edit", b"edit add"),
        (b"/books/%2E%2E", b"book .."),
        (b"/books/../edit", b"edit .."),
        (b"/books/..%2F..%2Fetc", b"book ../../etc"),
        (b"/books/a%3Fb%23c%25d%22", b'book a?b#c%d"'),
        (b"/books/%252F", b"book %2F"),
        (b"/books/+%2B", b"book ++"),
        (b"/books/=x", b"book =x"),
        (b"/books/%F0%9F%93%9A", "book 📚".encode()),
        (b"/books/\xd7\xa9", "book ש".encode()),
        (b"/books/Dune?limit=1", b"book Dune"),
        (b"/orders/12", b"order 12"),
        (b"/static/style.css", b"p { margin: 0 }\n"),
        (b"/static/%73tyle.css", b"p { margin: 0 }\n"),
        (b"/mounted/a%2Fb//c", b"mounted /a/b/c/"),
    ],
)
def test_the_route_that_is_meant_is_found(site: Site, path: bytes, answer: bytes) -> None:
    found = get(site, path)
    assert (found.status, found.body) == (200, answer)


@pytest.mark.parametrize(
    "path",
    [
        b"/books%2FDune",
        b"/books//edit",
        b"/books/",
        b"/books/Dune/",
        b"//books",
        b"/books/x/edit/y",
        b"/orders/x",
        b"/static/../litestar_site.py",
        b"/static/%2E%2E/litestar_site.py",
        b"/static/..%2Flitestar_site.py",
        b"/static//style.css",
        b"/static/none.css",
        b"/staticstyle.css",
        b"/mountedelsewhere",
        b"/schema",
        b"*",
    ],
)
def test_what_no_route_means_is_not_found(site: Site, path: bytes) -> None:
    found = get(site, path)
    assert found.status == 404
    assert found.headers["content-type"] == "application/problem+json"
    assert b'"detail":"there is nothing at this address"' in found.body


@pytest.mark.parametrize(
    "path", [b"/books/%FF", b"/books/%C3%28", b"/books/%", b"/books/%zz", b"/books/%00", b"/%FF"]
)
def test_a_malformed_path_is_a_bad_request_in_json_and_html(site: Site, path: bytes) -> None:
    problem = get(site, path)
    assert (problem.status, problem.headers["content-type"]) == (400, "application/problem+json")
    page = get(site, path, b"Accept: text/html")
    assert (page.status, page.headers["content-type"]) == (400, "text/html; charset=utf-8")


def test_the_plugin_hands_over_the_diptych_and_the_request_is_known(client: httpx.Client) -> None:
    answer = client.get("/context", headers={"X-Request-Id": "r-1"}).json()
    assert answer == {"answer": "r-1"}


def test_json_and_forms_are_read(client: httpx.Client) -> None:
    assert client.post("/books/action/add", json={"a": 1}).json() == {"values": {"a": 1}, "is_form": False}
    form = client.post("/books/action/add", data={"title": "AC/DC é", "isbn": ""})
    assert form.json() == {"values": {"title": "AC/DC é", "isbn": None}, "is_form": True}


@pytest.mark.parametrize(
    ("content_type", "content", "status"),
    [
        ("application/json", b"{", 400),
        ("application/json", b'{"a":1,"a":2}', 400),
        ("application/json", b'{"a":"\xff"}', 400),
        ("application/json", b"[" * MIB, 400),
        ("application/json", b"[]", 422),
        ("application/json", b'{"title":""}', 422),
        ("application/x-www-form-urlencoded", b"a=%FF", 400),
        ("application/x-www-form-urlencoded", b"a=1&a=2", 422),
        ("text/plain", b"{}", 415),
    ],
)
def test_bad_bodies_are_refused(client: httpx.Client, content_type: str, content: bytes, status: int) -> None:
    answer = client.post("/books/action/add", content=content, headers={"Content-Type": content_type})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


def test_every_faulty_field_is_named(client: httpx.Client) -> None:
    answer = client.post("/books/action/add", json={"title": "", "author": ""})
    assert [error["pointer"] for error in answer.json()["errors"]] == ["#/title", "#/author"]


POST = b"POST /books/action/add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_a_body_of_the_very_limit_is_read(client: httpx.Client) -> None:
    content = b'{"a":"' + b"x" * (MIB - 8) + b'"}'
    assert len(content) == MIB
    json_type = {"Content-Type": "application/json"}
    assert client.post("/books/action/add", content=content, headers=json_type).status_code == 200
    assert client.post("/books/action/add", content=content + b" ", headers=json_type).status_code == 413


def test_a_long_body_is_refused_by_its_declared_length_alone(site: Site) -> None:
    refused = raw(site, POST + b"Content-Length: %d\r\n\r\n" % (2 * MIB))
    assert refused.status == 413


def test_a_long_body_is_refused_while_it_is_sent(site: Site, client: httpx.Client) -> None:
    whole = raw(site, POST + b"Content-Length: %d\r\n\r\n" % (2 * MIB), b"x" * (2 * MIB))
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    chunked = raw(site, POST + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 32, b"0\r\n\r\n")
    never_ending = raw(site, POST + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 17)
    for refused in (whole, chunked, never_ending):
        assert refused.status == 413
        assert b'"status":413' in refused.body
    assert client.get("/books").status_code == 200


def test_a_client_that_goes_away_leaves_the_server_serving(site: Site, client: httpx.Client) -> None:
    for _ in range(20):
        with socket.create_connection((HOST, site.port)) as connection:
            connection.sendall(POST + b"Content-Length: 100\r\n\r\n{")
    assert client.get("/books").status_code == 200


@pytest.mark.parametrize("path", ["/books", "/books/AC%2FDC", "/static/style.css", "/nothing", "/books/%FF"])
def test_head_is_get_without_the_body(site: Site, client: httpx.Client, path: str) -> None:
    got = client.get(path)
    head = get(site, path.encode(), method=b"HEAD")
    assert (head.status, head.body) == (got.status_code, b"")
    ignored = {"date", "connection"}
    assert {n: v for n, v in head.headers.items() if n not in ignored} == {
        n: v for n, v in got.headers.items() if n not in ignored
    }
    assert int(head.headers["content-length"]) == len(got.content) > 0


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/books/action/add", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/books", "GET, HEAD, OPTIONS"),
        ("PUT", "/books/x%2Fedit", "GET, HEAD, OPTIONS"),
        ("GET", "/books/x/delete", "DELETE, OPTIONS"),
        ("HEAD", "/books/x/delete", "DELETE, OPTIONS"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    client: httpx.Client, method: str, path: str, allow: str
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)


def test_options_tells_of_head(client: httpx.Client) -> None:
    assert client.options("/books").headers["allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/broken", 500), ("/refused", 503), ("/teapot", 418), ("/number?n=x", 422), ("/number", 422)],
)
def test_exceptions_are_problems_in_json_and_pages_in_html(
    client: httpx.Client, path: str, status: int
) -> None:
    problem = client.get(path)
    assert (problem.status_code, problem.json()["status"]) == (status, status)
    page = client.get(path, headers=HTML)
    assert page.status_code == status
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert f"<h1>{html.escape(problem.json()['title'])}</h1>" in page.text
    for answer in (problem, page):
        assert answer.headers["vary"] == "Accept"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "hunter2" not in answer.text


def test_an_unforeseen_error_is_logged(site: Site, client: httpx.Client) -> None:
    client.get("/broken")
    assert "RuntimeError: hunter2" in site.log()


def test_what_is_away_says_when_to_come_back(client: httpx.Client) -> None:
    assert client.get("/refused").headers["retry-after"] == "3"


def test_a_page_that_cannot_be_rendered_is_a_problem_in_json(client: httpx.Client) -> None:
    answer = client.get("/unrenderable", headers=HTML)
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")


def test_forms_of_other_sites_are_refused(site: Site, client: httpx.Client) -> None:
    def post(**headers: str) -> int:
        return client.post("/books/action/add", data={"a": "b"}, headers=headers).status_code

    assert post() == 200
    assert post(Origin=site.url) == 200
    assert post(Origin="http://evil.example") == 403
    assert post(Origin="null") == 403
    assert post(**{"Sec-Fetch-Site": "cross-site"}) == 403
    assert post(**{"Sec-Fetch-Site": "same-origin"}) == 200


def test_the_security_headers_are_on_every_answer(client: httpx.Client) -> None:
    for path in ("/books", "/nothing", "/broken", "/static/style.css", "/books/%FF"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        if "json" not in headers["content-type"]:
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert headers["x-frame-options"] == "DENY"


def test_the_diptych_is_started_and_stopped_with_the_site() -> None:
    with Site() as server:
        assert httpx.get(f"{server.url}/context").json() == {"answer": None}
        server.stop()
        assert "diptych stopped" in server.log()


def test_without_litestar_the_extra_to_install_is_named() -> None:
    code = "import sys; sys.modules['litestar'] = None; import diptych.ext.litestar"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'install diptych with the extra "litestar"' in done.stderr


def test_a_failure_inside_litestar_is_not_taken_for_its_absence() -> None:
    code = "import sys; sys.modules['litestar.di'] = None; import diptych.ext.litestar"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in done.stderr
    assert "MissingExtraError" not in done.stderr
