"""The tables at start: made, upgraded or refused, whole or not at all; and how each database is set up."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from sqlalchemy.orm import DeclarativeBase

from diptych import ConfigService, ORMService, SchemaVersionError
from diptych.sql.database import Database
from diptych.sql.open import open_database
from diptych.sql.schema import own
from diptych.write.unit_of_work import new_context
from tests.conformance.conftest import config
from tests.conformance.tables import Base, Book

# SQLAlchemy, which these tests have look at the tables, knows no 64-bit transaction ids.
pytestmark = pytest.mark.filterwarnings("ignore:Did not recognize type 'xid8'")

AT = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
CURRENT = "0005"
ROOT = Path(__file__).parents[2]

NEXT = '''
"""One column more."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("diptych_log", sa.Column("added", sa.Text, server_default="by the upgrade"))
    op.create_table("diptych_added", sa.Column("id", sa.Integer, primary_key=True))
'''


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The migrations of a newer diptych, with one revision more."""
    directory = tmp_path / "migrations 100%"
    shutil.copytree(own._MIGRATIONS, directory, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "versions" / "0006_next.py").write_text(NEXT)
    return directory


async def started(database_url: str) -> ORMService:
    orm = ORMService(config(database_url))
    await orm.init(models=Base)
    return orm


async def start_and_stop(database_url: str) -> None:
    await (await started(database_url)).close()


async def state(database_url: str) -> dict[str, Any]:
    """Every table with its columns and indexes, the version, and the rows of the log."""
    database = open_database(database_url, config(database_url).settings)

    def read(connection: sa.Connection) -> dict[str, Any]:
        inspector = sa.inspect(connection)
        found: dict[str, Any] = {
            name: [
                [
                    (column["name"], str(column["type"]), column["nullable"])
                    for column in inspector.get_columns(name)
                ],
                sorted(str(index["name"]) for index in inspector.get_indexes(name)),
            ]
            for name in inspector.get_table_names()
        }
        for table in ("diptych_version", "diptych_log"):
            if table in found:
                found[f"rows of {table}"] = connection.execute(sa.text(f"SELECT * FROM {table}")).all()
        return found

    try:
        async with database.reader.connect() as connection:
            return await connection.run_sync(read)
    finally:
        await database.close()


async def test_a_fresh_database_gets_the_tables_of_both(database_url: str):
    await start_and_stop(database_url)
    found = await state(database_url)
    assert {"diptych_log", "diptych_version", *Base.metadata.tables} <= found.keys()
    assert found["rows of diptych_version"] == [(CURRENT,)]
    assert [name for name, _, _ in found["diptych_log"][0]] == [
        "position",
        "transaction",
        "entity",
        "key",
        "old_key",
        "kind",
        "version",
        "image",
        "command_id",
        "correlation_id",
        "actor",
        "recorded_at",
        "table_name",
        "row_id",
        "old_row_id",
    ]
    is_postgres = database_url.startswith("postgresql")
    assert found["diptych_log"][1] == (["diptych_log_unseen"] if is_postgres else [])
    assert [name for name, _, nullable in found["diptych_fence"][0] if nullable] == ["cursor"]


async def test_the_second_start_changes_nothing(database_url: str):
    orm = await started(database_url)
    await orm.create(Book, title="T", author="A")
    await orm.close()
    before = await state(database_url)
    await start_and_stop(database_url)
    assert await state(database_url) == before


WITHOUT_ALEMBIC = """
import asyncio, sys
from diptych import ConfigService, ORMService

async def main(url):
    async with ORMService(ConfigService(environ={}, database_url=url)):
        print("alembic" in sys.modules, "mako" in sys.modules)

asyncio.run(main(sys.argv[1]))
"""


async def test_a_start_that_has_nothing_to_upgrade_does_without_alembic(database_url: str):
    """It takes a fifth of the time in which diptych is imported."""
    for found in (b"True True", b"False False"):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WITHOUT_ALEMBIC, database_url), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert output.strip() == found


def test_files_of_migrations_have_the_names_of_their_revisions():
    scripts = ScriptDirectory(str(own._MIGRATIONS)).walk_revisions()
    assert [script.revision for script in scripts] == [*reversed(own._versions())]


async def test_tables_that_are_missing_are_added_to_those_that_are_there(database_url: str):
    async with ORMService(config(database_url)) as orm:
        assert "books" not in await state(database_url)
        await orm.init(models=Base)
        await orm.create(Book, title="T", author="A")


async def test_several_services_start_at_once_in_one_process(database_url: str, tmp_path: Path):
    """Alembic keeps what it works on in globals, which must not be mixed up."""
    await asyncio.gather(
        *(start_and_stop(database_url) for _ in range(3)),
        *(start_and_stop(str(tmp_path / f"{i}.db")) for i in range(3)),
    )
    for url in (database_url, str(tmp_path / "0.db"), str(tmp_path / "2.db")):
        assert (await state(url))["rows of diptych_version"] == [(CURRENT,)]


STARTER = """
import asyncio, sys
from diptych import ConfigService, ORMService

async def main(url):
    orm = ORMService(ConfigService(environ={}, database_url=url))
    await orm.init()
    await orm.close()

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main(sys.argv[1]))
"""


async def test_two_processes_start_at_once_on_an_empty_database(database_url: str):
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", STARTER, database_url, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    ended = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [process.returncode for process in processes] == [0, 0], ended
    assert (await state(database_url))["rows of diptych_version"] == [(CURRENT,)]


# Upgrades


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """The migrations of the first diptych, which had no fence."""
    directory = tmp_path / "first"
    shutil.copytree(own._MIGRATIONS, directory, ignore=shutil.ignore_patterns("__pycache__", "000[2-9]_*"))
    return directory


async def test_the_first_version_gets_the_fence_and_keeps_its_log(
    database_url: str, first: Path, monkeypatch: pytest.MonkeyPatch
):
    database = open_database(database_url, config(database_url).settings)
    with monkeypatch.context() as patch:
        patch.setattr(own, "_MIGRATIONS", first)
        await own.prepare_schema(database, Base.metadata)
    columns = "entity, key, kind, version, image, command_id, recorded_at"
    async with database.writer.begin() as connection:
        for title in "TU":
            await connection.execute(
                sa.text(
                    f"INSERT INTO diptych_log ({columns}) VALUES ('Book', '{{}}', 'created', 1, :image, 'c', :at)"
                ),
                {"image": f'{{"title":"{title}"}}', "at": AT if database.name == "postgresql" else str(AT)},
            )
    await database.close()
    before = await state(database_url)
    assert "diptych_fence" not in before
    orm = await started(database_url)
    after = await state(database_url)
    assert after["rows of diptych_version"] == [(CURRENT,)]
    assert "diptych_fence" in after
    assert after["rows of diptych_log"] == [(*row, None, None, None) for row in before["rows of diptych_log"]]
    await orm.create(Book, title="V", author="A")
    assert [row[0] for row in (await state(database_url))["rows of diptych_log"]] == [1, 2, 3]
    await orm.close()


async def test_an_older_version_is_upgraded_without_losing_rows(
    database_url: str, newer: Path, monkeypatch: pytest.MonkeyPatch
):
    orm = await started(database_url)
    await orm.create(Book, title="T", author="A")
    await orm.update(Book, 1, title="U")
    await orm.close()
    before = await state(database_url)
    monkeypatch.setattr(own, "_MIGRATIONS", newer)
    orm = await started(database_url)
    after = await state(database_url)
    assert after["rows of diptych_version"] == [("0006",)]
    assert "diptych_added" in after
    assert after["rows of diptych_log"] == [(*row, "by the upgrade") for row in before["rows of diptych_log"]]
    await orm.update(Book, 1, title="V")
    assert [book.title for book in await orm.all(Book)] == ["V"]
    assert len((await state(database_url))["rows of diptych_log"]) == 3
    await orm.close()


async def test_a_newer_version_is_refused_and_nothing_is_changed(
    database_url: str, newer: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(own, "_MIGRATIONS", newer)
        async with ORMService(config(database_url)) as orm:
            await orm.all(Book)
    before = await state(database_url)

    class Other(DeclarativeBase):
        """A base with a table that is missing."""

        metadata = sa.MetaData()

    sa.Table("never_made", Other.metadata, sa.Column("id", sa.Integer, primary_key=True))
    orm = ORMService(config(database_url))
    with pytest.raises(
        SchemaVersionError, match="have version 0006, which this diptych does not know"
    ) as caught:
        await orm.init(models=Other)
    assert caught.value.found == "0006"
    assert await state(database_url) == before


@pytest.mark.parametrize("fault", ["raise RuntimeError('on purpose')", "op.execute('SELECT no_such_column')"])
async def test_an_upgrade_that_fails_leaves_the_old_state(
    database_url: str, newer: Path, monkeypatch: pytest.MonkeyPatch, fault: str
):
    """The revision's first statements are undone, and those of the revisions before it."""
    orm = await started(database_url)
    await orm.create(Book, title="T", author="A")
    await orm.close()
    before = await state(database_url)
    faulty = NEXT.replace('"0006"', '"0007"').replace('"0005"', '"0006"')
    faulty = faulty.replace("added", "more") + f"    {fault}\n"
    (newer / "versions" / "0007_faulty.py").write_text(faulty)
    with monkeypatch.context() as patch:
        patch.setattr(own, "_MIGRATIONS", newer)
        with pytest.raises((RuntimeError, sa.exc.DBAPIError)):
            await started(database_url)
    assert await state(database_url) == before
    orm = await started(database_url)
    await orm.create(Book, title="U", author="A")
    await orm.close()


async def test_a_first_start_that_fails_leaves_an_empty_database(
    database_url: str, newer: Path, monkeypatch: pytest.MonkeyPatch
):
    (newer / "versions" / "0006_next.py").write_text(NEXT + "    raise RuntimeError('on purpose')\n")
    with monkeypatch.context() as patch:
        patch.setattr(own, "_MIGRATIONS", newer)
        with pytest.raises(RuntimeError, match="on purpose"):
            await started(database_url)
    assert await state(database_url) == {}
    await start_and_stop(database_url)


# How the databases are set up


async def ask(database: Database, statement: str, *, of: str) -> Any:
    async with getattr(database, of).connect() as connection:
        return (await connection.execute(sa.text(statement))).scalar_one()


@pytest.mark.parametrize(("setting", "value"), [({}, 2), ({"sqlite_synchronous": "NORMAL"}, 1)])
async def test_sqlite_is_durable_and_keeps_its_references(
    sqlite_url: str, setting: dict[str, str], value: int
):
    """WAL; synchronous=FULL (2) unless it is set otherwise; foreign keys on."""
    async with ORMService(config(sqlite_url, **setting)) as orm:
        assert await ask(orm.database, "PRAGMA journal_mode", of="writer") == "wal"
        assert await ask(orm.database, "PRAGMA foreign_keys", of="writer") == 1
        assert await ask(orm.database, "PRAGMA synchronous", of="writer") == value
        assert await ask(orm.database, "PRAGMA journal_mode", of="reader") == "wal"
        assert await ask(orm.database, "PRAGMA query_only", of="reader") == 1
        assert await ask(orm.database, "PRAGMA busy_timeout", of="writer") == 5000


async def test_a_unit_of_work_on_sqlite_begins_with_the_write_lock(sqlite_url: str):
    """BEGIN IMMEDIATE: nobody can write between the reading and the writing of a command."""
    async with ORMService(config(sqlite_url)) as orm:
        await orm.all(Book)
        other = sqlite3.connect(orm.database.reader.url.database or "", timeout=0, isolation_level=None)

        async def work(_unit: object) -> None:
            assert await orm.get(Book, 1) is None  # has only read
            with pytest.raises(sqlite3.OperationalError, match="database is locked"):
                other.execute("BEGIN IMMEDIATE")

        statements: list[str] = []
        sa.event.listen(
            orm.database.writer.sync_engine, "after_cursor_execute", lambda *call: statements.append(call[2])
        )
        await orm.side.units.run(work, new_context())
        assert statements[0] == "BEGIN IMMEDIATE"
        other.execute("BEGIN IMMEDIATE")
        other.close()


async def test_units_of_work_on_postgresql_are_repeatable_and_durable(postgres_url: str):
    """Whatever the server's own defaults are: this one has synchronous_commit off."""
    async with ORMService(config(postgres_url)) as orm:
        assert await ask(orm.database, "SHOW transaction_isolation", of="writer") == "repeatable read"
        assert await ask(orm.database, "SHOW synchronous_commit", of="writer") == "on"
        assert await ask(orm.database, "SHOW synchronous_commit", of="reader") == "off"
        assert await ask(orm.database, "SHOW default_transaction_read_only", of="reader") == "on"


async def test_what_the_hinge_promises_on_postgresql_is_durable(postgres_url: str):
    """And its statements judge rows anew that they waited for, whatever the server's own defaults are."""
    async with ORMService(config(postgres_url)) as orm:
        assert await ask(orm.database, "SHOW synchronous_commit", of="keeper") == "on"
        assert await ask(orm.database, "SHOW default_transaction_isolation", of="keeper") == "read committed"
        assert await ask(orm.database, "SHOW plan_cache_mode", of="keeper") == "force_custom_plan"
        assert await ask(orm.database, "SHOW default_transaction_read_only", of="keeper") == "off"
        assert not orm.database.has_one_writer


async def test_the_hinge_on_sqlite_writes_only_through_the_one_writer(sqlite_url: str):
    async with ORMService(config(sqlite_url)) as orm:
        assert await ask(orm.database, "PRAGMA query_only", of="keeper") == 1
        assert await ask(orm.database, "PRAGMA journal_mode", of="keeper") == "wal"
        assert orm.database.has_one_writer


async def test_what_only_reads_cannot_write(database_url: str):
    async with ORMService(config(database_url)) as orm:
        await orm.init(models=Base)
        async with orm.database.reader.connect() as connection:
            with pytest.raises(sa.exc.DBAPIError, match=r"readonly|read-only"):
                await connection.execute(sa.insert(Book).values(title="T", author="A"))


async def test_a_new_file_that_another_process_is_writing_is_waited_for(tmp_path):
    """SQLite gives up at once when the journal's mode is to be changed meanwhile, whatever the time-out."""
    other = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    other.execute("CREATE TABLE something (id)")
    other.execute("BEGIN IMMEDIATE")
    orm = ORMService(ConfigService(environ={}))
    opening = asyncio.create_task(orm.init(str(tmp_path / "test.db")))
    await asyncio.sleep(0.3)  # time enough to be refused
    assert not opening.done()
    other.execute("ROLLBACK")
    other.close()
    await opening
    await orm.close()
