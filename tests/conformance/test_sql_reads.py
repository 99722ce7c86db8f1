"""Queries that SQL answers: in the event loop where it is SQLite and they are short, else in turns and shared."""

from __future__ import annotations

import asyncio
import datetime
import sqlite3
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from diptych import DatabaseBusyError, ORMService, ReadModel, SchemaError, by
from diptych.aio.event_loop import LoopBudget
from diptych.read.compiled import CompiledReadModel
from diptych.read.lists.page import PageRequest
from diptych.read.lists.selection import Selection
from diptych.read.sql.fallback import SqlFallback
from diptych.read.sql.rows import SqlRows
from diptych.sql.sqlite.database import SqliteDatabase
from diptych.sql.sqlite.inline_reads import InlineConnection
from diptych.sql.statements import PreparedSelect
from tests.catalogue import Held, Recorded
from tests.conformance.conftest import config
from tests.conformance.tables import Base, Book, Kinds, Size, page_of


class BookDocument(msgspec.Struct):
    title: str
    author: str
    stock_quantity: int


class Books(ReadModel[Book]):
    key = Book.title
    document = BookDocument
    lists = (by(Book.title), by(Book.author, Book.title), by(Book.stock_quantity))


class Route:
    """The SQL route of the books, put together as the composition root does."""

    def __init__(self, orm: ORMService, turns: int = 5, timeout_s: float = 30) -> None:
        entity = orm.side.entities.of(Book)
        self.orm = orm
        self.compiled = CompiledReadModel(Books, entity.describe(orm.database.reader.dialect))
        self.rows = SqlRows(
            orm.database, orm.side.entities.of, entity, [self.compiled.key.names], self.compiled.columns
        )
        self.turns = asyncio.Semaphore(turns)
        self.sql = SqlFallback(self.compiled, self.rows, self.turns, LoopBudget(), timeout_s)

    async def add(self, title: str, stock: int = 0) -> None:
        await self.orm.create(Book, title=title, author=f"author of {title}", stock_quantity=stock)

    async def stock(self, title: str) -> int | None:
        body = await self.sql.get(("title",), title)
        return None if body is None else msgspec.json.decode(body, type=BookDocument).stock_quantity

    async def listed(self, order: int = 0, limit: int = 500, after: Any = None) -> list[str]:
        request = PageRequest(Selection(self.compiled.lists[order]), limit, values=after)
        body, _ = await self.sql.page(request)
        return [item["title"] for item in msgspec.json.decode(body)["items"]]

    @property
    def threads(self) -> int:
        """How many reads were in a thread at once, up to now."""
        pool: Any = self.orm.database.reader.pool
        return int(pool.checkedin() + pool.checkedout())


@pytest.fixture
async def on_sqlite(sqlite_url: str) -> AsyncIterator[ORMService]:
    async with ORMService(config(sqlite_url)) as orm:
        await orm.init(models=Base)
        hold(orm, budget_s=3600)  # a busy machine must not fail a test
        yield orm


def hold(orm: ORMService, budget_s: float) -> InlineConnection:
    """Replaces the connection that an open service holds by one with another budget."""
    database = orm.database
    assert isinstance(database, SqliteDatabase)
    assert database.inline is not None
    database.inline.close()
    database.inline = InlineConnection(file_of(orm), database.reader.dialect, budget_s)
    return database.inline


def file_of(orm: ORMService) -> str:
    return orm.database.reader.url.database or ""


async def fill(orm: ORMService, count: int) -> None:
    rows = [
        {"id": i, "title": f"{i:06d}", "author": f"{i % 7}", "stock_quantity": count - i}
        for i in range(count)
    ]
    async with orm.database.writer.begin() as connection:
        await connection.execute(sa.insert(Book), rows)


# In the event loop


async def test_a_column_of_each_kind_is_read_as_in_a_thread(on_sqlite: ORMService):
    values: dict[str, Any] = {
        "small": -5,
        "whole": 2**31 - 1,
        "big": 2**62,
        "real": 1.0,
        "flag": True,
        "short": "ä\U0001f600",
        "text": "",
        "day": datetime.date(1965, 8, 1),
        "moment": datetime.datetime(1965, 8, 1, 12, 30, 1, 5),
        "instant": datetime.datetime(1965, 8, 1, 12, 30, 1, 5, tzinfo=datetime.UTC),
        "time": datetime.time(23, 59, 59, 999999),
        "span": datetime.timedelta(days=-3, microseconds=7),
        "name": uuid.UUID(int=7),
        "data": b"\x00\xff",
        "size": Size.LARGE,
        "word": "yes",
        "document": {"a": [1, None, 0.5]},
        "backwards": "forwards",
    }
    await on_sqlite.create(Kinds, id=1, **values)
    await on_sqlite.create(Kinds, id=2)
    entity = on_sqlite.side.entities.of(Kinds)
    rows = SqlRows(on_sqlite.database, on_sqlite.side.entities.of, entity, [("id",)], list(entity.columns))
    for key in (1, 2, 3):
        one = await rows.one(("id",), key)
        assert rows.try_one(("id",), key) == ([] if one is None else [one])
    assert rows.try_one(("id",), 1) == [{"id": 1, **values}]
    for order in (("id",), ("whole", "id"), ("backwards", "id")):
        page = page_of(on_sqlite, Kinds, order)
        assert rows.try_page(page, 10) == await rows.page(page, 10)
    for order, after in (
        (("id",), (1,)),
        (("day", "id"), (values["day"], 0)),
        (("name",), (uuid.UUID(int=6),)),
    ):
        page = page_of(on_sqlite, Kinds, order, after)
        found = rows.try_page(page, 10)
        assert found
        assert found == await rows.page(page, 10)


async def test_short_reads_of_sqlite_take_no_thread(on_sqlite: ORMService):
    route = Route(on_sqlite)
    await fill(on_sqlite, 2000)
    for _ in range(100):
        assert await route.stock("000007") == 1993
        assert await route.stock("none") is None
        assert len(await route.listed(limit=50)) == 50
    assert await route.listed(limit=3, after=("001996",)) == ["001997", "001998", "001999"]
    assert len(await route.listed(order=1, limit=50, after=("6", "001988"))) == 1
    assert route.threads == 0


async def test_postgresql_is_never_read_in_the_event_loop(postgres_url: str):
    async with ORMService(config(postgres_url)) as orm:
        await orm.init(models=Base)
        route = Route(orm)
        await route.add("a", 1)
        assert route.rows.try_one(("title",), "a") is None
        assert route.rows.try_page(page_of(orm, Book, ("title",)), 10) is None
        assert (await route.stock("a"), await route.listed()) == (1, ["a"])


async def test_a_read_that_is_not_short_is_given_up_and_answered_by_a_thread(on_sqlite: ORMService):
    """There is no index on the stock: the first page of it needs every row."""
    route = Route(on_sqlite)
    await fill(on_sqlite, 3000)
    hold(on_sqlite, budget_s=0)
    assert route.rows.try_page(page_of(on_sqlite, Book, ("stock_quantity", "title")), 3) is None
    assert route.threads == 0
    assert await route.listed(order=2, limit=3) == ["002999", "002998", "002997"]
    assert route.threads == 1
    assert await route.stock("000007") == 2993  # others are as short as ever


async def test_a_read_that_was_not_short_is_left_alone_for_a_while(on_sqlite: ORMService):
    short = PreparedSelect(sa.select(Book.id).order_by(Book.stock_quantity))
    held = hold(on_sqlite, budget_s=0)
    await fill(on_sqlite, 2000)
    assert short.may_run()
    assert held.fetch(short, {}) is None
    for _ in range(10):
        short.mark_slow()  # each time for longer, which no machine is too slow to see
    assert not short.may_run()
    generous = hold(on_sqlite, budget_s=3600)
    assert generous.fetch(short, {}) is None
    again = generous.fetch(PreparedSelect(short.select), {})
    assert again is not None
    assert [row[0] for row in again] == list(reversed(range(2000)))


async def test_reads_see_every_commit_of_their_process_at_once(on_sqlite: ORMService):
    route = Route(on_sqlite)
    await route.add("a")
    for number in range(1, 50):
        await on_sqlite.update(Book, "a", "title", stock_quantity=number)
        assert await route.stock("a") == number
    assert route.threads == 0


WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    connection.execute("UPDATE books SET stock_quantity = ?", (int(line),))
    print("committed", flush=True)
"""


async def test_reads_see_every_commit_of_another_process_at_once(on_sqlite: ORMService):
    """A statement that had not ended would keep the connection at what was there when it began."""
    route = Route(on_sqlite)
    await fill(on_sqlite, 2000)
    pipe = asyncio.subprocess.PIPE
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, file_of(on_sqlite), stdin=pipe, stdout=pipe
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    endless = sa.select(sa.func.count()).select_from(*(sa.alias(Book.__table__) for _ in range(3)))
    held = hold(on_sqlite, budget_s=0.05)
    for number in range(1, 10):
        assert held.fetch(PreparedSelect(endless), {}) is None
        writer.stdin.write(b"%d\n" % number)
        assert await writer.stdout.readline() == b"committed\n"
        assert await route.stock("000007") == number
        assert [
            row["stock_quantity"]
            for row in route.rows.try_page(page_of(on_sqlite, Book, ("title",)), 3) or ()
        ] == 3 * [number]
    writer.stdin.close()
    await writer.communicate()
    assert route.threads == 0


async def test_no_read_holds_on_to_its_snapshot(on_sqlite: ORMService):
    """Whether it ended, was given up, or failed half way: a checkpoint gets at the whole log of SQLite."""
    await fill(on_sqlite, 2000)
    held = hold(on_sqlite, budget_s=0)
    other = sqlite3.connect(file_of(on_sqlite), isolation_level=None)
    other.execute("UPDATE books SET author = CAST(x'ff' AS TEXT) WHERE id = 5")  # which is no UTF-8
    for select in (
        sa.select(Book.id).where(Book.id == 7),
        sa.select(Book.id).order_by(Book.stock_quantity),
        sa.select(Book.author).order_by(Book.id).limit(20),
        sa.select(sa.column("missing")).select_from(Book),
    ):
        other.execute("UPDATE books SET stock_quantity = stock_quantity + 1")
        held.fetch(PreparedSelect(select), {})
        busy, _, _ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy
    other.close()


async def test_a_lock_is_not_waited_for_in_the_event_loop(tmp_path: Path, on_sqlite: ORMService):
    """In a file without a write-ahead log a writer keeps readers out."""
    file = str(tmp_path / "plain.db")
    writer = sqlite3.connect(file, isolation_level=None)
    writer.execute("CREATE TABLE books (id INTEGER)")
    held, short = (
        InlineConnection(file, on_sqlite.database.reader.dialect),
        PreparedSelect(sa.select(Book.id)),
    )
    writer.execute("BEGIN EXCLUSIVE")
    assert held.fetch(short, {}) is None
    assert short.may_run()
    writer.execute("INSERT INTO books VALUES (7)")
    writer.execute("COMMIT")
    assert held.fetch(short, {}) == [(7,)]
    writer.close()
    held.close()
    held.close()


async def test_a_failure_is_told_as_by_a_thread_and_does_not_last(on_sqlite: ORMService):
    route = Route(on_sqlite)
    await route.add("a", 1)
    assert await route.stock("a") == 1
    other = sqlite3.connect(file_of(on_sqlite), isolation_level=None)
    other.execute("ALTER TABLE books RENAME TO gone")
    with pytest.raises(SchemaError, match="no such table"):
        await route.stock("a")
    other.execute("ALTER TABLE gone RENAME TO books")
    other.execute("ALTER TABLE books ADD COLUMN more INTEGER")
    other.close()
    assert route.rows.try_one(("title",), "a") == [await route.rows.one(("title",), "a")]


async def test_nothing_is_written_in_the_event_loop(on_sqlite: ORMService):
    """What is held can't change the database, whatever it is given."""
    assert isinstance(on_sqlite.database, SqliteDatabase)
    held = on_sqlite.database.inline
    assert held is not None
    setting: sa.Select[Any] = sa.select(sa.column("query_only")).select_from(sa.table("pragma_query_only"))
    assert held.fetch(PreparedSelect(setting), {}) == [(1,)]


async def test_closing_leaves_no_connection(sqlite_url: str):
    """The last connection to a file in WAL mode takes the write-ahead log with it."""
    async with ORMService(config(sqlite_url)) as orm:
        await orm.init(models=Base)
        route, file = Route(orm), Path(file_of(orm))
        await route.add("a")
        assert await route.stock("a") == 0
        log = file.with_name(f"{file.name}-wal")
        assert log.exists()
    assert not log.exists()


def test_one_loop_after_the_other_reads_the_file(sqlite_url: str):
    async def run(number: int) -> None:
        async with ORMService(config(sqlite_url)) as orm:
            await orm.init(models=Base)
            hold(orm, budget_s=3600)
            route = Route(orm)
            await route.add(f"{number}", number)
            assert await route.stock(f"{number}") == number
            assert len(await route.listed()) == number
            assert route.threads == 0

    asyncio.run(run(1))
    asyncio.run(asyncio.to_thread(asyncio.run, run(2)))
    asyncio.run(run(3))


# Elsewhere: in turns, shared


@pytest.fixture
async def waiting(orm: ORMService) -> ORMService:
    """On each database, with every query in the queue."""
    if isinstance(orm.database, SqliteDatabase):
        orm.database.inline = None
    return orm


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_equal_queries_that_wait_for_their_turn_are_one_statement(waiting: ORMService):
    route = Route(waiting, turns=1)
    for title in "abc":
        await route.add(title, ord(title))
    first, asked = Held(route.rows, "one"), Recorded(route.rows, "page")
    ahead = asyncio.create_task(route.stock("c"))
    await first.reached.wait()
    documents = [asyncio.create_task(route.stock(title)) for title in "abaab"]
    pages = [asyncio.create_task(route.listed(limit=limit)) for limit in (2, 3, 2, 2)]
    places = [asyncio.create_task(route.listed(limit=2, after=(place,))) for place in "abab"]
    await settled()
    reads = Recorded(route.rows, "one")
    first.go_on.set()
    assert await ahead == ord("c")
    assert [await task for task in documents] == [ord(title) for title in "abaab"]
    assert [await task for task in pages] == [["a", "b"], ["a", "b", "c"], ["a", "b"], ["a", "b"]]
    assert [await task for task in places] == [["b", "c"], ["c"], ["b", "c"], ["c"]]
    assert [arguments for arguments, _ in reads.calls] == [(("title",), "a"), (("title",), "b")]
    assert len(asked.calls) == 4


@pytest.mark.parametrize("turns", [1, 2])
async def test_a_query_never_takes_the_answer_of_a_statement_that_was_sent_before(
    waiting: ORMService, turns: int
):
    """That statement has read its row; then a command is acknowledged, and after it the query is asked."""
    route = Route(waiting, turns=turns)
    await route.add("a", 1)
    sent = Held(route.rows, "one", after=True)
    before = asyncio.create_task(route.stock("a"))
    await sent.reached.wait()
    await waiting.update(Book, "a", "title", stock_quantity=2)
    after = [asyncio.create_task(route.stock("a")) for _ in range(3)]
    await settled()
    sent.go_on.set()
    assert await before == 1
    assert [await task for task in after] == [2, 2, 2]


async def test_a_query_joins_those_that_wait_behind_a_lock_of_postgresql(postgres_url: str):
    """The one turn is taken by a statement that the server holds up; those behind it are one, and see the commit."""
    async with ORMService(config(postgres_url)) as orm:
        await orm.init(models=Base)
        route = Route(orm, turns=1)
        await route.add("a", 1)
        statements: list[str] = []
        sa.event.listen(
            orm.database.reader.sync_engine, "before_cursor_execute", lambda *call: statements.append(call[2])
        )
        async with orm.database.writer.begin() as connection:
            await connection.execute(sa.text("LOCK TABLE books IN ACCESS EXCLUSIVE MODE"))
            await connection.execute(sa.update(Book).values(stock_quantity=2))
            asked = [asyncio.create_task(route.stock("a")) for _ in range(20)]
            await settled()
        assert [await task for task in asked] == 20 * [2]
        assert len(statements) == 2


async def test_each_query_has_a_time_of_its_own(waiting: ORMService):
    route = Route(waiting, turns=1, timeout_s=0.05)
    await route.add("a", 1)
    first = Held(route.rows, "one")
    asked = [asyncio.create_task(route.stock("a")) for _ in range(3)]
    for task in asked:
        with pytest.raises(DatabaseBusyError, match="DATABASE_TIMEOUT_MS"):
            await task
    first.go_on.set()
    patient = Route(waiting)
    assert await patient.stock("a") == 1
    assert not route.turns.locked()


async def test_cancelled_queries_leave_the_others_their_answers_and_no_connection_in_use(waiting: ORMService):
    route = Route(waiting, turns=2)
    for title in "abcdefgh":
        await route.add(title, ord(title))
    tasks = []
    for number in range(400):
        title = "abcdefgh"[number * 7 % 8]
        tasks.append((title, asyncio.create_task(route.stock(title))))
        if number % 3 == 0:
            tasks[number * 5 % len(tasks)][1].cancel()
        if number % 20 == 0:
            await asyncio.sleep(0.001)
    ended = await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
    answers = [
        (t, e) for (t, _), e in zip(tasks, ended, strict=True) if not isinstance(e, asyncio.CancelledError)
    ]
    assert len(answers) > 100
    assert all(found == ord(title) for title, found in answers)
    await settled()
    assert not route.turns.locked()
    pool: Any = waiting.database.reader.pool
    assert pool.checkedout() == 0
