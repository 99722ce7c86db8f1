"""Commands on SQLite that wait at the same time: in one transaction with one commit, and yet each for itself."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConstraintError, DatabaseBusyError, DatabaseUnavailableError, DuplicateError, ORMService
from diptych.sql.sqlite import connection as sqlite_connection
from diptych.sql.sqlite import transactions as sqlite_transactions
from diptych.sql.sqlite.connection import sqlite_under
from diptych.sql.sqlite.database import SqliteDatabase
from diptych.write.unit_of_work import UnitOfWork, new_context
from tests.conformance.conftest import config
from tests.conformance.tables import Base, Book

Work = Callable[[UnitOfWork], Awaitable[Any]]

QUICK = "a kind of command"


class SomethingWrong(Exception):
    pass


@pytest.fixture
async def orm(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ORMService]:
    """An ORMService that has seen commands of the kind `QUICK` be quick, and takes this machine's pauses for that."""
    monkeypatch.setattr(sqlite_transactions, "_QUICK_S", 50)
    async with ORMService(config(sqlite_url)) as service:
        await service.init(models=Base)
        await seen_quick(service)
        yield service


async def seen_quick(orm: ORMService) -> None:
    for _ in range(8):
        orm.database.record_duration(QUICK, 0.001)


def adding(orm: ORMService, title: str) -> Work:
    async def work(_unit: UnitOfWork) -> None:
        await orm.create(Book, title=title, author="A")

    return work


class Together:
    """Commands that wait at the same time: until the block is left another one has the turn to write."""

    def __init__(self, orm: ORMService) -> None:
        self.commits = 0
        self.tasks: list[asyncio.Task[Any]] = []
        self._orm = orm
        assert isinstance(orm.database, SqliteDatabase)
        self._turn = orm.database.write_lock.take()
        sa.event.listen(orm.database.writer.sync_engine, "commit", self._count)

    async def __aenter__(self) -> Together:
        await self._turn.__aenter__()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await asyncio.sleep(0)  # all of them have asked
        await self._turn.__aexit__(None, None, None)

    def run(self, work: Work, kind: str = QUICK) -> asyncio.Task[Any]:
        task = asyncio.create_task(self._orm.side.units.run(work, new_context(), kind))
        self.tasks.append(task)
        return task

    async def outcomes(self) -> list[Any]:
        return await asyncio.gather(*self.tasks, return_exceptions=True)

    def _count(self, _connection: object) -> None:
        self.commits += 1


async def kept(orm: ORMService) -> list[str]:
    """The titles of all books. Fails unless each has its row of the log, and no other row is there."""
    async with orm.database.reader.connect() as connection:
        logged = (
            await connection.execute(
                sa.text("SELECT image ->> 'title' FROM diptych_log WHERE kind = 'created' ORDER BY position")
            )
        ).scalars()
        titles = list(logged)
    assert sorted(titles) == sorted(book.title for book in await orm.all(Book))
    return titles


async def test_they_share_one_commit_in_the_order_in_which_they_came(orm: ORMService):
    async with Together(orm) as together:
        for number in range(20):
            together.run(adding(orm, f"{number:02}"))
    assert await together.outcomes() == [None] * 20
    assert together.commits == 1
    assert await kept(orm) == [f"{number:02}" for number in range(20)]


async def test_no_more_than_so_many_share_one(orm: ORMService):
    async with Together(orm) as together:
        for number in range(100):
            together.run(adding(orm, f"{number:02}"))
    await together.outcomes()
    assert together.commits == 2
    assert len(await kept(orm)) == 100


@pytest.mark.parametrize("failing", [0, 2, 4])
async def test_one_that_fails_takes_nobody_with_it(orm: ORMService, failing: int):
    async def fail(_unit: UnitOfWork) -> None:
        await orm.create(Book, title="half", author="A")
        raise SomethingWrong

    async with Together(orm) as together:
        for number in range(5):
            together.run(fail if number == failing else adding(orm, str(number)))
    outcomes = await together.outcomes()
    assert isinstance(outcomes.pop(failing), SomethingWrong)
    assert outcomes == [None] * 4
    assert await kept(orm) == [str(number) for number in range(5) if number != failing]


async def test_one_that_fails_without_having_seen_a_row_is_told_before_the_others_are_over(orm: ORMService):
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def fail(_unit: UnitOfWork) -> None:
        raise SomethingWrong

    async def hold(_unit: UnitOfWork) -> None:
        begun.set()
        await go_on.wait()

    async with Together(orm) as together:
        over = together.run(adding(orm, "a"))
        failing = together.run(fail)
        together.run(hold)
    await begun.wait()
    with pytest.raises(SomethingWrong):
        await failing
    assert not over.done()
    go_on.set()
    await together.outcomes()
    assert await kept(orm) == ["a"]


async def test_an_error_that_may_rest_on_the_change_of_another_is_told_after_their_commit(orm: ORMService):
    """Whoever hears that there is one already finds it, even if this process is killed at once."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def hold(_unit: UnitOfWork) -> None:
        begun.set()
        await go_on.wait()

    async with Together(orm) as together:
        over, failing = (together.run(adding(orm, "a")) for _ in range(2))
        together.run(hold)
    await begun.wait()
    await asyncio.wait([failing], timeout=0.1)
    assert not failing.done()
    go_on.set()
    with pytest.raises(DuplicateError):
        await failing
    assert over.done()
    assert together.commits == 1


async def test_an_error_that_rests_on_a_change_that_was_not_committed_is_not_told(orm: ORMService):
    """Its command is run again instead, and succeeds."""
    file_size = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with Together(orm) as together:
        first, second = (together.run(adding(orm, "a")) for _ in range(2))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, file_size[1]))  # as if the disk were full
        with pytest.raises(DatabaseUnavailableError):
            await first
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, file_size)
    await second
    assert await kept(orm) == ["a"]


async def test_a_statement_that_fails_takes_nobody_with_it(orm: ORMService):
    async with Together(orm) as together:
        for title in "abac":
            together.run(adding(orm, title))
    outcomes = await together.outcomes()
    assert isinstance(outcomes.pop(2), DuplicateError)
    assert outcomes == [None] * 3
    assert together.commits == 1
    assert await kept(orm) == ["a", "b", "c"]


async def test_each_sees_what_those_before_it_have_changed(orm: ORMService):
    await orm.create(Book, title="counter", author="A")

    async def increment(_unit: UnitOfWork) -> None:
        book = await orm.get(Book, "counter", "title")
        assert book is not None
        await orm.update(Book, book.id, stock_quantity=book.stock_quantity + 1)

    async with Together(orm) as together:
        for _ in range(10):
            together.run(increment)
    await together.outcomes()
    assert together.commits == 1
    counter = await orm.get(Book, "counter", "title")
    assert counter is not None
    assert counter.stock_quantity == 10


async def test_a_commit_that_fails_fails_all_of_them(orm: ORMService):
    file_size = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with Together(orm) as together:
        for title in "abc":
            together.run(adding(orm, title))
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, file_size[1]))  # as if the disk were full
        outcomes = await together.outcomes()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, file_size)
    for outcome in outcomes:
        assert isinstance(outcome, DatabaseUnavailableError)
    assert together.commits == 1
    assert await kept(orm) == []
    await orm.create(Book, title="afterwards", author="A")
    assert await kept(orm) == ["afterwards"]


async def test_when_sqlite_undoes_all_of_it_the_others_are_run_again(orm: ORMService):
    """As it does when the disk is full in the midst of a statement."""

    async def undo(unit: UnitOfWork) -> None:
        await orm.create(Book, title="undone", author="A")
        await (await unit.transaction.connection()).exec_driver_sql("ROLLBACK")
        raise SomethingWrong

    async with Together(orm) as together:
        for work in (adding(orm, "a"), adding(orm, "b"), undo, adding(orm, "c")):
            together.run(work)
    outcomes = await together.outcomes()
    assert isinstance(outcomes.pop(2), SomethingWrong)
    assert outcomes == [None] * 3
    assert sorted(await kept(orm)) == ["a", "b", "c"]


# Who may join


async def test_those_that_are_over_do_not_wait_for_one_that_may_take_long(orm: ORMService):
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_unit: UnitOfWork) -> None:
        await orm.create(Book, title="slow", author="A")
        begun.set()
        await go_on.wait()

    async with Together(orm) as together:
        before = [together.run(adding(orm, title)) for title in "ab"]
        waiting = together.run(slow, "another kind")
        after = together.run(adding(orm, "c"))
    await begun.wait()
    await asyncio.gather(*before)
    assert await kept(orm) == ["a", "b"]
    assert not waiting.done()
    assert not after.done()
    go_on.set()
    await together.outcomes()
    assert await kept(orm) == ["a", "b", "slow", "c"]


async def test_a_kind_that_was_slow_once_has_to_prove_itself_again(orm: ORMService):
    orm.database.record_duration(QUICK, 100)
    async with Together(orm) as together:
        for number in range(3):
            together.run(adding(orm, str(number)))
    await together.outcomes()
    assert together.commits == 3
    await seen_quick(orm)
    async with Together(orm) as together:
        for number in range(3, 6):
            together.run(adding(orm, str(number)))
    await together.outcomes()
    assert together.commits == 1


async def test_calls_of_the_service_alone_share_too(orm: ORMService):
    for number in range(10):
        await orm.create(Book, title=f"before {number}", author="A")
    async with Together(orm) as together:
        together.tasks += [
            asyncio.create_task(orm.create(Book, title=str(number), author="A")) for number in range(10)
        ]
        await asyncio.sleep(0)
    await together.outcomes()
    assert together.commits < 10
    assert len(await kept(orm)) == 20


async def test_who_goes_first_waits_for_one_of_them_only(orm: ORMService):
    assert isinstance(orm.database, SqliteDatabase)
    turns = orm.database.write_lock
    came: list[str] = []
    calling: list[asyncio.Task[None]] = []

    async def keeper() -> None:
        async with turns.take(first=True):
            came.append("keeper")

    async def work(_unit: UnitOfWork) -> None:
        came.append("command")
        if not calling:
            calling.append(asyncio.create_task(keeper()))
            await asyncio.sleep(0)

    async with Together(orm) as together:
        for _ in range(20):
            together.run(work)
    await together.outcomes()
    await asyncio.gather(*calling)
    assert came == ["command", "keeper"] + ["command"] * 19


# Cancelled, or given up


@pytest.mark.parametrize("has_trigger", [False, True])
async def test_those_that_are_cancelled_leave_everything_or_nothing(
    orm: ORMService, sqlite_url: str, has_trigger: bool
):
    """After any number of steps of the event loop; the others are all kept."""
    if has_trigger:  # then its statements run in the thread, and can be cut off in the midst
        async with orm.database.writer.begin() as connection:
            await connection.exec_driver_sql("CREATE TRIGGER idle AFTER INSERT ON books BEGIN SELECT 1; END")
    for steps in range(40):
        async with Together(orm) as together:
            for number in range(6):
                together.run(adding(orm, f"{steps} {number}"))
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in together.tasks[1::2]:
            task.cancel()
        outcomes = await together.outcomes()
        assert outcomes[::2] == [None] * 3
        await orm.side.units.settle()
        titles = set(await kept(orm))
        for number, outcome in enumerate(outcomes):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError)
            assert outcome is not None or f"{steps} {number}" in titles
        assert orm.database.writer.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_one_that_is_cancelled_while_it_waits_for_the_file_holds_up_nobody(orm: ORMService):
    holder = sqlite3.connect(orm.database.reader.url.database or "", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    async with Together(orm) as together:
        waiting = together.run(adding(orm, "a"))
        together.run(adding(orm, "b"))
    for _ in range(5):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    holder.execute("ROLLBACK")
    holder.close()
    await together.outcomes()
    assert await kept(orm) == ["b"]


async def test_one_that_gives_up_does_not_hold_up_the_others(sqlite_url: str):
    async with ORMService(config(sqlite_url, database_timeout_ms=100)) as orm:
        await orm.all(Book)
        await seen_quick(orm)
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def hold(_unit: UnitOfWork) -> None:
            begun.set()
            await go_on.wait()

        async with Together(orm) as together:
            holding = together.run(hold)
        await begun.wait()
        waited = together.run(adding(orm, "too late"))
        with pytest.raises(DatabaseBusyError):
            await waited
        late = together.run(adding(orm, "in time"))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(holding, late)
        assert await kept(orm) == ["in time"]


# What the schema says


class Others(DeclarativeBase):
    pass


class Parent(Others):
    __tablename__ = "parents"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True, sqlite_on_conflict_unique="ROLLBACK")


class Child(Others):
    __tablename__ = "children"

    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int] = mapped_column(
        sa.ForeignKey("parents.id", deferrable=True, initially="DEFERRED", ondelete="CASCADE")
    )


async def test_where_the_commit_checks_constraints_each_has_its_own(orm: ORMService):
    await orm.all(Child)

    def child(parent: int) -> Work:
        async def work(_unit: UnitOfWork) -> None:
            await orm.create(Child, parent_id=parent)

        return work

    await orm.create(Parent, id=1, name="a")
    async with Together(orm) as together:
        for parent in (1, 2, 1):
            together.run(child(parent))
    outcomes = await together.outcomes()
    assert isinstance(outcomes.pop(1), ConstraintError)
    assert outcomes == [None, None]
    assert len(await orm.all(Child)) == 2


async def test_where_a_conflict_undoes_the_whole_transaction_each_has_its_own(orm: ORMService):
    await orm.all(Parent)

    def parent(name: str) -> Work:
        async def work(_unit: UnitOfWork) -> None:
            await orm.create(Parent, name=name)

        return work

    async with Together(orm) as together:
        for name in "abac":
            together.run(parent(name))
    outcomes = await together.outcomes()
    assert isinstance(outcomes.pop(2), DuplicateError)
    assert outcomes == [None] * 3
    assert [found.name for found in await orm.all(Parent)] == ["a", "b", "c"]


async def test_only_what_is_known_to_be_short_runs_in_the_loop(sqlite_url: str):
    """Not where rows are looked for that refer to the one changed, nor where there are triggers."""

    async def quick(orm: ORMService) -> dict[str, bool]:
        found: dict[str, bool] = {}

        async def look(unit: UnitOfWork) -> None:
            connection = await unit.transaction.connection()
            sqlite: Any = connection.sync_connection.connection.dbapi_connection  # type: ignore[union-attr]
            for table in ("parents", "CHILDREN", "diptych_log"):
                for kind in ("insert", "change"):
                    found[f"{kind} {table}"] = sqlite.schema.is_quick(kind, table)

        await orm.side.units.run(look, new_context())
        return found

    async with ORMService(config(sqlite_url)) as orm:
        await orm.init(models=Others)
        found = await quick(orm)
        assert [name for name, is_quick in found.items() if not is_quick] == ["change parents"]
        async with orm.database.writer.begin() as connection:
            await connection.exec_driver_sql(
                "CREATE TRIGGER much AFTER INSERT ON Children BEGIN DELETE FROM parents; END"
            )
        found = await quick(orm)
        refused = ["change parents", "insert CHILDREN", "change CHILDREN"]
        assert [name for name, is_quick in found.items() if not is_quick] == refused
        await orm.create(Parent, id=1, name="a")
        await orm.create(Child, parent_id=1)
        assert await orm.all(Parent) == []


async def test_a_handler_with_many_statements_leaves_the_loop_to_others_too(orm: ORMService):
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def work(_unit: UnitOfWork) -> int:
        before = turns
        for number in range(500):
            await orm.create(Book, title=str(number), author="A")
        return turns - before

    running = asyncio.create_task(others())
    assert await orm.side.units.run(work, new_context()) > 10
    running.cancel()
    assert len(await kept(orm)) == 500


async def test_a_select_that_takes_long_is_interrupted_and_run_in_the_thread(
    orm: ORMService, monkeypatch: pytest.MonkeyPatch
):
    """And the transaction goes on as if nothing had happened."""
    monkeypatch.setattr(sqlite_connection, "BUDGET_S", 0)
    statements: list[str] = []
    sa.event.listen(
        orm.database.writer.sync_engine, "after_cursor_execute", lambda *call: statements.append(call[2])
    )

    async def work(_unit: UnitOfWork) -> None:
        for number in range(2_000):
            await orm.create(Book, title=f"{number}", author="A")
        await orm.create(Book, title="searched", author="A", stock_quantity=2)
        statements.clear()
        found = await orm.get(Book, 2, "stock_quantity")  # which has no index
        assert found is not None
        assert found.title == "searched"
        assert len(statements) == 1  # the one that was interrupted did not come to its end
        await orm.update(Book, 2, "stock_quantity", stock_quantity=3)

    await orm.side.units.run(work, new_context())
    found = await orm.get(Book, "searched", "title")
    assert found is not None
    assert found.stock_quantity == 3
    assert len(await kept(orm)) == 2_001


async def test_who_is_told_goes_on_before_the_next_transaction_begins(orm: ORMService, monkeypatch):
    """A process that is stopped when it brings a change to Redis must not keep the file locked."""
    units = orm.side.units
    locked: list[bool] = []
    connections: list[Any] = []
    commit = units._commit_transaction

    async def committing(transaction: Any) -> bool:
        is_known = await commit(transaction)
        locked.append(connections[-1].in_transaction)
        return is_known

    monkeypatch.setattr(units, "_commit_transaction", committing)

    async def work(unit: UnitOfWork) -> None:
        await orm.create(Book, title=f"{len(connections)}", author="A")
        connections.append(sqlite_under(await unit.transaction.connection()))

    await asyncio.gather(*(units.run(work, new_context(), f"kind {number}") for number in range(5)))
    assert locked == [False] * 5
