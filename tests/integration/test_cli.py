"""The command ``diptych`` and ``serve()``, as real processes serving a tiny application."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from diptych.cli import embedded, embedded_available
from diptych.cli.embedded import EmbeddedValkey
from diptych.cli.target import CommandError
from diptych.config.settings import SETTINGS
from diptych.errors import MissingExtraError
from tests.acceptance.serving import FROM_REDIS, Catalogue, CatalogueServer, environment
from tests.servers import HOST, RedisServer

DIPTYCH = [sys.executable, "-m", "diptych.cli"]
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z"
"""The time of a log line, as a pattern."""
APPLICATION = """
    import asyncio, gc, json, os, pathlib, signal, socket, time

    pathlib.Path(f"imported-by-{os.getpid()}").touch()

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            if os.environ.get("DIPTYCH_REDIS_URL", "").startswith("unix:"):
                await asyncio.sleep(0.2)  # time for a Valkey to end that had the same signal
                socket.socket(socket.AF_UNIX).connect(os.environ["DIPTYCH_REDIS_URL"][len("unix://"):])
            print("stopped in good order", flush=True)
            await send({"type": "lifespan.shutdown.complete"})
            return
        facts = {name: value for name, value in os.environ.items() if name.startswith("DIPTYCH_")}
        facts |= {"pid": os.getpid(), "collects_after": gc.get_threshold()[0]}
        body = json.dumps(facts | {"loop": type(asyncio.get_running_loop()).__module__}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def make():
        return app

    def collecting_after_20000():
        gc.set_threshold(20_000)
        return app

    def never_collecting():
        gc.set_threshold(0)
        return app

    async def without_lifespan(scope, receive, send):
        assert scope["type"] == "http"
        await app(scope, receive, send)

    def signalled():
        "An application whose first worker gets a SIGTERM while the server prepares to serve."
        from granian.server import mp

        def prepare(*arguments, prepare=mp.ASGIWorker):
            if not os.path.exists("signalled"):
                pathlib.Path("signalled").touch()
                os.kill(os.getpid(), signal.SIGTERM)
            return prepare(*arguments)

        mp.ASGIWorker = prepare
        return app

    async def refusing(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "the database is away"})

    async def stuck(scope, receive, send):
        async def receive_and_hang():
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                time.sleep(600)
            return message
        await app(scope, receive_and_hang, send)

    settings = {}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a tiny application, and no settings around it."""
    (tmp_path / "tiny.py").write_text(textwrap.dedent(APPLICATION))
    (tmp_path / "broken.py").write_text("import no_such_package_anywhere")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DIPTYCH_")]:
        monkeypatch.delenv(name)
    return tmp_path


class Running(NamedTuple):
    process: subprocess.Popen[str]
    announced: str
    url: str

    def ask(self) -> dict[str, Any]:
        """Returns the facts in the application's answer."""
        with urllib.request.urlopen(self.url, timeout=10) as response:  # noqa: S310
            found: dict[str, Any] = json.load(response)
        return found

    def pid(self) -> int | None:
        """Returns the worker's process id; None if no worker answers, or the worker is about to end."""
        try:
            return int(self.ask()["pid"])
        except OSError:
            return None

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Sends a signal and returns the exit code and the output since the announcement."""
        self.process.send_signal(number)
        rest = self.process.communicate(timeout=30)[0]
        return self.process.returncode, rest


@contextmanager
def running(*arguments: str, command: list[str] | None = None) -> Iterator[Running]:
    command = command or [*DIPTYCH, "run", "tiny:app", "--port", "0", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            yield await_announcement(process)
        finally:
            process.kill()


def await_announcement(process: subprocess.Popen[str]) -> Running:
    assert process.stdout is not None
    written = ""
    for line in process.stdout:
        written += line
        if found := re.search(r"http://\S+:\d+", line):
            return Running(process, line, found[0])
    pytest.fail(f"ended before it served:\n{written}")


def run(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([*DIPTYCH, *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def eventually(holds: Callable[[], bool]) -> bool:
    """Returns whether a condition holds within a minute: foreign processes have no event to wait for."""
    deadline = time.monotonic() + 60
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def refuses(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


def ask_valkey(url: str, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(url.removeprefix("unix://"))
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(1000).decode()


def is_away(url: str) -> bool:
    try:
        return not ask_valkey(url, "PING")
    except OSError:
        return True


# diptych run


def test_it_serves_until_sigterm_and_then_stops_in_good_order():
    with running() as served:
        facts = served.ask()
        assert facts["DIPTYCH_WORKERS"] == "1"
        assert "DIPTYCH_REDIS_URL" not in facts
        assert re.fullmatch(
            r"Serving tiny:app at http://127\.0\.0\.1:\d+ \(1 worker\); .*\n", served.announced
        )
        code, written = served.end()
        assert code == 0
        assert re.fullmatch(
            rf"stopped in good order\n{TIME} INFO diptych\.server \[process {served.process.pid}\]: "
            r"stopped tiny:app \(SIGTERM\)\n",
            written,
        )
        assert refuses(served.url)


def test_ctrl_c_stops_the_workers_and_then_their_valkey():
    with running("--workers", "2", "--redis", "embedded") as served:
        os.killpg(served.process.pid, signal.SIGINT)  # as a terminal does: parent and workers at once
        written = served.process.communicate(timeout=30)[0]
        assert served.process.returncode == 0
        assert "stopped in good order" in written
        assert "Error" not in written


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest, here: Path) -> str:
    """The package of the workers' event loop: uvloop, or asyncio where uvloop is not installed."""
    if request.param == "asyncio":
        (here / "uvloop.py").write_text("raise ImportError")
    name: str = request.param
    return name


def test_workers_run_on_uvloop_where_it_is_installed(loop: str):
    with running() as served:
        assert served.ask()["loop"].partition(".")[0] == loop
        code, written = served.end()
        assert (code, written.partition("\n")[0]) == (0, "stopped in good order")


@pytest.mark.usefixtures("loop")
def test_a_signal_that_comes_while_the_loop_of_a_worker_pauses_is_not_missed(here: Path):
    with running(command=[*DIPTYCH, "run", "tiny:signalled", "--factory", "--port", "0"]) as served:
        assert eventually(lambda: len(list(here.glob("imported-by-*"))) == 2)  # it ended, and has a successor
        assert eventually(lambda: served.pid() is not None)
        assert served.end()[0] == 0


def test_sigterm_stops_it_while_the_application_is_still_being_imported(here: Path):
    os.mkfifo(here / "gate")
    (here / "slow.py").write_text("open('gate', 'w').close()\nimport time\ntime.sleep(60)")
    with subprocess.Popen([*DIPTYCH, "run", "slow:app", "--port", "0"]) as process:
        Path("gate").read_text()
        process.terminate()
        assert process.wait(15) == 0


def test_workers_are_told_how_many_they_are_and_only_they_import_the_application(here: Path):
    with running("--workers", "2") as served:
        assert served.ask()["DIPTYCH_WORKERS"] == "2"
        assert eventually(lambda: len(list(here.glob("imported-by-*"))) == 2)
        assert not (here / f"imported-by-{served.process.pid}").exists()
        assert served.end()[0] == 0


def test_the_number_of_workers_comes_from_the_settings_if_not_given(here: Path):
    (here / "diptych.toml").write_text("workers = 2")
    with running() as served:
        assert "(2 workers)" in served.announced


def test_a_worker_that_dies_is_replaced():
    with running() as served:
        first = int(served.ask()["pid"])
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: served.pid() not in (None, first))
        assert served.end()[0] == 0


def test_workers_do_not_outlive_a_killed_parent():
    with running("--workers", "2") as served:
        served.process.kill()
        assert eventually(lambda: refuses(served.url))


def test_a_factory_and_an_application_without_lifespan_are_served():
    for target in (["tiny:make", "--factory"], ["tiny:without_lifespan"]):
        with running(command=[*DIPTYCH, "run", *target, "--port", "0"]) as served:
            assert served.ask()["pid"]
            assert served.end()[0] == 0


@pytest.mark.parametrize(
    ("target", "wanted"), [("make", 10_000), ("collecting_after_20000", 20_000), ("never_collecting", 0)]
)
def test_the_garbage_collector_begins_late_and_as_the_application_has_set_it(target: str, wanted: int):
    with running(command=[*DIPTYCH, "run", f"tiny:{target}", "--factory", "--port", "0"]) as served:
        assert served.ask()["collects_after"] == wanted


def test_the_access_log_is_written_only_when_asked_for():
    with running() as served:
        served.ask()
        assert "GET" not in served.end()[1]
    with running("--access-log") as served:
        served.ask()
        assert '"GET / HTTP/1.1" 200' in served.end()[1]


@pytest.mark.parametrize(
    ("target", "code", "problem"),
    [
        ("tiny", 2, '"tiny" must have the form module:attribute'),
        ("tiny:", 2, "must have the form module:attribute"),
        ("../tiny:app", 2, "must have the form module:attribute"),
        ("tinny:app", 2, 'there is no module "tinny" in '),
        ("tiny.app:app", 2, 'there is no module "tiny.app", though there is "tiny"'),
        ("tiny:ap", 2, '"tiny" has no "ap"; did you mean "app"?'),
        ("tiny:settings", 2, "is no ASGI application but a value of type dict"),
        ("tiny:make", 2, "add --factory"),
        ("tiny:refusing", 1, "cannot start: the database is away"),
        ("broken:app", 1, "No module named 'no_such_package_anywhere'"),
    ],
)
def test_a_target_that_cannot_be_served_is_reported_once(target: str, code: int, problem: str):
    found, written = run("run", target, "--port", "0", "--workers", "2")
    assert found == code
    assert written.count(problem) == 1
    assert written.startswith("Error: ")
    assert "diptych/cli" not in written


def test_a_port_in_use_is_reported_before_anything_is_started(here: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, written = run("run", "tiny:app", "--port", port, "--redis", "embedded")
    assert code == 1
    assert written.startswith(f"Error: port {port} of 127.0.0.1 is in use")
    assert not list(here.glob("imported-by-*"))


def test_two_servers_do_not_share_a_port():
    with running() as served:
        code, written = run("run", "tiny:app", "--port", served.url.rpartition(":")[2])
        assert (code, "is in use" in written) == (1, True)


def test_a_host_that_is_not_there_is_reported():
    code, written = run("run", "tiny:app", "--host", "no.such.host.invalid")
    assert code == 2
    assert 'there is no host "no.such.host.invalid"' in written
    code, written = run("run", "tiny:app", "--host", "192.0.2.1", "--port", "0")
    assert code == 1
    assert "cannot listen at 192.0.2.1" in written


def test_a_faulty_setting_is_reported_without_a_traceback(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIPTYCH_WORKERS", "many")
    for command in (["run", "tiny:app"], ["settings"]):
        code, written = run(*command)
        assert code == 2
        assert written.startswith("Error: WORKERS: must be a whole number")
        assert "Traceback" not in written


# Redis


def test_none_leaves_the_workers_without_redis(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIPTYCH_REDIS_URL", "redis://cache")
    with running("--redis", "none") as served:
        assert served.ask()["DIPTYCH_REDIS_URL"] == "none"
        assert "(1 worker, DIPTYCH_REDIS_URL is none)" in served.announced, "nobody knows what it uses"


def test_a_url_goes_to_the_workers_and_its_password_nowhere_else():
    with running("--redis", "redis://:hunter2@cache:6379") as served:
        assert served.ask()["DIPTYCH_REDIS_URL"] == "redis://:hunter2@cache:6379"
        assert "hunter2" not in served.announced + served.end()[1]


def test_a_faulty_url_is_refused():
    code, written = run("run", "tiny:app", "--port", "0", "--redis", "redis://:hunter2@cache:port")
    assert code == 2
    assert written.startswith("Error: --redis: must have the form")
    assert "hunter2" not in written


@pytest.mark.parametrize("choice", ["redis://cache:6379", "embedded"])
def test_a_critical_redis_may_be_the_one_that_is_chosen(choice: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIPTYCH_REDIS_CRITICAL", "true")
    with running("--redis", choice) as served:
        assert served.ask()["DIPTYCH_REDIS_CRITICAL"] == "true"
        assert served.end()[0] == 0


def test_a_critical_redis_that_is_none_is_a_contradiction(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIPTYCH_REDIS_CRITICAL", "true")
    code, written = run("run", "tiny:app", "--port", "0", "--redis", "none")
    assert code == 2
    assert written.startswith("Error: REDIS_CRITICAL: is true (environment), but no REDIS_URL is set")


def test_the_embedded_valkey_runs_beside_the_workers_and_ends_with_them():
    with running("--redis", "embedded") as served:
        url = served.ask()["DIPTYCH_REDIS_URL"]
        socket_path = Path(url.removeprefix("unix://"))
        assert ask_valkey(url, "PING") == "+PONG\r\n"
        assert "noeviction" in ask_valkey(url, "CONFIG GET maxmemory-policy")
        assert ask_valkey(url, "CONFIG GET port").endswith("$1\r\n0\r\n")
        assert socket_path.parent.stat().st_mode & 0o777 == 0o700
        assert "(1 worker, DIPTYCH_REDIS_URL leads to an embedded Valkey)" in served.announced
        assert served.end()[0] == 0
        assert is_away(url)
        assert not socket_path.parent.exists()


def test_the_embedded_valkey_dies_with_a_killed_parent():
    with running("--redis", "embedded", "--workers", "2") as served:
        url = served.ask()["DIPTYCH_REDIS_URL"]
        served.process.kill()
        assert eventually(lambda: is_away(url))
        assert eventually(lambda: not Path(url.removeprefix("unix://")).parent.exists())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_the_embedded_valkey_dies_with_a_killed_guard():
    with EmbeddedValkey() as valkey:
        assert valkey._guard is not None
        valkey._guard.kill()
        assert eventually(lambda: is_away(valkey.url))


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ("", "glibc.malloc.tcache_count=127"),
        ("glibc.malloc.arena_max=2", "glibc.malloc.arena_max=2:glibc.malloc.tcache_count=127"),
        ("glibc.malloc.tcache_count=9", "glibc.malloc.tcache_count=9"),
    ],
)
def test_the_embedded_valkey_keeps_freed_memory_at_hand_unless_that_is_set(
    own: str, wanted: str, here: Path, monkeypatch: pytest.MonkeyPatch
):
    program = here / "valkey-server"
    told = (
        f"import os, pathlib\npathlib.Path({str(here / 'told')!r}).write_text(os.environ['GLIBC_TUNABLES'])"
    )
    program.write_text(f"#!{sys.executable}\n{told}")
    program.chmod(0o755)
    monkeypatch.setattr(embedded, "_find_binary", lambda: program)
    monkeypatch.setenv("GLIBC_TUNABLES", own)
    with pytest.raises(CommandError), EmbeddedValkey():
        pass
    assert (here / "told").read_text() == wanted


def test_the_embedded_valkey_is_private_even_where_paths_are_long(
    here: Path, monkeypatch: pytest.MonkeyPatch
):
    long = here / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with EmbeddedValkey() as valkey:
        assert ask_valkey(valkey.url, "PING") == "+PONG\r\n"


def test_a_valkey_that_cannot_run_is_reported_and_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch):
    program = here / "valkey-server"
    program.write_text("#!/bin/sh\nexit 1")
    program.chmod(0o755)
    monkeypatch.setattr(embedded, "_find_binary", lambda: program)
    monkeypatch.setattr("tempfile.tempdir", str(here))
    with pytest.raises(CommandError, match="did not start"), EmbeddedValkey():
        pass
    assert not list(here.glob("diptych-valkey-*"))


def test_without_its_wheel_the_embedded_valkey_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    def files(name: str) -> None:
        raise PackageNotFoundError(name)

    assert embedded_available()
    monkeypatch.setattr(embedded, "files", files)
    assert not embedded_available()
    with pytest.raises(MissingExtraError, match='the extra "embedded"'):
        EmbeddedValkey()


# diptych rebuild


class Shelf:
    """A catalogue being served, its database, and a command run beside the server with the same settings."""

    def __init__(self, server: CatalogueServer, books: Catalogue, valkey: RedisServer) -> None:
        self.server = server
        self.books = books
        self.valkey = valkey
        self.redis = redis.Redis.from_url(valkey.url)

    def change(self, *statements: str) -> None:
        """Changes rows by raw SQL, past diptych."""
        with closing(sqlite3.connect(self.server.database.removeprefix("sqlite:///"))) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    def fill(self, count: int) -> None:
        numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
        self.change(
            f"INSERT INTO books (title, author, stock_quantity) {numbers} SELECT 'B' || i, 'X', 0 FROM n"
        )

    def author(self) -> str:
        """Returns the author of Dune in a list, which is to come from Redis."""
        answer = self.books.get("/books", params={"title": "Dune"})
        assert answer.headers["cache-status"] == FROM_REDIS
        return str(answer.json()["items"][0]["author"])

    def names(self) -> set[bytes | str]:
        """Returns the names of the generations, that of the new generation of a rebuild included."""
        (key,) = self.redis.keys("*BookReadModel:*generations")
        return set(self.redis.smembers(key))

    def generations(self) -> int:
        """Returns their number."""
        return len(self.names())

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        ours = {"DIPTYCH_DATABASE_URL": self.server.database, "DIPTYCH_REDIS_URL": self.valkey.url}
        command = [*DIPTYCH, "rebuild", *arguments]
        return subprocess.Popen(
            command,
            env=environment(**{**ours, **variables}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def rebuild(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **variables)
        written, complained = process.communicate(timeout=60)
        return process.returncode, written, complained


APP = ("--app", "demo_app.app:app")


@pytest.fixture
def shelf(valkey: RedisServer) -> Iterator[Shelf]:
    """A catalogue of a single book: Dune, by B in SQL, and in Redis by A until a pass."""
    with CatalogueServer(redis=valkey.url) as server, Catalogue(server) as books:
        books.add("Dune", "A")
        server.await_cache_status(FROM_REDIS)
        shelf = Shelf(server, books, valkey)
        shelf.change("UPDATE books SET author = 'B'")
        yield shelf


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (APP, {}),
        ((), {"DIPTYCH_APP": "demo_app.app:app"}),
        (("--app", "demo_app.app:create_app"), {}),
        (("--app", "demo_app.catalogue:create_catalogue", "--factory"), {}),
    ],
)
def test_a_rebuild_brings_in_what_raw_sql_has_changed_while_the_application_serves(
    shelf: Shelf, arguments: tuple[str, ...], variables: dict[str, str]
):
    shelf.change("INSERT INTO books (title, author, stock_quantity) VALUES ('Emma', 'A', 0)")
    code, written, complained = shelf.rebuild("BookReadModel", *arguments, **variables)
    assert (code, complained) == (0, "")
    assert re.fullmatch(
        r"BookReadModel: rebuilding\nBookReadModel: rebuilt, 2 documents in \d+\.\d s\n", written
    )
    shelf.server.await_cache_status(FROM_REDIS)
    assert shelf.author() == "B"
    assert [book["title"] for book in shelf.books.get("/books").json()["items"]] == ["Dune", "Emma"]
    assert shelf.generations() == 1


def test_a_rebuild_says_now_and_then_how_far_it_is(shelf: Shelf):
    shelf.fill(10_000)
    with shelf.start("BookReadModel", *APP, DIPTYCH_REBUILD_BATCH_SIZE="1") as process:
        assert process.stdout is not None
        form = re.compile(r"BookReadModel: \d+ of 10001 documents, \d+ a second, about \d+ s left\n")
        assert any(map(form.fullmatch, process.stdout))
        process.terminate()  # there is no need to wait for the rest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_rebuild_that_is_stopped_leaves_the_old_generation_serving(shelf: Shelf, number: int):
    before = shelf.names()
    shelf.fill(5_000)
    process = shelf.start("BookReadModel", *APP, DIPTYCH_REBUILD_BATCH_SIZE="1")
    assert eventually(lambda: shelf.generations() == 2)
    process.send_signal(number)
    _, complained = process.communicate(timeout=30)
    assert (process.returncode, complained) == (128 + number, "Stopped: BookReadModel is served as before.\n")
    shelf.server.await_cache_status(FROM_REDIS)  # a pass over so many rows may outlast a lease
    assert shelf.names() == before


def test_of_two_rebuilds_at_once_one_is_told_of_the_other(shelf: Shelf):
    shelf.fill(1_500)
    both = [shelf.start("BookReadModel", *APP, DIPTYCH_REBUILD_BATCH_SIZE="1") for _ in range(2)]
    assert eventually(lambda: shelf.generations() == 3)
    complaints = [process.communicate(timeout=60)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    assert "Error: BookReadModel: another process has replaced the generation" in "".join(complaints)
    shelf.server.await_cache_status(FROM_REDIS)
    assert shelf.author() == "B"


def test_a_rebuild_is_refused_if_redis_has_not_the_memory_for_it(shelf: Shelf):
    before = shelf.names()
    shelf.fill(5_000)

    def is_all_in() -> bool:
        answer = shelf.books.get("/books", params={"limit": 1, "count": 1})
        return answer.headers["cache-status"] == FROM_REDIS and answer.json()["total"] == 5_001

    assert eventually(is_all_in)  # by a pass, which needs memory too
    used = int(shelf.redis.info("memory")["used_memory"])
    shelf.redis.config_set("maxmemory", used + 500_000)
    try:
        code, _, complained = shelf.rebuild("BookReadModel", *APP)
    finally:
        shelf.redis.config_set("maxmemory", 0)
    assert code == 1
    assert complained.startswith(
        "Error: BookReadModel: Redis has not the memory for a second generation, about "
    )
    assert "raise it" in complained
    assert shelf.author() == "B"
    assert shelf.names() == before


def test_a_rebuild_fails_while_redis_is_away(shelf: Shelf):
    shelf.valkey.stop()
    code, _, complained = shelf.rebuild("BookReadModel", *APP)
    assert code == 1
    assert complained.startswith(f"Error: Redis at redis://{HOST}:{shelf.valkey.port}/0 can't be used: ")
    assert len(complained.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["BookReadModl", *APP], 'there is no read model "BookReadModl"; did you mean "BookReadModel"?'),
        (
            ["Orders", *APP],
            'there is no read model "Orders": there are BookReadModel, BookDetailReadModel, TagReadModel',
        ),
        (["BookReadModel", *APP], "REDIS_URL: is not set"),
        (["BookReadModel", "--app", "demo_app.app:STATIC"], 'there is no Diptych in "demo_app.app:STATIC"'),
        (["BookReadModel", "--app", "demo_app.app:ap"], '"demo_app.app" has no "ap"; did you mean "app"?'),
        (["BookReadModel", "--app", "demo_app"], '"demo_app" must have the form module:attribute'),
        (["BookReadModel", *APP, "--factory"], '"demo_app.app:app" cannot be called: leave --factory out'),
    ],
)
def test_a_rebuild_that_was_asked_for_wrongly_changes_nothing(here: Path, arguments: list[str], problem: str):
    done = subprocess.run(
        [*DIPTYCH, "rebuild", *arguments], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {problem}")
    assert not (here / "diptych.db").exists()


def test_a_rebuild_without_an_application_says_how_to_name_it():
    code, written = run("rebuild", "BookReadModel")
    assert code == 2
    assert "--app" in written


def test_a_rebuild_of_an_application_that_cannot_be_imported_shows_where():
    code, written = run("rebuild", "BookReadModel", "--app", "broken:app")
    assert code == 1
    assert written.startswith("Error: Traceback")
    assert "No module named 'no_such_package_anywhere'" in written
    assert "diptych/cli" not in written


# serve() and the other commands


def program_of(statements: str) -> list[str]:
    guarded = textwrap.indent(textwrap.dedent(statements), "    ")
    Path("program.py").write_text(
        f"from diptych.cli import serve, server\nif __name__ == '__main__':\n{guarded}"
    )
    return [sys.executable, "-u", "program.py"]


def test_an_application_with_a_command_of_its_own_calls_serve():
    command = program_of("""
        serve("tiny:app", port=0, workers=2, redis="none", announce=print)
        print("and it returned")
    """)
    with running(command=command) as served:
        assert served.announced.startswith("Serving(target='tiny:app', url='http://127.0.0.1:")
        assert served.announced.endswith("workers=2, redis=None, asked='none')\n")
        assert served.ask()["DIPTYCH_WORKERS"] == "2"
        code, written = served.end()
        assert code == 0
        assert "and it returned" in written


def test_what_is_to_be_prepared_is_done_before_the_workers_start_and_only_if_they_can():
    statements = """
        serve("tiny:app", port={port}, announce=print, prepare=lambda: print("prepared"))
    """
    with running(command=program_of(statements.format(port=0))) as served:
        assert served.end()[0] == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = program_of(statements.format(port=taken.getsockname()[1]))
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_worker_that_does_not_stop_is_killed_in_the_end():
    command = program_of("""
        server.STOP_TIMEOUT_S = 0.5
        serve("tiny:stuck", port=0)
    """)
    with running(command=command) as served:
        assert served.end()[0] == 0
        assert refuses(served.url)


def test_a_port_that_is_taken_at_the_last_moment_is_reported_like_any_other():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = program_of(f"""
            server.free_address = lambda host, port: ("127.0.0.1", {taken.getsockname()[1]})
            serve("tiny:app")
        """)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert re.fullmatch(
        r"Error: cannot listen at http://127\.0\.0\.1:\d+: Address already in use.*\n", done.stderr
    )


@pytest.mark.parametrize("package", ["rich_click", "granian"])
def test_a_missing_package_of_the_extra_is_named_without_a_traceback(package: str):
    program = (
        f"import sys; sys.modules['{package}'] = None; sys.argv = ['diptych', 'run', 'tiny:app', '--port', '0']; "
        "from diptych.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert f'needs the package "{package}"' in done.stderr
    assert 'install diptych with the extra "cli"' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def some_settings(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "diptych.toml").write_text("workers = 3\nshop_token = 'hunter3'")
    monkeypatch.setenv("DIPTYCH_REDIS_URL", "redis://:hunter2@cache")


@pytest.mark.usefixtures("some_settings")
def test_settings_explains_every_setting_and_tells_where_it_comes_from():
    code, written = run("settings")
    assert code == 0
    assert re.findall(r"^([A-Z_0-9]+) = ", written, re.MULTILINE) == [
        *(setting.name for setting in SETTINGS),
        "SHOP_TOKEN",
    ]
    assert "\nWORKERS = 3  (file diptych.toml)\n    Processes that serve the application." in written
    assert "\n    A whole number from 1 to 1000. By default 1. DIPTYCH_WORKERS\n" in written
    assert "\nREDIS_URL = redis://:***@cache  (environment)\n" in written
    assert "\nLOG_RETENTION_DAYS = none  (default)\n" in written
    assert "hunter" not in written
    assert max(map(len, written.splitlines())) <= 100


@pytest.mark.usefixtures("some_settings")
def test_settings_tells_programs_the_same():
    code, written = run("settings", "--json")
    rows = {row["name"]: row for row in json.loads(written)}
    assert code == 0
    assert rows["WORKERS"] == {
        "name": "WORKERS",
        "value": "3",
        "from": "file diptych.toml",
        "default": "1",
        "type": "a whole number from 1 to 1000",
        "variable": "DIPTYCH_WORKERS",
        "meaning": "Processes that serve the application. `diptych run --workers` sets it for them.",
    }
    assert [row["meaning"] for row in rows.values()][: len(SETTINGS)] == [setting.doc for setting in SETTINGS]
    assert "hunter" not in written


def test_settings_are_emphasized_in_a_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, written = run("settings")
    assert code == 0
    assert "\x1b[1mWORKERS\x1b[0m = 1" in written


def test_help_and_version():
    code, written = run("--help")
    assert code == 0
    assert re.search(r"run\s+Serve an ASGI application", written)
    assert re.search(r"rebuild\s+Build a read model anew", written)
    assert re.search(r"settings\s+Show every setting", written)
    code, written = run("run", "--help")
    assert code == 0
    for option in ("--host", "--port", "--workers", "--redis", "--factory", "--access-log", "--reload"):
        assert option in written
    code, written = run("--version")
    assert (code, written.split()[0]) == (0, "diptych")


def test_an_unknown_command_is_refused_with_what_was_meant():
    code, written = run("rum")
    assert code == 2
    assert "run" in written
