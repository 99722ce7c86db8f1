"""The catalogue as it is served: a process of its own, and clients that know where it is."""

from __future__ import annotations

import os
import re
import sys
import time
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import quote

import httpx

from tests.servers import HOST, Server

ROOT = Path(__file__).parents[2]
HTML = {"Accept": "text/html"}
FROM_REDIS = "diptych; hit"
FROM_SQL = "diptych; fwd=bypass; detail=no-redis"


def environment(**variables: str) -> dict[str, str]:
    """The environment of a process that serves the catalogue: ours without settings, and with `variables`."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DIPTYCH_")}
    ours.pop("PORT", None)
    return {**ours, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]), **variables}


class CatalogueServer(Server):
    """`diptych run demo_app.app:app`, on `database` and `redis` ("none": SQL alone), with other `settings`."""

    ready_line: ClassVar[str] = "Serving demo_app.app:app at"

    def __init__(
        self, database: str | None = None, redis: str = "none", *, workers: int = 1, **settings: str
    ) -> None:
        super().__init__()
        self.workers = workers
        # A busy machine must not fail a test that asserts that Redis answered.
        patient = {"REDIS_QUERY_TIMEOUT_MS": "2000", **settings}
        self.settings = {f"DIPTYCH_{name}": value for name, value in patient.items()}
        self.database = database or f"sqlite:///{self.directory / 'books.db'}"
        self.redis = redis

    @property
    def url(self) -> str:
        """Where browsers go."""
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str]:
        """Served as a user would."""
        return [
            *(sys.executable, "-m", "diptych.cli", "run", "demo_app.app:app"),
            *("--port", str(self.port), "--redis", self.redis, "--workers", str(self.workers)),
        ]

    def run_as(self) -> dict[str, Any]:
        """Nothing of the environment but what is said here decides."""
        return {"env": environment(DIPTYCH_DATABASE_URL=self.database, **self.settings)}

    @property
    def cache_status(self) -> str:
        """The `Cache-Status` of its answers while all is well."""
        return FROM_SQL if self.redis == "none" else FROM_REDIS

    def await_cache_status(self, wanted: str, timeout_s: float = 20) -> None:
        """Return when answers have this `Cache-Status`."""
        deadline = time.monotonic() + timeout_s
        while (found := httpx.get(f"{self.url}/books").headers["cache-status"]) != wanted:
            assert time.monotonic() < deadline, f"answers stay {found!r}"
            time.sleep(0.02)


class Catalogue(httpx.Client):
    """A client of the catalogue, which does what tests do again and again."""

    def __init__(self, server: CatalogueServer) -> None:
        super().__init__(base_url=server.url, timeout=30)
        self.server = server

    def add(self, title: str, author: str = "Anon", **fields: Any) -> httpx.Response:
        """Add a book in JSON; it must work."""
        answer = self.post("/books/action/add", json={"title": title, "author": author, **fields})
        assert answer.status_code == 201, answer.text
        return answer

    def emptied(self) -> Self:
        """This client, when every book is deleted and every cookie forgotten."""
        self.cookies.clear()
        while items := self._books():
            for book in items:
                assert self.delete(f"{path_of(book['title'])}/delete").status_code == 204
        return self

    def _books(self) -> Any:
        try:
            answer = self.get("/books", params={"limit": 500})
        except httpx.RemoteProtocolError:
            # A server may end an idle connection as a client sends its next request (RFC 9112, section 9.3.1).
            answer = self.get("/books", params={"limit": 500})
        return answer.json()["items"]

    def raw(self, method: str, target: str, headers: dict[str, str] | None = None) -> HTTPResponse:
        """Send exactly this request target, which other clients would put in order first."""
        connection = HTTPConnection(HOST, self.server.port, timeout=30)
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer


def path_of(title: str) -> str:
    """Where the book is."""
    return f"/books/{quote(title, safe='')}"


def errors_of(answer: httpx.Response) -> dict[str, str]:
    """Field and fault of every error of a problem document."""
    assert answer.headers["content-type"] == "application/problem+json"
    return {error["field"]: error["detail"] for error in answer.json()["errors"]}


def errors_shown(page: str) -> dict[str, str]:
    """Field and fault of every error that a form shows beside a field."""
    return dict(re.findall(r'<p class="error" id="(\w+)-error">(.*?)</p>', page))


def values_shown(page: str) -> dict[str, str]:
    """Name and value, as the HTML has it, of every text field of a form."""
    return dict(re.findall(r'<input id="\w+" name="(\w+)" type="text" value="([^"]*)"', page))
