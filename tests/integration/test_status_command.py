"""``diptych status``: what it says of the stores and of each read model, and that it changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import redis
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import Diptych, ReadModel, code_point_text
from diptych.health import Overview, ReadModelStatus, StoreStatus
from tests.books import AddBook
from tests.catalogue import answered_by, catalogue, eventually, stop_keeper, store_of
from tests.configuration import configured
from tests.integration.test_redis_says import RIGHTS
from tests.programs import Foreign, books_table
from tests.servers import HOST, free_port

ROOT = Path(__file__).parents[2]
LONG = 60_000
"""A lease that stands as long as a test, in milliseconds."""


def run(
    database_url: str,
    redis_url: str | None,
    *arguments: str,
    app: str = "tests.books:create_books",
    **settings: str,
) -> tuple[int, str, str]:
    """Runs the command for the catalogue; returns its exit code, what it wrote, and what it complained of."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DIPTYCH_")}
    ours |= {"DIPTYCH_DATABASE_URL": database_url, "DIPTYCH_REDIS_COMMAND_TIMEOUT_MS": "10000", **settings}
    done = subprocess.run(
        [sys.executable, "-m", "diptych.cli", "status", "--app", app, *arguments],
        cwd=ROOT,
        env=ours if redis_url is None else {**ours, "DIPTYCH_REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


async def status(
    database_url: str, redis_url: str | None, *arguments: str, **settings: str
) -> tuple[int, str]:
    """Returns the exit code, and what the command wrote; it did not complain."""
    code, written, complained = await asyncio.to_thread(run, database_url, redis_url, *arguments, **settings)
    assert complained == ""
    return code, written


async def book_status(database_url: str, redis_url: str | None) -> tuple[int, dict[str, Any]]:
    """Returns the exit code, and what the command says of the books in JSON."""
    code, written = await status(database_url, redis_url, "--json")
    return code, json.loads(written)["read_models"]["BookReadModel"]


async def test_while_redis_answers_all_is_in_order(database_url, valkey):
    async with catalogue(database_url, valkey.url, lease_ms=5000) as app:
        await answered_by(app, "redis")
        for title in ("Dune", "Emma", "Ulysses"):
            await app.execute(AddBook(title, "A. N. Other"))
        code, written = await status(database_url, valkey.url, "--json")
        text_code, text = await status(database_url, valkey.url)
    assert (code, text_code) == (0, 0)
    found = json.loads(written)
    assert (found["in_order"], found["sql"]["state"], found["redis"]["state"]) == (True, "up", "up")
    assert found["log_head"] == 3
    books = found["read_models"]["BookReadModel"]
    assert (books["served_by"], books["reason"]) == ("redis", None)
    assert (books["lag_changes"], books["lag_seconds"]) == (0, 0.0), "the commands' changes are in already"
    assert (books["documents"], books["set_aside"]) == (3, 0)
    assert books["passes_by"] == f"{socket.gethostname()}:{os.getpid()}"
    assert 0 < books["lease_left_s"] <= 5
    assert 1000 < books["memory_bytes"] < 100_000
    expected = rf"""SQL    up at \S+
Redis  up at redis://\S+
log    head at position 3

BookReadModel
  answered by  Redis
  generation   {books["generation"]}
  lease        \d\.\d s left
  passes by    {re.escape(books["passes_by"])}
  lag          0 changes, 0\.0 s
  documents    3
  set aside    0 rows
  memory       about \d+ KiB
"""
    assert re.fullmatch(expected, text), text


async def test_changes_that_no_pass_has_carried_are_the_lag(database_url, valkey):
    """A command's own change is in Redis without a pass, and does not count; another program's counts."""
    async with catalogue(database_url, valkey.url, lease_ms=LONG) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("Dune", "Frank Herbert"))
        await stop_keeper(app)
        await app.execute(AddBook("Emma", "Jane Austen"))
        code, books = await book_status(database_url, valkey.url)
        assert (code, books["lag_changes"], books["lag_seconds"]) == (0, 0, 0.0)
        program = Foreign(database_url)
        await program.runs("UPDATE books SET stock_quantity = 7", "UPDATE books SET stock_quantity = 8")
        code, books = await book_status(database_url, valkey.url)
        await asyncio.sleep(0.3)
        later_code, later = await book_status(database_url, valkey.url)
        await program.close()
        assert (code, books["lag_changes"], books["served_by"]) == (0, 4, "redis")
        assert later["lag_seconds"] >= books["lag_seconds"] + 0.3
        assert later_code == 0, "the lease stands: it vouches for a lease's time, not for the moment"
        text = (await status(database_url, valkey.url))[1]
        assert re.search(r"^  lag          4 changes, \d+\.\d s$", text, re.MULTILINE), text


async def test_a_great_lag_is_counted_and_not_listed(database_url, valkey):
    async with catalogue(database_url, valkey.url, lease_ms=LONG) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("Dune", "Frank Herbert"))
        await stop_keeper(app)
        program = Foreign(database_url)
        await program.runs(*(f"UPDATE books SET stock_quantity = {n}" for n in range(1005)))
        _, books = await book_status(database_url, valkey.url)
        await program.close()
    assert books["lag_changes"] == 1006, "with what the last pass has not seen, though it is in Redis"


async def test_it_changes_nothing_and_names_a_lease_that_is_over(database_url, valkey):
    """The application has stopped: nobody vouches for Redis any more, and what is there stays as it is."""
    async with catalogue(database_url, valkey.url) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("Dune", "Frank Herbert"))
        await stop_keeper(app)
        await answered_by(app, "sql")

    async def everything() -> tuple[list[Any], ...]:
        program = Foreign(database_url)
        tables = ("diptych_fence", "diptych_history", "diptych_log", "diptych_capture", "books")
        rows = [[tuple(row) for row in await program.rows(f"SELECT * FROM {table}")] for table in tables]
        await program.close()
        with redis.Redis.from_url(valkey.url) as client:
            keys = sorted(client.keys("*"))
            return (*rows, [(key, client.dump(key), client.ttl(key)) for key in keys])

    before = await everything()
    code, written = await status(database_url, valkey.url)
    assert before == await everything()
    assert code == 1
    for line in ("answered by  SQL: no-lease", "lease        none", "passes by    nobody", "documents    1"):
        assert f"  {line}\n" in written


async def test_rows_that_are_set_aside_are_counted(database_url, valkey):
    async with catalogue(database_url, valkey.url, lease_ms=2000) as app:
        await answered_by(app, "redis")
        for title in ("Dune", "Emma"):
            await app.execute(AddBook(title, "A. N. Other"))
        program = Foreign(database_url)
        # A number that no document takes. SQLite keeps the text that PostgreSQL would refuse.
        spoilt = "'many'" if database_url.startswith("sqlite") else "stock_quantity"
        await program.runs(f"UPDATE books SET stock_quantity = {spoilt} WHERE title = 'Emma'")
        await app.catch_up()
        await program.close()
        _, books = await book_status(database_url, valkey.url)
    expected = (1, 1) if database_url.startswith("sqlite") else (2, 0)
    assert (books["documents"], books["set_aside"]) == expected


async def test_redis_that_is_away_is_said(database_url, valkey):
    async with catalogue(database_url, valkey.url) as app:
        await answered_by(app, "redis")
    secret = f"redis://:hunter2@{HOST}:{free_port()}/0"
    code, written = await status(database_url, secret)
    assert code == 1
    assert re.search(r"^Redis  away at redis://:\*\*\*@\S+ \(.+\)$", written, re.MULTILINE), written
    assert "  answered by  SQL: redis-away\n" in written
    assert "  lease        not known\n  passes by    not known\n" in written, "nobody has looked"
    assert "hunter2" not in written
    code, books = await book_status(database_url, secret)
    assert (code, books["served_by"], books["reason"], books["documents"]) == (1, "sql", "redis-away", None)


async def test_a_redis_that_may_not_be_used_is_refused(sqlite_url, redis_server_factory):
    server = redis_server_factory({"maxmemory-policy": "allkeys-lru"})
    async with catalogue(sqlite_url) as app:
        await app.execute(AddBook("Dune", "Frank Herbert"))
    code, written = await status(sqlite_url, server.url)
    assert code == 1
    assert "Redis  refused at " in written
    assert "its maxmemory-policy is allkeys-lru" in written
    assert "  answered by  SQL: redis-refused\n" in written


async def test_a_user_who_may_not_measure_is_told_the_rest(sqlite_url, redis_server_factory):
    rights = RIGHTS.replace("{shop:", "{diptych:")
    server = redis_server_factory({"user": f"app on >secret {rights}"})
    url = f"redis://app:secret@{HOST}:{server.port}/0"
    async with catalogue(sqlite_url, url, lease_ms=5000) as app:
        await answered_by(app, "redis")
        await app.execute(AddBook("Dune", "Frank Herbert"))
        code, books = await book_status(sqlite_url, url)
    assert (code, books["served_by"], books["set_aside"]) == (0, "redis", 0)
    assert (books["documents"], books["memory_bytes"]) == (None, None)


async def test_without_redis_sql_answers_and_all_is_in_order(database_url):
    async with catalogue(database_url):
        pass
    code, written = await status(database_url, None)
    assert code == 0
    assert "\nRedis  off (REDIS_URL is not set)\n" in written
    assert written.endswith("\nBookReadModel\n  answered by  SQL: no-redis\n")
    assert (await book_status(database_url, None))[1]["lag_changes"] is None


async def test_sql_that_is_away_is_said_and_redis_is_looked_at_all_the_same(tmp_path, valkey):
    missing = tmp_path / "missing.db"
    code, written = await status(f"sqlite:///{missing}", valkey.url)
    assert code == 1
    assert f"SQL    away at {missing} (there is no file {missing}: start the application first)\n" in written
    assert "\nRedis  up at " in written
    assert "  answered by  not known: sql-away\n" in written
    assert not missing.exists()
    away = f"postgresql://shop:hunter2@{HOST}:{free_port()}/shop"
    code, written = await status(away, None)
    assert (code, "SQL    away at " in written, "hunter2" in written) == (1, True, False)
    with closing(socket.create_server((HOST, 0))) as silent:
        url = f"postgresql://shop@{HOST}:{silent.getsockname()[1]}/shop"
        code, written = await status(url, None, DIPTYCH_DATABASE_TIMEOUT_MS="200")
    assert code == 1
    assert re.search(
        r"^SQL    away at \S+ \(.*/shop\): it took too long to answer\)$", written, re.MULTILINE
    ), written


async def test_a_database_without_tables_of_diptych_says_what_to_do(database_url):
    program = Foreign(database_url)
    await program.runs(books_table(database_url))
    await program.close()
    code, written = await status(database_url, None)
    assert code == 1
    assert "diptych's own tables are missing or outdated" in written
    assert "diptych migrate" in written
    assert "SQL    up at " in written
    assert "\n  answered by  not known\n" in written
    code, books = await book_status(database_url, None)
    assert (code, books["served_by"], books["reason"]) == (1, None, None)


def test_what_was_asked_wrongly_ends_with_2(sqlite_url):
    code, written, complained = run(sqlite_url, None, app="demo_app.nowhere:app")
    assert (code, written) == (2, "")
    assert complained.startswith('Error: there is no module "demo_app.nowhere"')


def shape_of(text: str) -> str:
    """A text without what differs from machine to machine: names, addresses, generations, figures."""
    text = re.sub(r"(/|redis://)\S+", "…", text)
    text = re.sub(r"\S+:\d+$", "…", text, flags=re.MULTILINE)
    return re.sub(r"[0-9a-f]{16}|\d+(\.\d+)?", "…", text)


async def test_the_page_shows_what_the_command_writes(sqlite_url, valkey):
    page = (ROOT / "docs/how-to/operate.md").read_text("utf-8")
    (shown,) = re.findall(
        r"^```console\n\$ diptych status --app \S+\n(.*?)^```", page, re.DOTALL | re.MULTILINE
    )
    async with catalogue(sqlite_url, valkey.url, lease_ms=5000) as app:
        await answered_by(app, "redis")
        for number in range(100):
            await app.execute(AddBook(f"Book {number}", "A. N. Other"))
        _, written = await status(sqlite_url, valkey.url)
    assert shape_of(written) == shape_of(shown)


def test_every_field_of_the_report_is_in_the_reference():
    page = (ROOT / "docs/reference/commands.md").read_text("utf-8")
    described = set(re.findall(r"^\| `([\w.…]+)`", page, re.MULTILINE))
    of_stores = {f"{store}.{field}" for store in ("sql", "redis") for field in StoreStatus.__struct_fields__}
    of_models = {f"read_models.….{field}" for field in ReadModelStatus.__struct_fields__}
    top = {field for field in Overview.__struct_fields__ if field not in ("sql", "redis", "read_models")}
    assert of_stores | of_models | top <= described


# Without lists


class Base(DeclarativeBase):
    pass


class Part(Base):
    __tablename__ = "parts"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(code_point_text(40), unique=True)


class PartDocument(Struct):
    id: int
    code: str


class Parts(ReadModel[Part]):
    key = Part.id
    also = (Part.code,)
    document = PartDocument


async def test_documents_without_lists_are_counted_once_and_not_by_their_addresses(database_url, valkey):
    app = Diptych(
        configured(database_url, valkey.url, lease_ms=400), models=Base, handlers=[], read_models=[Parts]
    )
    async with app:
        await answered_by(app, "redis")
        for number in range(30):
            await app.orm.create(Part, code=f"part {number}")
        survey = await store_of(app).survey(await _generation(app))
        assert (survey.documents, survey.set_aside) == (30, 0)
        assert survey.memory_bytes is not None
        each = survey.memory_bytes / 60
        assert 50 < each < 300, "each is at two addresses"
        await app.orm.delete(Part, 1)

        async def are_fewer() -> bool:
            return (await store_of(app).survey(await _generation(app))).documents == 29

        await eventually(are_fewer, "the tombstones have gone")


async def _generation(app: Diptych) -> str:
    async with app.orm.database.reader.connect() as connection:
        return str((await connection.execute(sa.text("SELECT generation FROM diptych_fence"))).scalar_one())


async def test_in_a_redis_full_of_other_keys_the_numbers_are_estimates(sqlite_url, valkey):
    """A survey looks through no more than some ten thousand keys."""
    with redis.Redis.from_url(valkey.url) as client:
        for start in range(0, 200_000, 20_000):
            client.mset({f"other:{number}": "x" for number in range(start, start + 20_000)})
    app = Diptych(configured(sqlite_url, valkey.url), models=Base, handlers=[], read_models=[Parts])
    async with app:
        await answered_by(app, "redis")
        await app.orm.create_all(Part, [{"code": f"part {number}"} for number in range(2000)])
        before = _scans(valkey.url)
        survey = await store_of(app).survey(await _generation(app))
        assert _scans(valkey.url) - before == 50
    assert survey.documents is not None
    assert 1000 < survey.documents < 4000


def _scans(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.info("commandstats")["cmdstat_scan"]["calls"])
