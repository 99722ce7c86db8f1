"""``diptych migrate`` and ``diptych uninstall``: by themselves, and by the scripts that they print."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from tests.books import AddBook
from tests.catalogue import answered_by, author_of, catalogue, sees_in_redis
from tests.programs import Foreign, books_table
from tests.servers import PostgresServer

ROOT = Path(__file__).parents[2]
OWN = {"diptych_capture", "diptych_fence", "diptych_history", "diptych_log", "diptych_version"}

APP = ("--app", "tests.books:create_books", "--factory")

Script = Callable[[str], None]


def diptych(url: str, *arguments: str) -> tuple[int, str, str]:
    """Runs the command for the catalogue; returns its exit code, what it wrote, and what it complained of."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DIPTYCH_")}
    done = subprocess.run(
        [sys.executable, "-m", "diptych.cli", arguments[0], *APP, *arguments[1:]],
        cwd=ROOT,
        env={**ours, "DIPTYCH_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


async def told(url: str, *arguments: str) -> str:
    """Returns what the command wrote; it succeeded, and did not complain."""
    code, written, complained = await asyncio.to_thread(diptych, url, *arguments)
    assert (code, complained) == (0, "")
    return written


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Foreign]:
    program = Foreign(database_url)
    await program.runs(books_table(database_url))
    yield program
    await program.close()


@pytest.fixture
def run_script(database_url: str, request: pytest.FixtureRequest) -> Script:
    """Runs a script as the owner of the tables would: by psql, or by sqlite3."""
    if database_url.startswith("postgresql"):
        server: PostgresServer = request.getfixturevalue("postgres_server")

        def by_psql(script: str) -> None:
            file = server.directory / f"{uuid4().hex}.sql"
            file.write_text(script)
            server.load(database_url.rpartition("/")[2], file)

        return by_psql

    def by_sqlite3(script: str) -> None:
        path = database_url.removeprefix("sqlite:///")
        if shell := shutil.which("sqlite3"):
            subprocess.run([shell, "-bail", path], input=script, text=True, check=True)
            return
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(script)

    return by_sqlite3


async def names_of(owner: Foreign, url: str) -> set[str]:
    """The names of all tables, triggers and functions of the database."""
    if url.startswith("sqlite"):
        return {
            row[0]
            for row in await owner.rows("SELECT name FROM sqlite_master WHERE name NOT GLOB 'sqlite_*'")
        }
    found = await owner.rows(
        "SELECT CAST(relname AS text) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' "
        "UNION ALL SELECT CAST(tgname AS text) FROM pg_trigger WHERE NOT tgisinternal "
        "UNION ALL SELECT CAST(proname AS text) FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    )
    return {row[0] for row in found}


async def test_migrate_makes_what_a_start_would_make(database_url, owner):
    assert await told(database_url, "migrate") == (
        "diptych's tables are as they should be; triggers made on books\n"
    )
    found = await names_of(owner, database_url)
    assert found >= {*OWN, "books"}
    assert any(name.startswith("diptych_capture_") for name in found)
    assert await told(database_url, "migrate") == (
        "diptych's tables are as they should be; triggers as they should be\n"
    )
    async with catalogue(database_url, create_tables=False) as app:
        await app.execute(AddBook("Dune", "Herbert"))
        assert (await author_of(app, "Dune"))[1] == "Herbert"


async def test_the_printed_script_makes_what_a_start_would_make(database_url, owner, run_script, valkey):
    """And the start finds it right: nothing is made anew, so that a role without rights can start."""
    before = await names_of(owner, database_url)
    script = await told(database_url, "migrate", "--sql")
    assert await names_of(owner, database_url) == before  # it is only printed
    await asyncio.to_thread(run_script, script)
    made = await owner.rows("SELECT table_name, columns, fingerprint FROM diptych_capture")
    assert [row.table_name for row in made] == ["books"]
    async with catalogue(database_url, valkey.url, create_tables=False) as app:
        await app.execute(AddBook("Dune", "Herbert"))
        await sees_in_redis(app, "Dune", "Herbert")
        await owner.runs("UPDATE books SET author = 'Frank' WHERE title = 'Dune'")
        await app.catch_up()
        assert (await author_of(app, "Dune"))[1] == "Frank"
    assert await owner.rows("SELECT table_name, columns, fingerprint FROM diptych_capture") == made
    script = await told(database_url, "migrate", "--sql")
    assert "CREATE" not in script


async def test_the_script_ends_what_was_made_while_triggers_were_missing(
    database_url, owner, run_script, valkey
):
    async with catalogue(database_url, valkey.url) as app:
        await app.execute(AddBook("Dune", "first"))
        await sees_in_redis(app, "Dune", "first")
    is_sqlite = database_url.startswith("sqlite")
    dropped = "diptych_capture_books_u" if is_sqlite else "diptych_capture ON books"
    await owner.runs(f"DROP TRIGGER {dropped}", "UPDATE books SET author = 'second'")
    await asyncio.to_thread(run_script, await told(database_url, "migrate", "--sql"))
    [[generation]] = await owner.rows("SELECT generation FROM diptych_fence")
    assert generation == ""
    gaps = await owner.rows("SELECT table_name, key, row_id, command_id FROM diptych_log WHERE kind = 'gap'")
    assert gaps == [("books", "{}", None, "")]
    async with catalogue(database_url, valkey.url) as app:
        await answered_by(app, "redis")
        assert await author_of(app, "Dune") == ("redis", "second")


@pytest.mark.parametrize("how", ["by itself", "by its script"])
async def test_an_upgrade_makes_the_triggers_of_the_version_before_anew(
    database_url, owner, run_script, valkey, how
):
    """They know nothing of the columns that it adds."""
    async with catalogue(database_url, valkey.url) as app:
        await app.execute(AddBook("Dune", "first"))
        await sees_in_redis(app, "Dune", "first")
    if database_url.startswith("sqlite"):
        triggers = await owner.rows("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        await owner.runs(*(f"DROP TRIGGER {row.name}" for row in triggers))
    await owner.runs(
        "ALTER TABLE diptych_log DROP COLUMN row_id",
        "ALTER TABLE diptych_log DROP COLUMN old_row_id",
        "ALTER TABLE diptych_capture DROP COLUMN format",
        "UPDATE diptych_version SET version_num = '0004'",
    )
    if how == "by itself":
        await told(database_url, "migrate")
    else:
        await asyncio.to_thread(run_script, await told(database_url, "migrate", "--sql"))
    made = await owner.rows("SELECT * FROM diptych_capture")
    async with catalogue(database_url, valkey.url) as app:
        await answered_by(app, "redis")
        await owner.runs("UPDATE books SET author = 'second'")
        await app.catch_up()
        assert await author_of(app, "Dune") == ("redis", "second")
        [[row_id]] = await owner.rows("SELECT row_id FROM diptych_log WHERE kind = 'updated'")
        assert row_id == "1"
    assert await owner.rows("SELECT * FROM diptych_capture") == made


@pytest.mark.parametrize("how", ["by itself", "by its script"])
async def test_uninstall_leaves_the_application_s_tables_alone(database_url, owner, run_script, how):
    before = await names_of(owner, database_url)
    async with catalogue(database_url) as app:
        await app.execute(AddBook("Dune", "Herbert"))
    assert await names_of(owner, database_url) > before
    if how == "by itself":
        assert await told(database_url, "uninstall") == "nothing of diptych is left in the database\n"
    else:
        await asyncio.to_thread(run_script, await told(database_url, "uninstall", "--sql"))
    assert await names_of(owner, database_url) == before
    assert [row.title for row in await owner.rows("SELECT title FROM books")] == ["Dune"]
    await owner.runs("UPDATE books SET author = 'Frank'")
    async with catalogue(database_url) as app:  # and all can be made again
        assert (await author_of(app, "Dune"))[1] == "Frank"


async def test_uninstall_where_nothing_is_there_does_nothing(database_url, owner):
    assert await told(database_url, "uninstall") == "nothing of diptych is left in the database\n"
    await told(database_url, "uninstall", "--sql")


async def test_migrate_says_which_table_of_the_application_is_missing(database_url):
    for option in ([], ["--sql"]):
        code, written, complained = await asyncio.to_thread(diptych, database_url, "migrate", *option)
        assert (code, written) == (1, "")
        assert "the table books (Book) is not there" in complained


async def test_a_role_without_rights_prints_what_the_owner_runs_and_starts(
    postgres_url, postgres_server, tmp_path
):
    owner, role = Foreign(postgres_url), f"shop_{uuid4().hex[:8]}"
    await owner.runs(
        books_table(postgres_url),
        f"CREATE ROLE {role} LOGIN",
        f"GRANT ALL ON books TO {role}",
        f"GRANT ALL ON SEQUENCE books_id_seq TO {role}",
    )
    limited = postgres_url.replace("postgres@", f"{role}@")
    script = await told(limited, "migrate", "--sql")
    assert f'TO "{role}"' in script
    code, written, complained = await asyncio.to_thread(diptych, limited, "migrate")
    assert (code, written) == (1, "")
    assert f"the role {role} may not make or alter tables in the schema public" in complained
    file = postgres_server.directory / f"{role}.sql"
    file.write_text(script)
    name = postgres_url.rpartition("/")[2]
    await asyncio.to_thread(postgres_server.load, name, file)
    async with catalogue(limited, create_tables=False) as app:
        await app.execute(AddBook("Dune", "Herbert"))
        assert (await author_of(app, "Dune"))[1] == "Herbert"
    code, written, complained = await asyncio.to_thread(diptych, limited, "uninstall")
    assert (code, written) == (1, "")
    assert "must be owner of" in complained
    assert "run this as the owner of the tables" in complained
    code, written, complained = await asyncio.to_thread(
        diptych, postgres_url, "migrate", "--role", "nobody_such"
    )
    assert (code, written) == (1, "")
    assert 'role "nobody_such" does not exist' in complained
    await owner.close()
    postgres_server.execute(f"DROP OWNED BY {role}", name)
    postgres_server.execute(f"DROP ROLE {role}")
