"""``diptych run`` says what is true of Redis, logs in one form, and starts anew when a source file is changed."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diptych import ConfigurationError, configure_logging
from tests.servers import RedisServer

ROOT = Path(__file__).parents[2]
DIPTYCH = [sys.executable, "-m", "diptych.cli"]

SHOP = """
    import contextlib, logging
    from sqlalchemy.orm import DeclarativeBase
    from diptych import ConfigService, Diptych

    class Base(DeclarativeBase): ...

    def served_by(*diptychs):
        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                async with contextlib.AsyncExitStack() as exits:
                    for diptych in diptychs:
                        await exits.enter_async_context(diptych)
                    await send({"type": "lifespan.startup.complete"})
                    await receive()
                await send({"type": "lifespan.shutdown.complete"})
                return
            logging.getLogger("shop").info("asked for %s", scope["path"])
            logging.getLogger("alembic.runtime.migration").info("Running upgrade 1 -> 2")
            logging.getLogger("sqlalchemy.engine.Engine").info("SELECT secret")
            if scope["path"] == "/faulty":
                try:
                    raise ValueError("one\\n2026-01-01 00:00:00.000Z ERROR forged")
                except ValueError:
                    logging.getLogger("litestar").exception("a fault\\x1b[2J", extra={"answer": 42})
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"NAME"})
        return app

    def diptych(**values):
        return Diptych(ConfigService(database_url="shop.db", **values), models=Base, handlers=[])

    obedient = served_by(diptych())
    stubborn = served_by(diptych(redis_url="redis://:hunter2@127.0.0.1:1/3"))
    without = served_by(diptych(redis_url=None))
    divided = served_by(diptych(), diptych(redis_url="none"))
"""


class Run:
    """A server and the lines that it writes, as they come."""

    def __init__(self, *arguments: str, command: list[str] | None = None) -> None:
        command = command or [*DIPTYCH, "run", *arguments, "--port", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self.lines: list[str] = []
        self._coming: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as written:
            for line in written:
                self._coming.put(line.removesuffix("\n"))
        self._coming.put(None)

    def kill(self) -> None:
        """Ends it, if it has not ended, and waits for the last line."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._reader.join(10)

    def line(self, pattern: str) -> str:
        """Returns the next line in which the pattern is found."""
        while (line := self._coming.get(timeout=30)) is not None:
            self.lines.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError("\n".join(["it ended without such a line:", *self.lines]))

    def url(self) -> str:
        found: str = re.findall(r"http://[\d.]+:\d+", self.line("Serving "))[0]
        return found

    def end(self, code: int = 0) -> list[str]:
        """Stops the server, which ends with ``code``, and returns the lines that are left."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == code
        rest = list(iter(lambda: self._coming.get(timeout=10), None))
        return [line for line in rest if line is not None]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an application."""
    (tmp_path / "shop.py").write_text(textwrap.dedent(SHOP))
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DIPTYCH_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    """Runs that are ended after the test, whatever becomes of it."""
    started: list[Run] = []
    yield started
    for run in started:
        run.kill()


def started(runs: list[Run], *arguments: str, command: list[str] | None = None) -> Run:
    runs.append(Run(*arguments, command=command))
    return runs[-1]


def ask(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        found: str = answer.read().decode()
    return found


# Redis


@pytest.mark.parametrize(
    ("target", "choice", "announced"),
    [
        ("obedient", "embedded", "(1 worker, embedded Valkey)"),
        ("obedient", "none", "(1 worker, no Redis)"),
        ("obedient", None, "(1 worker, no Redis)"),
        ("stubborn", None, "(1 worker, redis://:***@127.0.0.1:1/3)"),
        ("stubborn", "embedded", "(1 worker, redis://:***@127.0.0.1:1/3)"),
        ("without", "embedded", "(1 worker, no Redis)"),
        ("divided", "embedded", "(1 worker, none and embedded)"),
    ],
)
def test_the_announcement_names_the_redis_that_the_application_uses(
    target: str, choice: str | None, announced: str, runs: list[Run]
):
    run = started(runs, f"shop:{target}", *(("--redis", choice) if choice else ()))
    assert announced in run.line("Serving ")
    written = [*run.lines, *run.end()]
    warnings = [line for line in written if "is not what" in line]
    is_another = target != "obedient" and choice is not None
    assert len(warnings) == is_another
    if is_another:
        url = "redis://:***@127.0.0.1:1/3" if target == "stubborn" else "none"
        assert f"--redis embedded is not what shop:{target} uses" in warnings[0]
        assert f"has the REDIS_URL {url} (argument). Leave it out there, or" in warnings[0]
    assert "hunter2" not in "".join(written)


# Log lines

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z"


def test_lines_of_all_loggers_have_one_form_with_worker_and_process(runs: list[Run]):
    run = started(runs, "shop:obedient", "--access-log")
    url = run.url()
    ask(f"{url}/faulty")
    worker = r"\[worker 1, process \d+\]"
    run.line(rf"^{TIME} INFO shop {worker}: asked for /faulty$")
    run.line(rf"^{TIME} INFO alembic\.runtime\.migration {worker}: Running upgrade 1 -> 2$")
    run.line(rf"^{TIME} ERROR litestar {worker}: a fault\\x1b\[2J$")
    run.line(r"^    2026-01-01 00:00:00\.000Z ERROR forged$")
    run.line(rf'^{TIME} INFO granian\.access {worker}: 127\.0\.0\.1 "GET /faulty HTTP/1\.1" 200 \d+\.\d ms$')
    rest = run.end()
    assert re.fullmatch(
        rf"{TIME} INFO diptych\.server \[process {run.process.pid}\]: stopped shop:obedient \(SIGTERM\)",
        rest[-1],
    )
    assert "SELECT secret" not in "".join([*run.lines, *rest])
    assert "setup plugin" not in "".join([*run.lines, *rest])  # which newer versions of Alembic say


@pytest.mark.parametrize("by", ["option", "setting"])
def test_json_has_an_object_on_each_line(by: str, runs: list[Run], here: Path):
    if by == "setting":
        (here / "diptych.toml").write_text('log_format = "json"')
    run = started(
        runs, "shop:obedient", "--access-log", *(("--log-format", "json") if by == "option" else ())
    )
    first = json.loads(run.line("Serving "))
    assert first["fields"]["target"] == "shop:obedient"
    request = urllib.request.Request(f"{first['fields']['url']}/faulty", headers={"X-Request-Id": "r-1"})  # noqa: S310
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310
    run.line("granian.access")
    lines = [*run.lines, *run.end()]
    found: dict[str, dict[str, Any]] = {line["logger"]: line for line in map(json.loads, lines)}
    fault = found["litestar"]
    assert (fault["level"], fault["message"], fault["worker"]) == ("ERROR", "a fault\x1b[2J", 1)
    assert fault["fields"] == {"answer": 42}
    assert fault["exception"].startswith("Traceback (most recent call last):\n")
    assert fault["process"] != run.process.pid
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fault["time"])
    access = found["granian.access"]["fields"]
    assert (access["method"], access["path"], access["status"]) == ("GET", "/faulty", 200)
    assert found["diptych.server"]["message"] == "stopped shop:obedient (SIGTERM)"


ODD = """
    import contextlib, logging, threading, warnings

    class Odd:
        def __str__(self):
            raise ValueError("no text")

    class Odder(Odd):
        __repr__ = Odd.__str__

    class Undying:
        def __del__(self):
            raise ValueError("undying")

    around = {}
    around["again"] = around
    warnings.warn("outdated\\nsecond line")

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["path"] == "/boom":
            raise RuntimeError("line 1\\nline 2")
        log = logging.getLogger("odd")
        log.info("keys", extra={"c": {(1, 2): 3}, "plain": [1]})
        log.info("around", extra={"c": around})
        log.info("number", extra={"c": float("nan")})
        log.info("text", extra={"c": Odd(), "d": Odder()})
        log.info("said %(a)s", {"a": Odd()})
        log.info("said %d", "one")
        thread = threading.Thread(target=lambda: 1 / 0, name="of the shop")
        thread.start()
        thread.join()
        Undying()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
"""


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_line_is_lost_and_each_has_the_one_form_whatever_is_in_it(form: str, runs: list[Run], here: Path):
    (here / "odd.py").write_text(textwrap.dedent(ODD))
    run = started(runs, "odd:app", "--log-format", form)
    url: str = re.findall(r"http://[\d.]+:\d+", run.line("Serving odd:app"))[0]
    ask(url)
    lines = [line for line in [*run.lines, *run.end()] if not line.startswith("Serving ")]
    if form == "text":
        assert all(re.match(rf"{TIME} |    ", line) for line in lines), lines
        return
    found = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    of_shop = {line["message"]: line.get("fields") for line in found if line["logger"] == "odd"}
    assert of_shop["keys"] == {"c": "{(1, 2): 3}", "plain": [1]}
    assert of_shop["around"] == {"c": "{'again': {...}}"}
    assert of_shop["number"] == {"c": "nan"}
    assert of_shop["text"]["c"].startswith("<odd.Odd object at ")
    assert of_shop["text"]["d"] == "<Odder>"
    assert of_shop["'said %d' % ('one',)"] is None
    [said] = [text for text in of_shop if text.startswith("'said %(a)s' % {'a': <odd.Odd object at ")]
    assert of_shop[said]["a"].startswith("<odd.Odd object at ")
    python = {line["logger"]: line for line in found if line["logger"].startswith("py.")}
    assert "UserWarning: outdated\nsecond line" in python["py.warnings"]["message"]
    assert "of the shop" in python["py.threads"]["message"]
    assert "ZeroDivisionError" in python["py.threads"]["exception"]
    assert "ValueError: undying" in python["py.unraisable"]["exception"]


def test_an_error_of_a_request_is_logged_once_with_the_request_and_its_traceback(runs: list[Run], here: Path):
    (here / "odd.py").write_text(textwrap.dedent(ODD))
    run = started(runs, "odd:app", "--log-format", "json")
    url: str = re.findall(r"http://[\d.]+:\d+", run.line("Serving odd:app"))[0]
    request = urllib.request.Request(f"{url}/boom", headers={"X-Request-Id": "r-7"})  # noqa: S310
    with pytest.raises(urllib.error.HTTPError, match="500"):
        urllib.request.urlopen(request, timeout=10)  # noqa: S310
    lines = [json.loads(line) for line in [*run.lines, *run.end()]]
    [failed] = [line for line in lines if line["level"] == "ERROR"]
    assert (failed["logger"], failed["message"]) == ("diptych.server", "GET /boom failed")
    assert failed["request"] == "r-7"
    assert failed["exception"].startswith("Traceback (most recent call last):\n")
    assert failed["exception"].endswith("RuntimeError: line 1\nline 2")


@pytest.mark.parametrize("by", ["option", "variable"])
def test_why_nothing_can_be_served_is_logged_in_the_form_too(
    by: str, runs: list[Run], here: Path, monkeypatch: pytest.MonkeyPatch
):
    (here / "broken.py").write_text("raise ValueError('first\\nsecond')")
    if by == "variable":
        monkeypatch.setenv("DIPTYCH_LOG_FORMAT", "json")
    chosen = ("--log-format", "JSON") if by == "option" else ()
    for arguments, code, text in (
        (("broken:app",), 1, "broken:app cannot start:\nTraceback (most recent call last):\n"),
        (("nowhere:app",), 2, 'there is no module "nowhere"'),
        (("shop:obedient", "--redis", "ftp://x"), 2, "--redis: must"),
    ):
        run = started(runs, *arguments, *chosen)
        line = json.loads(run.line("."))
        assert run.process.wait(30) == code
        assert (line["level"], line["logger"]) == ("CRITICAL", "diptych.server")
        assert line["message"].startswith(text)
        run.kill()
        assert run.lines == [json.dumps(line)]


def test_the_level_is_that_of_all_loggers_but_those_that_tell_too_much(runs: list[Run]):
    run = started(runs, "shop:obedient", "--log-level", "error")
    ask(f"{run.url()}/faulty")
    run.line("ERROR litestar")
    written = [*run.lines, *run.end()]
    assert not [line for line in written if " INFO " in line]
    run = started(runs, "shop:obedient", "--log-level", "debug")
    ask(f"{run.url()}/faulty")
    run.line("INFO alembic")
    run.line("ERROR litestar")
    assert "SELECT secret" not in "".join([*run.lines, *run.end()])


def test_workers_are_told_apart(runs: list[Run]):
    run = started(runs, "shop:obedient", "--workers", "2")
    url = run.url()
    seen = set()
    for _ in range(400):
        ask(url)
        seen.add(re.findall(r"worker \d", run.line("INFO shop"))[0])
        if len(seen) == 2:
            break
    assert seen == {"worker 1", "worker 2"}


WITH_LITESTAR = """
    from litestar import Litestar, Request, get
    from litestar.logging.config import LoggingConfig
    from diptych.ext.litestar import DiptychPlugin, asgi_app
    from shop import diptych

    @get("/")
    async def home(request: Request) -> str:
        request.logger.info("from a handler")
        return ""

    def served(**options):
        plugins = [DiptychPlugin(diptych())]
        return asgi_app(Litestar([home], plugins=plugins, openapi_config=None, **options))

    plain = served()
    FORMATTERS = {"standard": {"format": "theirs: %(message)s"}}
    chosen = served(logging_config=LoggingConfig(formatters=FORMATTERS))
"""


@pytest.mark.parametrize("chooses", [False, True])
def test_litestar_leaves_the_form_alone_unless_the_application_chooses_another(
    chooses: bool, runs: list[Run], here: Path
):
    text = textwrap.dedent(WITH_LITESTAR)
    (here / "web.py").write_text(text if chooses else text.partition("FORMATTERS")[0])
    run = started(runs, f"web:{'chosen' if chooses else 'plain'}")
    ask(run.url())
    line = run.line("from a handler")
    if chooses:
        assert line == "theirs: from a handler"
    else:
        assert re.fullmatch(rf"{TIME} INFO root \[worker 1, process \d+\]: from a handler", line)
    run.end()


# Reload


def test_a_changed_source_file_starts_the_workers_anew(runs: list[Run], here: Path):
    run = started(runs, "shop:obedient", "--reload", "--redis", "embedded")
    url = run.url()
    assert ask(url) == "NAME"
    source = (here / "shop.py").read_text()
    (here / "shop.py").write_text(source.replace("NAME", "Other"))
    assert str(here / "shop.py") in run.line("the workers start anew")
    run.line("has started anew")
    assert ask(url) == "Other"

    (here / "shop.py").write_text("this is no Python")
    run.line("ERROR diptych.server .*shop:obedient cannot start:")
    run.line("SyntaxError")
    run.line("The next change of a file starts it again")
    (here / "shop.py").write_text(source.replace("NAME", "Third"))
    run.line("has started anew")
    assert ask(url) == "Third"
    assert [line for line in run.end() if "stopped shop:obedient (SIGTERM)" in line]


def test_a_start_anew_is_told_once_whatever_the_number_of_workers(runs: list[Run], here: Path):
    run = started(runs, "shop:obedient", "--reload", "--workers", "2", "--redis", "none")
    run.url()
    source = (here / "shop.py").read_text()
    for text, told in (("this is no Python", "The next change"), (source, "has started anew")):
        time.sleep(5)  # both workers have told how they started
        (here / "shop.py").write_text(text)
        run.line("the workers start anew")
        run.line(told)
    time.sleep(5)
    lines = [*run.end(), *run.lines]
    for told in ("has started anew", "cannot start", "The next change"):
        assert len([line for line in lines if told in line]) == 1, lines


def test_a_start_that_fails_waits_for_a_change_and_changes_of_the_database_are_none(
    runs: list[Run], here: Path
):
    source = (here / "shop.py").read_text()
    (here / "shop.py").write_text("import no_such_package_anywhere")
    run = started(runs, "shop:obedient", "--reload")
    run.line("The next change of a file starts it again")
    (here / "shop.py").write_text(source)
    url = run.url()
    (here / "shop.db-journal").write_text("changed")
    (here / "notes.txt").write_text("changed")
    assert ask(url) == "NAME"
    (here / "diptych.toml").write_text("lease_ms = 500")
    line = run.line("the workers start anew")
    assert "diptych.toml" in line
    assert "shop.db" not in line
    assert "notes" not in line
    run.line("has started anew")
    run.end()


LATE = """
    import sys, threading, time
    import watchfiles

    real = watchfiles.watch

    def late(*arguments, **options):
        time.sleep(3)
        yield from real(*arguments, **options)

    def written():
        while True:
            open("shop.db-journal", "w").close()
            time.sleep(0.01)

    threading.Thread(target=written, daemon=True).start()
    watchfiles.watch = late
    sys.argv = ["diptych", "run", "shop:obedient", "--port", "0", "--reload"]
    from diptych.cli import main
    main()
"""


def test_a_change_before_the_watch_has_begun_is_not_missed(runs: list[Run], here: Path):
    """On a busy machine a start can fail, and its source be mended, before the main thread goes on.

    Meanwhile a database in the directory is written all the time.
    """
    source = (here / "shop.py").read_text()
    (here / "shop.py").write_text("import no_such_package_anywhere")
    run = started(runs, command=[sys.executable, "-c", textwrap.dedent(LATE)])
    run.line("The next change of a file starts it again")
    (here / "shop.py").write_text(source)
    assert ask(run.url()) == "NAME"
    run.end()


def test_reload_without_its_package_names_the_extra():
    program = (
        "import sys; sys.modules['watchfiles'] = None; "
        "sys.argv = ['diptych', 'run', 'shop:obedient', '--port', '0', '--reload']; "
        "from diptych.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert 'needs the package "watchfiles"' in done.stderr
    assert "Traceback" not in done.stderr


# Under another server

UNDER_UVICORN = """
    from diptych import Diptych, configure_logging
    from tests.books import Base, BookCommandHandler, BookQueryHandler, BookReadModel

    shop = Diptych(models=Base, handlers=[BookCommandHandler, BookQueryHandler], read_models=[BookReadModel])
"""
SITES = {
    "litestar": """
    from litestar import Litestar
    from diptych.ext.litestar import DiptychPlugin, asgi_app

    app = asgi_app(Litestar([], plugins=[DiptychPlugin(shop)], openapi_config=None, logging_config=None))
    """,
    "fastapi": """
    from fastapi import FastAPI
    from diptych.ext.fastapi import install

    app = FastAPI()
    install(app, shop)
    """,
}


@pytest.mark.parametrize(
    ("framework", "configured"), [("litestar", True), ("litestar", False), ("fastapi", False)]
)
def test_lines_are_seen_under_uvicorn_too(
    framework: str,
    configured: bool,
    runs: list[Run],
    here: Path,
    valkey: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
):
    text = textwrap.dedent(UNDER_UVICORN) + textwrap.dedent(SITES[framework])
    (here / "web.py").write_text(text + ('configure_logging("info", "json")\n' if configured else ""))
    (here / "diptych.toml").write_text(f'redis_url = "{valkey.url}"')
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run = started(runs, command=[sys.executable, "-m", "uvicorn", "web:app", "--port", "0"])
    run.line("diptych's own tables are at version")
    run.line("BookReadModel: rebuilt, 0 documents")
    written = [*run.lines, *run.end(code=-signal.SIGTERM)]
    text = "\n".join(written)
    assert "Application startup complete" in text
    assert "Running upgrade" not in text, "versions of diptych's own tables look like the application's"
    if configured:
        found = list(map(json.loads, written))
        assert {each["logger"] for each in found} >= {"uvicorn.error", "diptych.hinge", "diptych.write"}
        assert {each["process"] for each in found} == {run.process.pid}
    else:
        assert re.search(rf"^{TIME} INFO diptych\.hinge \[process {run.process.pid}\]: ", text, re.MULTILINE)


def test_the_lines_that_are_shown_by_default_end_where_logging_is_configured(here: Path):
    program = """
        import logging, sys
        from diptych import ConfigService
        from diptych.config.logs import show_unless_configured

        log = logging.getLogger("diptych.shop")
        log.info("unseen")
        for _ in range(2):
            show_unless_configured(ConfigService().settings)
        log.info("seen")
        logging.basicConfig(format="theirs: %(message)s", level="INFO")
        log.info("once")
        show_unless_configured(ConfigService().settings)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )
    first, second = done.stderr.splitlines()
    assert first.endswith("]: seen")
    assert second == "theirs: once"


def test_a_level_or_format_that_is_none_is_refused():
    with pytest.raises(
        ConfigurationError, match="level: must be one of debug, info, warning, error, critical"
    ):
        configure_logging("loud")
    with pytest.raises(ConfigurationError, match="format: must be one of text, json"):
        configure_logging(format="xml")
