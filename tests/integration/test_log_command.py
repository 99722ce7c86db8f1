"""``diptych log tail`` and ``diptych log show``: entries of the change log, for people and for programs."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from diptych.cli.commands.log import shown
from diptych.log.browse import EntryValues, LogEntry
from tests.books import AddBook, BookChanges, DeleteBook, EditBook
from tests.catalogue import catalogue, eventually
from tests.programs import Foreign, books_table

ROOT = Path(__file__).parents[2]
PYTHON = [sys.executable, "-m", "diptych.cli", "log"]


def environment(url: str) -> dict[str, str]:
    """Ours, with this database, and without other settings of diptych."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DIPTYCH_")}
    return {**ours, "DIPTYCH_DATABASE_URL": url, "DIPTYCH_APP": "tests.books:create_books", "COLUMNS": "200"}


async def log(url: str, *arguments: str) -> tuple[int, str, str]:
    """Runs the command; returns its exit code, what it wrote, and what it complained of."""
    running = await asyncio.create_subprocess_exec(
        *(*PYTHON, *arguments), cwd=ROOT, env=environment(url), stdout=-1, stderr=-1
    )
    written, complained = await asyncio.wait_for(running.communicate(), 60)
    assert running.returncode is not None
    return running.returncode, written.decode(), complained.decode()


async def told(url: str, *arguments: str) -> str:
    """Returns what the command wrote; it succeeded, and did not complain."""
    code, written, complained = await log(url, *arguments)
    assert (code, complained) == (0, "")
    return written


async def entries(url: str, *arguments: str) -> list[dict[str, Any]]:
    """Returns the entries that the command writes in JSON, one on each line."""
    return [json.loads(line) for line in (await told(url, "tail", "--json", *arguments)).splitlines()]


async def test_the_newest_entries_are_shown_with_the_newest_last(database_url):
    async with catalogue(database_url) as app:
        for title in ("Dune", "Emma", "Ulysses"):
            await app.execute(AddBook(title, "A. N. Other"))
    await _raw(database_url, "UPDATE books SET stock_quantity = 3 WHERE title = 'Dune'")
    written = await told(database_url, "tail", "-n", "3")
    by = r"  by \w+" if database_url.startswith("postgresql") else ""
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z"
    expected = rf"""     2  {time}  created  books 2  command [0-9a-f-]{{36}}
     3  {time}  created  books 3  command [0-9a-f-]{{36}}
     4  {time}  updated  books 1{by}
"""
    assert re.fullmatch(expected, written), written
    found = await entries(database_url)
    assert [entry["position"] for entry in found] == [1, 2, 3, 4]
    assert set(found[0]) == set(LogEntry.__struct_fields__)
    assert (found[0]["kind"], found[0]["entity"], found[0]["table"]) == ("created", "Book", "books")
    assert (found[3]["kind"], found[3]["row"], found[3]["command_id"]) == ("updated", "1", None)
    assert isinstance(found[0]["transaction"], int) == database_url.startswith("postgresql")
    assert found[0]["recorded_at"].endswith(("Z", "+00:00"))


async def test_an_entry_is_shown_with_the_values_before_and_after(database_url):
    async with catalogue(database_url) as app:
        await app.execute(AddBook("Dune", "Frank Herbert", stock_quantity=2))
        await app.execute(EditBook("Dune", BookChanges(title="Dune Messiah", stock_quantity=5)))
        await app.execute(DeleteBook("Dune Messiah"))
    written = await told(database_url, "show", "2")
    for line in (
        r"position     2",
        r"change       updated",
        r"entity       Book",
        r"row          books 1",
        r"command      [0-9a-f-]{36}",
        r'title           "Dune" -> "Dune Messiah"',
        r"stock_quantity  2 -> 5",
        r'author          "Frank Herbert"',
        r"isbn            null",
    ):
        assert re.search(f"^{line}$", written, re.MULTILINE), (line, written)
    found = json.loads(await told(database_url, "show", "2", "--json"))
    assert set(found) == {*LogEntry.__struct_fields__, "old", "new"}
    assert (found["old"]["title"], found["new"]["title"]) == ("Dune", "Dune Messiah")
    assert (found["old"]["stock_quantity"], found["new"]["stock_quantity"]) == (2, 5)
    created = json.loads(await told(database_url, "show", "1", "--json"))
    assert (created["old"], created["new"]["author"]) == (None, "Frank Herbert")
    deleted = json.loads(await told(database_url, "show", "3", "--json"))
    assert (deleted["old"]["stock_quantity"], deleted["new"]) == (5, None)


async def test_after_a_change_by_a_program_the_values_before_are_not_guessed(database_url):
    """Its entry has no image: what the row was before the next change, the log does not say."""
    async with catalogue(database_url) as app:
        await app.execute(AddBook("Dune", "Frank Herbert", stock_quantity=2))
        await _raw(database_url, "UPDATE books SET stock_quantity = 7")
        await app.execute(EditBook("Dune", BookChanges(stock_quantity=8)))
    found = json.loads(await told(database_url, "show", "3", "--json"))
    assert "stock_quantity" not in found["old"]
    assert (found["old"]["title"], found["new"]["stock_quantity"]) == ("Dune", 8)
    assert re.search("^stock_quantity  8$", await told(database_url, "show", "3"), re.MULTILINE)


async def test_a_position_without_an_entry_is_said(sqlite_url):
    async with catalogue(sqlite_url):
        pass
    expected = "Error: the change log has no entry at position 7, or has forgotten it\n"
    assert await log(sqlite_url, "show", "7") == (1, "", expected)
    assert (await log(sqlite_url, "show", "0"))[0] == 2
    assert await told(sqlite_url, "tail") == ""


async def test_what_is_in_a_row_does_not_act_on_the_terminal(database_url):
    async with catalogue(database_url) as app:
        await app.execute(AddBook("safe", "A. N. Other"))
    evil = "a\x1b[2Jb\u202ec\u009b1md\u2028e"
    await _raw(database_url, f"UPDATE books SET title = '{evil}' WHERE title = 'safe'")
    for arguments in (("show", "2"), ("show", "2", "--json"), ("tail",), ("tail", "--json")):
        written = await told(database_url, *arguments)
        assert written.replace("\n", "").isprintable()
    found = json.loads(await told(database_url, "show", "2", "--json"))
    assert found["new"]["title"] == evil, "for programs it is the same text"
    assert r"a\u001b[2Jb\u202ec\u009b1md\u2028e" in await told(database_url, "show", "2")


def test_text_for_people_is_escaped_only_where_it_has_to_be():
    assert shown("Füße, 三体 and a\\b") == "Füße, 三体 and a\\b"
    assert shown("a\tb\x7f\ud800") == r"a\tb\x7f\ud800"


# Following


@asynccontextmanager
async def following(url: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs ``log tail --follow``, in a process group of its own."""
    running = await asyncio.create_subprocess_exec(
        *(*PYTHON, "tail", "--follow", *arguments),
        cwd=ROOT,
        env=environment(url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def line_of(running: asyncio.subprocess.Process) -> dict[str, Any]:
    assert running.stdout is not None
    found: dict[str, Any] = json.loads(await asyncio.wait_for(running.stdout.readline(), 60))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_following_goes_on_until_it_is_interrupted(database_url, number):
    async with catalogue(database_url) as app:
        await app.execute(AddBook("Dune", "Frank Herbert"))
        await app.execute(AddBook("Emma", "Jane Austen"))
        async with following(database_url, "--json", "-n", "1") as running:
            assert (await line_of(running))["position"] == 2
            await app.execute(AddBook("Ulysses", "James Joyce"))
            assert (await line_of(running))["position"] == 3
            await _raw(database_url, "DELETE FROM books")
            assert {(await line_of(running))["kind"] for _ in range(3)} == {"deleted"}
            running.send_signal(number)
            rest, complained = await asyncio.wait_for(running.communicate(), 30)
            assert (running.returncode, rest, complained) == (0, b"", b"")


@pytest.mark.parametrize(("arguments", "code"), [(("--follow",), 0), ((), 130)])
async def test_following_is_interrupted_while_the_application_is_imported(
    sqlite_url, tmp_path, arguments, code
):
    (tmp_path / "slow.py").write_text("import os, time\nos.mkdir('imported')\ntime.sleep(60)\n")
    running = await asyncio.create_subprocess_exec(
        *(*PYTHON, "tail", "--app", "slow:app", *arguments),
        cwd=tmp_path,
        env={**environment(sqlite_url), "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    await eventually(functools.partial(asyncio.to_thread, (tmp_path / "imported").exists), "it is imported")
    running.send_signal(signal.SIGINT)
    written, complained = await asyncio.wait_for(running.communicate(), 30)
    assert (running.returncode, written) == (code, b"")
    assert complained == (b"Stopped.\n" if code else b"")


async def test_many_entries_of_one_moment_are_all_followed_in_their_order(database_url):
    async with catalogue(database_url) as app:
        await app.execute(AddBook("first", "A. N. Other"))
        async with following(database_url, "--json") as running:
            assert (await line_of(running))["position"] == 1
            rows = ", ".join(f"('{n}', 'a', 0, '{n}')" for n in range(1200))
            await _raw(
                database_url, f"INSERT INTO books (title, author, stock_quantity, search_title) VALUES {rows}"
            )
            assert [(await line_of(running))["position"] for _ in range(1200)] == [*range(2, 1202)]


async def test_an_entry_is_followed_that_commits_after_a_later_position(postgres_url):
    """Positions are drawn before the commit: the highest one that was seen says nothing of the lower ones."""
    async with catalogue(postgres_url) as app:
        await app.execute(AddBook("first", "A. N. Other"))
        program, other = Foreign(postgres_url), Foreign(postgres_url)
        async with following(postgres_url, "--json") as running:
            assert (await line_of(running))["position"] == 1
            async with program.open() as connection:
                await connection.exec_driver_sql("UPDATE books SET stock_quantity = 1")
                values = "('second', 'a', 0, 'second')"
                await other.runs(
                    f"INSERT INTO books (title, author, stock_quantity, search_title) VALUES {values}"
                )
                assert (await line_of(running))["position"] == 3
            assert (await line_of(running))["position"] == 2
        await program.close()
        await other.close()


async def test_a_pipe_that_nobody_reads_ends_it_in_good_order(sqlite_url):
    """At once, and not only when the next entry comes."""
    async with catalogue(sqlite_url) as app:
        await app.execute(AddBook("Dune", "Frank Herbert"))
        command = f"{' '.join(PYTHON)} tail --follow; echo $? >&2"
        running = await asyncio.create_subprocess_shell(
            f"{{ {command}; }} | head -1", cwd=ROOT, env=environment(sqlite_url), stdout=-1, stderr=-1
        )
        written, complained = await asyncio.wait_for(running.communicate(), 60)
        assert (written.count(b"\n"), complained) == (1, b"0\n")


async def test_a_pipe_that_is_closed_early_ends_it_in_good_order(sqlite_url):
    async with catalogue(sqlite_url) as app:
        for number in range(50):
            await app.execute(AddBook(f"Book {number}", "A. N. Other"))
        await app.execute(EditBook("Book 1", BookChanges(author="B")))
    command = f"{' '.join(PYTHON)} tail -n 10000; echo $? >&2"
    running = await asyncio.create_subprocess_shell(
        f"{{ {command}; }} | true", cwd=ROOT, env=environment(sqlite_url), stdout=-1, stderr=-1
    )
    written, complained = await asyncio.wait_for(running.communicate(), 60)
    assert (written, complained) == (b"", b"0\n")


async def test_what_keeps_it_from_reading_is_said(database_url, tmp_path):
    program = Foreign(database_url)
    await program.runs(books_table(database_url))
    await program.close()
    code, written, complained = await log(database_url, "tail")
    assert (code, written) == (1, "")
    assert "diptych migrate" in complained
    assert "Traceback" not in complained
    missing = tmp_path / "missing.db"
    code, _, complained = await log(f"sqlite:///{missing}", "tail")
    assert (code, missing.exists()) == (1, False)
    assert f"there is no file {missing}" in complained


async def _raw(url: str, statement: str) -> None:
    program = Foreign(url)
    await program.runs(statement)
    await program.close()


# The pages


async def test_the_page_shows_what_the_commands_write(sqlite_url):
    page = (ROOT / "docs/how-to/operate.md").read_text("utf-8")
    tail, show = re.findall(r"^```console\n\$ diptych log .*?\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    async with catalogue(sqlite_url) as app:
        await app.execute(AddBook("Dune", "Frank Herbert", stock_quantity=2))
        await app.execute(EditBook("Dune", BookChanges(title="Dune Messiah", stock_quantity=5)))
        await _raw(sqlite_url, "UPDATE books SET stock_quantity = 3")
    shape = functools.partial(re.sub, r" *(?:[0-9a-f-]{36}|\d+)", "N")
    # In the catalogue nobody is known to act.
    assert shape(await told(sqlite_url, "tail")) == shape(tail.replace("  by anna", ""))
    written, fields = await told(sqlite_url, "show", "2"), show.replace("actor        anna\n", "")
    for line in filter(None, fields.splitlines()):
        assert shape(line) in shape(written).splitlines()


def test_every_field_is_in_the_reference():
    page = (ROOT / "docs/reference/commands.md").read_text("utf-8").partition("## `diptych log`")[2]
    described = re.findall(r"^\| `(\w+)` \|", page.partition("\n## ")[0], re.MULTILINE)
    assert described == [*LogEntry.__struct_fields__, *EntryValues.__struct_fields__]
