"""A database that was put elsewhere: its log is of another history, whose numbers mean nothing where it is now."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from diptych import Diptych
from tests.books import AddBook, DeleteBook
from tests.catalogue import (
    Held,
    agree,
    answered_by,
    author_of,
    catalogue,
    eventually,
    fence_row,
    sees,
    sees_in_redis,
    set_author,
    stop_keeper,
)
from tests.servers import PostgresServer, RedisServer

LEASE_MS = 400
TITLES = [f"{number:02}" for number in range(20)]


# Helpers


async def _fill(app: Diptych) -> None:
    """Books, each changed once, some deleted: what a replay of the log would bring back."""
    for title in TITLES:
        await app.execute(AddBook(title, "old"))
        await set_author(app, title, "new")
    for title in TITLES[:5]:
        await app.execute(DeleteBook(title))


async def _quiet(app: Diptych, server: RedisServer) -> None:
    """Fails if passes go on writing documents although nothing changes."""
    await answered_by(app, "redis")
    await asyncio.sleep(2 * LEASE_MS / 1000)  # the last change itself is carried by a pass or two
    with redis.Redis.from_url(server.url) as client:
        before = client.info("commandstats")
        await asyncio.sleep(4 * LEASE_MS / 1000)
        after = client.info("commandstats")
    read = {name: stats["calls"] - before.get(name, {"calls": 0})["calls"] for name, stats in after.items()}
    assert read.get("cmdstat_getrange", 0) == 0, "documents are compared again and again"


@pytest.fixture
def elsewhere() -> Iterator[PostgresServer]:
    """Another cluster, whose transaction numbers are lower."""
    with PostgresServer() as server:
        yield server


def _burn(server: PostgresServer, transactions: int) -> None:
    """Has the server give out transaction numbers."""
    server.execute(
        "CREATE OR REPLACE PROCEDURE burn() LANGUAGE plpgsql AS $$ BEGIN "
        f"FOR i IN 1..{transactions} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
    )
    server.execute("CALL burn()")


async def _copy(
    source: str, one: PostgresServer, target: str, two: PostgresServer, *, sequence: bool
) -> None:
    """What ``pg_dump`` and ``psql`` do: the tables, their rows and, mostly, the sequence."""
    async with catalogue(two.url_of(target)):
        pass  # makes the tables
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    for table in one.execute(tables, source).split():
        rows = two.directory / f"{table}.copy"
        two.execute(f'TRUNCATE "{table}" CASCADE', target)
        one.execute(f"\\copy {table} TO '{rows}'", source)
        two.execute(f"\\copy {table} FROM '{rows}'", target)
    if sequence:
        of_log = "pg_get_serial_sequence('diptych_log', 'position')"
        two.execute(f"SELECT setval({of_log}, (SELECT max(position) FROM diptych_log))", target)


# PostgreSQL


@pytest.mark.parametrize("numbers", ["lower", "higher", "lower, rows only, within one lease"])
async def test_rows_of_another_servers_log_are_harmless(
    postgres_server: PostgresServer, elsewhere: PostgresServer, valkey: RedisServer, numbers: str
) -> None:
    """★ Every pass would replay those that this server's numbers have not reached, over what SQL holds."""
    _burn(elsewhere if numbers == "higher" else postgres_server, 3000)
    is_hasty = "within" in numbers
    lease_ms = 3000 if is_hasty else LEASE_MS
    source, target = postgres_server.create_database(), elsewhere.create_database()
    async with catalogue(postgres_server.url_of(source), valkey.url, lease_ms=lease_ms) as app:
        await _fill(app)
        await sees_in_redis(app, TITLES[-1], "new")
        if is_hasty:
            await _copy(source, postgres_server, target, elsewhere, sequence=False)
    if not is_hasty:
        await _copy(source, postgres_server, target, elsewhere, sequence=True)
        elsewhere.execute(
            "UPDATE diptych_log SET key = '{}', old_key = NULL, image = NULL WHERE position = 30", target
        )
    elsewhere.execute(f"UPDATE books SET author = 'by SQL' WHERE title = '{TITLES[-1]}'", target)
    async with catalogue(
        elsewhere.url_of(target), valkey.url, lease_ms=lease_ms, log_retention_days=1
    ) as app:
        await sees(app, TITLES[-1], "by SQL")
        await app.execute(AddBook("here", "x"))
        await sees(app, "here", "x")
        await sees_in_redis(app, TITLES[-1], "by SQL")
        await sees_in_redis(app, TITLES[0], None)
        await agree(app)
        await _quiet(app, valkey)
        if numbers != "higher":
            _burn(elsewhere, 4000)  # until its numbers have reached those of the old rows
            await set_author(app, "here", "y")
            await _quiet(app, valkey)
        await agree(app)
        elsewhere.execute("UPDATE diptych_log SET recorded_at = recorded_at - interval '2 days'", target)
    async with catalogue(elsewhere.url_of(target), log_retention_days=1):

        async def forgotten() -> bool:
            former = "position < (SELECT first_position FROM diptych_history)"
            return (
                elsewhere.execute(f"SELECT count(*) FROM diptych_log WHERE {former}", target).strip() == "0"
            )

        await eventually(forgotten, "the log's retention deletes the rows of the other history too")
    postgres_server.drop_database(source)


async def test_what_was_written_before_the_database_is_adopted_is_not_lost(
    postgres_server: PostgresServer, elsewhere: PostgresServer, valkey: RedisServer
) -> None:
    """★ Its row of the log has a position below those of the new history, and is committed after these have begun."""
    _burn(postgres_server, 3000)
    source, target = postgres_server.create_database(), elsewhere.create_database()
    async with catalogue(postgres_server.url_of(source)) as app:
        await _fill(app)
    await _copy(source, postgres_server, target, elsewhere, sequence=True)
    async with catalogue(elsewhere.url_of(target)) as early:
        # As if this process had been connected before anybody adopted the database.
        former = postgres_server.execute("SELECT database FROM diptych_history", source).strip()
        elsewhere.execute(f"UPDATE diptych_history SET database = '{former}'", target)
        held = Held(early.orm.side.units, "_commit_transaction")
        writing = asyncio.ensure_future(set_author(early, TITLES[-1], "early"))
        await held.reached.wait()
        late = catalogue(elsewhere.url_of(target), valkey.url, lease_ms=LEASE_MS)
        starting = asyncio.ensure_future(late.start())
        await asyncio.sleep(0.5)
        assert not starting.done(), "it waits for those who have written to the log"
        held.go_on.set()
        await asyncio.gather(writing, starting)
        try:
            await sees(late, TITLES[-1], "early")
            await sees_in_redis(late, TITLES[-1], "early")
            await agree(late)
        finally:
            await late.stop()
    postgres_server.drop_database(source)


async def test_a_role_that_may_not_know_all_of_the_identity_adopts_nothing(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    """Else two processes of different roles would end each other's generations without end."""
    name = postgres_url.rpartition("/")[2]

    def history() -> str:
        return postgres_server.execute("SELECT name, database FROM diptych_history", name)

    async with catalogue(postgres_url):
        whole = history()
    role = f"role_{name}"
    postgres_server.execute(f"CREATE ROLE {role} LOGIN")
    try:
        for what in ("SCHEMA public", "ALL TABLES IN SCHEMA public", "ALL SEQUENCES IN SCHEMA public"):
            postgres_server.execute(f"GRANT ALL ON {what} TO {role}", name)
        postgres_server.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC", name)
        async with catalogue(postgres_url.replace("postgres@", f"{role}@")) as app:
            await app.execute(AddBook("Dune", "x"))
            assert history() == whole
    finally:
        postgres_server.execute(f"DROP OWNED BY {role}", name)
        postgres_server.execute(f"DROP ROLE {role}")


async def test_a_fail_over_is_noticed_by_the_first_command_whatever_the_new_clock_says(
    valkey: RedisServer,
) -> None:
    """★ By a clock that is ahead every lease looks over, and commands would be acknowledged at once."""
    with _Standby() as server:
        name = server.create_database()
        url = server.url_of(name)
        async with (
            catalogue(url, valkey.url, lease_ms=3000) as reader,
            catalogue(url, lease_ms=3000) as writer,
        ):
            await writer.execute(AddBook("Dune", "x"))
            await sees_in_redis(reader, "Dune", "x")
            await stop_keeper(reader)
            server.stop()
            (server.data / "standby.signal").touch()
            server.start()
            server.execute("SELECT pg_promote()")
            await asyncio.sleep(0.1)  # in which the connections that are closed are seen to be
            # What a clock that is 100 s ahead makes of the promise.
            server.execute("UPDATE diptych_fence SET lease_until = lease_until - 100", name)
            await set_author(writer, "Dune", "y")
            await sees(reader, "Dune", "y")


class _Standby(PostgresServer):
    """One that may be a standby, too."""

    ready_line = "database system is ready to accept"


# SQLite


async def test_an_sqlite_file_replaced_under_the_application_is_opened_anew(
    tmp_path: Path, valkey: RedisServer
) -> None:
    file, copy = tmp_path / "test.db", tmp_path / "copy.db"
    async with catalogue(f"sqlite:///{file}", valkey.url) as app:
        await app.execute(AddBook("Dune", "kept"))
        await sees_in_redis(app, "Dune", "kept")
        _back_up(file, copy)
        await set_author(app, "Dune", "lost")
        await app.execute(AddBook("Emma", "lost"))
        await _replace(file, copy)
        await sees_in_redis_at_last(app, "Dune", "kept")
        await sees_in_redis(app, "Emma", None)
        await set_author(app, "Dune", "again")
        await sees(app, "Dune", "again")
        await agree(app)
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT author FROM books").fetchall() == [("again",)]


async def test_an_sqlite_file_replaced_without_its_log_is_refused(tmp_path: Path) -> None:
    """SQLite would write the former file's changes into the new one."""
    file, copy = tmp_path / "test.db", tmp_path / "copy.db"
    async with catalogue(f"sqlite:///{file}") as app:
        await app.execute(AddBook("Dune", "kept"))
        _back_up(file, copy)
        await set_author(app, "Dune", "lost")
        copy.replace(file)
        with pytest.raises(Exception, match="can't be reached") as caught:
            await set_author(app, "Dune", "again")
        assert "delete the -wal and -shm files" in str(caught.value.__cause__)


@pytest.mark.parametrize("redis_is_there", [True, False])
async def test_a_backup_restored_into_the_open_sqlite_file_is_noticed_by_the_next_command(
    tmp_path: Path, valkey: RedisServer, redis_is_there: bool
) -> None:
    """★ Its positions are given out a second time: what a command applies is older than what Redis holds."""
    file, copy = tmp_path / "test.db", tmp_path / "copy.db"
    url = f"sqlite:///{file}"
    async with (
        catalogue(url, valkey.url, lease_ms=3000) as reader,
        catalogue(url, valkey.url if redis_is_there else None, lease_ms=3000) as writer,
    ):
        await writer.execute(AddBook("Dune", "kept"))
        await sees_in_redis(reader, "Dune", "kept")
        _back_up(file, copy)
        for number in range(10):
            await set_author(writer, "Dune", f"lost {number}")
        passes = (await fence_row(reader)).passes_completed

        async def passed() -> bool:
            return (await fence_row(reader)).passes_completed > passes

        await eventually(passed, "another pass is made")
        await fence_row(writer) if redis_is_there else None
        await stop_keeper(reader)
        _back_up(copy, file)
        await set_author(writer, "Dune", "again")
        await sees(reader, "Dune", "again")


def _back_up(file: Path, to: Path) -> None:
    """By SQLite's own interface, as its shell's ``.backup`` and ``.restore`` do."""
    with sqlite3.connect(file) as source, sqlite3.connect(to) as target:
        source.backup(target)
    source.close()
    target.close()


async def _replace(file: Path, copy: Path) -> None:
    for path in (file, *file.parent.glob(f"{file.name}-*")):
        path.rename(file.parent / f"former {path.name}")  # kept, or the new file might get its inode
    shutil.copy(copy, file)


async def sees_in_redis_at_last(app: Diptych, title: str, author: str) -> None:
    """Waits until Redis answers like this; what it answers until then was true before the file was replaced."""

    async def does() -> bool:
        return await author_of(app, title) == ("redis", author)

    await eventually(does, f"Redis answers with {title} by {author}")
