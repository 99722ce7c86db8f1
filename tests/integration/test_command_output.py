"""What commands write where a character, a reader or a terminal is not there: the outcome is told all the same."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.books import AddBook
from tests.catalogue import answered_by, catalogue
from tests.servers import HOST

ROOT = Path(__file__).parents[2]
COMMAND = f"{sys.executable} -m diptych.cli"
LATIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def environment(url: str, **variables: str) -> dict[str, str]:
    """Ours, with this database, and without other settings of diptych."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DIPTYCH_")}
    settings = {"DIPTYCH_DATABASE_URL": url, "DIPTYCH_APP": "tests.books:create_books"}
    return {**ours, **settings, "COLUMNS": "200", **variables}


async def shell(url: str, script: str, **variables: str) -> tuple[int, str, str]:
    """Runs a script, in which ``diptych`` is the command; returns its exit code and what was written."""
    running = await asyncio.create_subprocess_exec(
        *("bash", "-c", f'diptych() {{ {COMMAND} "$@"; }}\n{script}'),
        cwd=ROOT,
        env=environment(url, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    written, complained = await asyncio.wait_for(running.communicate(), 60)
    return running.returncode or 0, written.decode("latin-1"), complained.decode("latin-1")


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, LATIN])
async def test_a_character_that_the_encoding_lacks_is_escaped_and_json_stays_json(sqlite_url, variables):
    async with catalogue(sqlite_url) as app:
        await app.execute(AddBook("Émile 三体", "Jean-Jacques Rousseau"))
    code, written, complained = await shell(sqlite_url, "diptych log show 1", **variables)
    assert (code, complained) == (0, "")
    assert r"mile \u4e09\u4f53" in written
    code, written, _ = await shell(sqlite_url, "diptych log show 1 --json", **variables)
    assert json.loads(written)["new"]["title"] == "Émile 三体"
    code, _, complained = await shell(sqlite_url, "diptych rebuild 三体", **variables)
    assert (code, "Traceback" in complained) == (2, False)
    assert 'there is no read model "' in complained


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("--help", 0),
        ("--version", 0),
        ("settings", 0),
        ("status", 0),
        ("status --json", 0),
        ("check", 0),
        ("migrate --sql", 0),
        ("log tail", 0),
        ("log show 2", 0),
        ("log show 9", 1),
        ("rebuild Unknown", 2),
    ],
)
async def test_output_that_nobody_reads_changes_nothing(sqlite_url, command, code):
    """Closed by its reader, closed before the command has begun, or both closed."""
    async with catalogue(sqlite_url) as app:
        for title in ("Dune", "Emma"):
            await app.execute(AddBook(title, "A. N. Other"))
    status = "echo ${PIPESTATUS[0]}"
    for script in (
        f"diptych {command} 2>&1 | true; {status}",
        f"diptych {command} >&- 2>/dev/null; {status}",
        f"diptych {command} >&- 2>&-; {status}",
    ):
        assert await shell(sqlite_url, script) == (0, f"{code}\n", ""), script


async def test_a_disk_that_is_full_is_told_with_an_exit_code_of_its_own(sqlite_url):
    async with catalogue(sqlite_url) as app:
        await app.execute(AddBook("Dune", "Frank Herbert"))
    for command in ("log show 1", "status --json", "settings", "--help"):
        code, _, complained = await shell(sqlite_url, f"diptych {command} >/dev/full")
        assert (code, complained) == (74, "Error: not all could be written: No space left on device\n")
    assert (await shell(sqlite_url, "diptych log show 7 >/dev/full"))[0] == 1
    assert (await shell(sqlite_url, "diptych log tail --follow >/dev/full"))[0] == 74, (
        "it does not go on in vain"
    )


async def test_a_rebuild_whose_reader_has_gone_is_done_all_the_same(sqlite_url, valkey):
    async with catalogue(sqlite_url, valkey.url, lease_ms=5000) as app:
        await answered_by(app, "redis")
        script = "diptych rebuild BookReadModel | true; echo ${PIPESTATUS[0]}"
        assert await shell(sqlite_url, script, DIPTYCH_REDIS_URL=valkey.url) == (0, "0\n", "")
        # What is forced to have colours has no bar for it.
        code, written, _ = await shell(
            sqlite_url, "diptych rebuild BookReadModel", DIPTYCH_REDIS_URL=valkey.url, FORCE_COLOR="1"
        )
        assert (code, "\x1b" in written) == (0, False)
        assert written.startswith("BookReadModel: rebuilding\nBookReadModel: rebuilt, 0 documents in ")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("status", 130),
        ("check", 130),
        ("log tail", 130),
        ("log show 1", 130),
        ("log tail -f", 0),
        ("migrate", 130),
    ],
)
async def test_ctrl_c_while_sql_hangs_is_told_by_the_exit_code(command, code):
    """A server that accepts a connection and never answers."""
    with closing(socket.create_server((HOST, 0))) as server:
        server.setblocking(False)
        url = f"postgresql://shop@{HOST}:{server.getsockname()[1]}/shop"
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "diptych.cli", *command.split()),
            cwd=ROOT,
            env=environment(url, DIPTYCH_DATABASE_TIMEOUT_MS="60000"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        loop = asyncio.get_running_loop()
        client, _ = await asyncio.wait_for(loop.sock_accept(server), 60)
        with closing(client):
            running.send_signal(signal.SIGINT)
            written, complained = await asyncio.wait_for(running.communicate(), 30)
    assert (running.returncode, written) == (code, b"")
    assert complained == (b"Stopped.\n" if code else b"")


@pytest.mark.parametrize("columns", ["0", "1", "4", "5"])
async def test_settings_are_shown_on_a_terminal_of_any_width(sqlite_url, columns):
    code, written, complained = await shell(sqlite_url, "diptych settings", COLUMNS=columns)
    assert (code, complained) == (0, "")
    assert "LEASE_MS" in written


def on_a_terminal(url: str, *arguments: str, **variables: str) -> tuple[int, str]:
    """Runs a command on a terminal of its own; returns its exit code and what it wrote."""
    leader, terminal = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "diptych.cli", *arguments],
        cwd=ROOT,
        env=environment(url, TERM="xterm", **variables),
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    parts = []
    try:
        while part := os.read(leader, 4096):
            parts.append(part)
    except OSError:  # so Linux says that the other end is closed
        pass
    os.close(leader)
    return running.wait(30), b"".join(parts).decode()


async def test_a_rebuild_shows_a_bar_on_a_terminal(sqlite_url, valkey):
    async with catalogue(sqlite_url, valkey.url, lease_ms=5000) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("Dune", "Frank Herbert"))
        code, written = await asyncio.to_thread(
            on_a_terminal, sqlite_url, "rebuild", "BookReadModel", DIPTYCH_REDIS_URL=valkey.url
        )
    assert (code, "\x1b[" in written) == (0, True)
    assert re.search(r"1 of 1 documents, \d+ a second, about 0 s left", written)
    assert "BookReadModel: rebuilt, 1 documents in " in written
