"""A unit of work is one transaction: all or nothing, on both databases, whatever happens in the middle of it."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import sqlite3
import sys
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa

from diptych import (
    ConflictError,
    DatabaseBusyError,
    DatabaseUnavailableError,
    DuplicateError,
    ORMService,
    UnitOfWorkError,
)
from diptych.fence.statements import FENCE_STATEMENTS
from diptych.sql.postgres.database import PostgresDatabase
from diptych.sql.postgres.writers import KeptConnections
from diptych.write.unit_of_work import new_context
from diptych.write.units import MAX_ATTEMPTS
from tests.conformance.conftest import config
from tests.conformance.tables import Base, Book
from tests.servers import PostgresServer

R = TypeVar("R")


class SomethingWrong(Exception):
    pass


async def command(orm: ORMService, work: Callable[[], Awaitable[R]]) -> R:
    """Runs `work` as the handler of a command."""
    return await orm.side.units.run(lambda _unit: work(), new_context())


async def titles(orm: ORMService) -> list[str]:
    return [book.title for book in await orm.all(Book)]


async def logged(orm: ORMService) -> int:
    async with orm.database.reader.connect() as connection:
        return int((await connection.execute(sa.text("SELECT count(*) FROM diptych_log"))).scalar_one())


async def add(orm: ORMService, title: str) -> Book:
    return await orm.create(Book, title=title, author="A")


# All or nothing


async def test_everything_is_committed_when_the_handler_returns(orm: ORMService):
    async def work() -> str:
        await add(orm, "a")
        await add(orm, "b")
        await orm.delete(Book, "a", "title")
        return "result"

    assert await command(orm, work) == "result"
    assert await titles(orm) == ["b"]
    assert await logged(orm) == 3


async def test_nothing_is_left_when_the_handler_raises(orm: ORMService):
    await add(orm, "there before")

    async def work() -> None:
        await add(orm, "a")
        await orm.update(Book, "there before", "title", title="changed")
        raise SomethingWrong

    with pytest.raises(SomethingWrong):
        await command(orm, work)
    assert await titles(orm) == ["there before"]
    assert await logged(orm) == 1


async def test_a_handler_sees_its_own_changes_and_nobody_else_does(orm: ORMService):
    other = ORMService(config(orm.database.reader.url.render_as_string(hide_password=False)))
    await other.init(models=Base)

    async def work() -> None:
        await add(orm, "a")
        assert await titles(orm) == ["a"]
        assert await titles(other) == []

    await command(orm, work)
    assert await titles(other) == ["a"]
    await other.close()


async def test_a_statement_that_failed_cannot_be_swallowed(orm: ORMService):
    """PostgreSQL would refuse the rest, SQLite would commit it: diptych refuses on both."""

    async def work() -> None:
        await add(orm, "a")
        with pytest.raises(DuplicateError):
            await add(orm, "a")
        with pytest.raises(
            UnitOfWorkError, match="one of its statements failed: let the error leave the handler"
        ):
            await add(orm, "b")
        with pytest.raises(UnitOfWorkError):
            await orm.get(Book, 1)

    with pytest.raises(UnitOfWorkError, match="one of its statements failed"):
        await command(orm, work)
    assert await titles(orm) == []
    assert await logged(orm) == 0


async def test_what_is_refused_before_any_statement_may_be_handled(orm: ORMService):
    async def work() -> None:
        with pytest.raises(ValueError, match="author is missing"):
            await orm.create(Book, title="a")
        await add(orm, "b")

    await command(orm, work)
    assert await titles(orm) == ["b"]


async def test_a_command_inside_a_command_joins_it(orm: ORMService):
    async def inner() -> None:
        await add(orm, "inner")

    async def work() -> None:
        await command(orm, inner)
        assert await titles(orm) == ["inner"]
        raise SomethingWrong

    with pytest.raises(SomethingWrong):
        await command(orm, work)
    assert await titles(orm) == []


async def test_calls_alone_are_transactions_of_their_own(orm: ORMService):
    await add(orm, "a")
    with pytest.raises(DuplicateError):
        await add(orm, "a")
    assert await titles(orm) == ["a"]


async def test_another_database_has_transactions_of_its_own(orm: ORMService, tmp_path: Path):
    """Within a command over one database, what is written to another does not land in the first."""
    async with ORMService(config(str(tmp_path / "archive.db"))) as archive:
        await archive.all(Book)

        async def in_archive() -> None:
            await add(archive, "archived")
            await add(orm, "from inside the archive's command")

        async def work() -> None:
            await add(orm, "a")
            await command(archive, in_archive)
            assert await titles(orm) == ["a", "from inside the archive's command"]
            raise SomethingWrong

        with pytest.raises(SomethingWrong):
            await command(orm, work)
        assert await titles(archive) == ["archived"]
        assert await titles(orm) == []


# Tasks


async def test_concurrent_tasks_of_a_handler_take_turns(orm: ORMService):
    async def work() -> None:
        await asyncio.gather(*(add(orm, f"{i:02}") for i in range(20)), *(orm.all(Book) for _ in range(5)))

    await command(orm, work)
    assert sorted(await titles(orm)) == [f"{i:02}" for i in range(20)]
    assert await logged(orm) == 20


async def test_when_one_of_several_tasks_fails_nothing_is_left(orm: ORMService):
    """The others are still running, or waiting for their turn, when the transaction is rolled back."""

    async def fail() -> None:
        await orm.all(Book)
        raise SomethingWrong

    async def work() -> None:
        await asyncio.gather(fail(), *(add(orm, str(i)) for i in range(10)))

    for _ in range(5):
        with pytest.raises(SomethingWrong):
            await command(orm, work)
    assert await titles(orm) == []
    assert await logged(orm) == 0


async def test_a_task_left_behind_is_refused(orm: ORMService):
    over = asyncio.Event()
    left: list[asyncio.Task[Any]] = []

    async def late(call: Callable[[], Awaitable[Any]]) -> None:
        await over.wait()
        await call()

    async def work() -> None:
        await add(orm, "a")
        for call in (lambda: add(orm, "late"), lambda: orm.get(Book, 1), lambda: orm.all(Book)):
            left.append(asyncio.create_task(late(call)))

    await command(orm, work)
    over.set()
    for outcome in await asyncio.gather(*left, return_exceptions=True):
        assert isinstance(outcome, UnitOfWorkError)
        assert "do not leave tasks behind in a handler" in str(outcome)
    assert await titles(orm) == ["a"]


async def test_a_task_left_in_the_midst_of_a_statement_is_whole_or_refused(orm: ORMService):
    """The transaction ends after its statement and never in it: each row has its row of the log."""
    for steps in range(12):
        title = f"left after {steps} steps"
        left: list[asyncio.Task[Any]] = []

        async def work(title: str = title, steps: int = steps, left: list[asyncio.Task[Any]] = left) -> None:
            left.append(asyncio.create_task(add(orm, title)))
            for _ in range(steps):
                await asyncio.sleep(0)

        before = await logged(orm)
        await command(orm, work)
        (outcome,) = await asyncio.gather(*left, return_exceptions=True)
        kept = [found for found in await titles(orm) if found == title]
        assert kept == ([] if isinstance(outcome, UnitOfWorkError) else [title])
        assert await logged(orm) - before == len(kept)


async def test_a_failure_of_a_task_left_behind_is_not_committed_over(orm: ORMService):
    await add(orm, "a")
    begun = asyncio.Event()

    async def duplicate() -> None:
        begun.set()
        await add(orm, "a")

    left: list[asyncio.Task[Any]] = []

    async def work() -> None:
        await add(orm, "b")
        left.append(asyncio.create_task(duplicate()))
        await begun.wait()
        await asyncio.sleep(0)

    with pytest.raises(UnitOfWorkError, match="one of its statements failed"):
        await command(orm, work)
    with pytest.raises(DuplicateError):
        await left[0]
    assert await titles(orm) == ["a"]


# Concurrent commands


async def test_concurrent_changes_of_one_row_are_none_of_them_lost(orm: ORMService):
    """Each reads the row and writes back what it has read plus one; PostgreSQL has those run again that were late."""
    await add(orm, "counter")

    async def increment() -> None:
        book = await orm.get(Book, "counter", "title")
        assert book is not None
        await orm.update(Book, book.id, stock_quantity=book.stock_quantity + 1)

    await asyncio.gather(*(command(orm, increment) for _ in range(20)))
    counter = await orm.get(Book, "counter", "title")
    assert counter is not None
    assert counter.stock_quantity == 20
    assert await logged(orm) == 21


async def test_a_command_that_always_loses_is_refused_after_all_attempts(
    postgres_url: str, caplog: pytest.LogCaptureFixture
):
    """A rival changes the row each time between the command's reading and its writing; the log has their number."""
    caplog.set_level(logging.INFO)
    attempts = itertools.count(1)
    async with ORMService(config(postgres_url)) as orm, ORMService(config(postgres_url)) as rival:
        await add(orm, "a")

        async def work() -> None:
            await orm.get(Book, 1)
            assert await rival.update(Book, 1, stock_quantity=next(attempts))
            await orm.update(Book, 1, author="B")

        with pytest.raises(
            ConflictError, match=f"on each of {MAX_ATTEMPTS} attempts; nothing was changed"
        ) as caught:
            await command(orm, work)
        assert caught.value.retry_after_s >= 1
        assert next(attempts) == MAX_ATTEMPTS + 1
        book = await orm.get(Book, 1)
        assert book is not None
        assert (book.author, book.stock_quantity) == ("A", MAX_ATTEMPTS)
    lines = [line for line in caplog.messages if "lost to others" in line]
    assert sum(int(line.partition(" ")[0]) for line in lines) == MAX_ATTEMPTS - 1
    assert len(lines) <= 2, "a burst is one line, and may fall into two where the machine is busy"
    assert not any("retry" in line for line in caplog.messages)


async def test_a_command_that_lost_once_is_run_again_from_its_start(postgres_url: str):
    seen: list[int] = []
    async with ORMService(config(postgres_url)) as orm, ORMService(config(postgres_url)) as rival:
        await add(orm, "a")

        async def work() -> None:
            book = await orm.get(Book, 1)
            assert book is not None
            seen.append(book.stock_quantity)
            await add(orm, "b")
            if len(seen) == 1:
                await rival.update(Book, 1, stock_quantity=7)
            await orm.update(Book, 1, stock_quantity=book.stock_quantity + 1)

        await command(orm, work)
        assert seen == [0, 7]
        assert [book.stock_quantity for book in await orm.all(Book)] == [8, 0]
        assert await logged(orm) == 4


# Cancellation


@types.coroutine
def cancelled_at(
    coroutine: Coroutine[Any, Any, R], waits: int, cancel: Callable[[], object]
) -> Generator[Any, Any, R]:
    """Drives a coroutine, and cancels when it waits for the event loop for this many times."""
    step: Callable[[Any], Any] = coroutine.send
    argument: Any = None
    for number in itertools.count(1):
        try:
            awaited = step(argument)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        if number == waits:
            cancel()
        try:
            argument = yield awaited
            step = coroutine.send
        except BaseException as error:
            step, argument = coroutine.throw, error
    raise AssertionError


def _in_use(orm: ORMService) -> int:
    if isinstance(orm.database, PostgresDatabase):
        assert isinstance(orm.database.writers, KeptConnections)
        return orm.database.writers.in_use
    pool: Any = orm.database.writer.pool
    return int(pool.checkedout())


@pytest.mark.parametrize("connection", ["open", "new"])
async def test_a_command_that_is_cancelled_leaves_everything_or_nothing(orm: ORMService, connection: str):
    """Cancelled at each point where it waits; rows and log agree, and the service stays usable."""
    numbers = itertools.count()

    async def cancelled(waits: int) -> tuple[type, int]:
        number = next(numbers)
        first, second = f"{number} first", f"{number} second"

        async def work() -> None:
            await add(orm, first)
            await add(orm, second)

        async def run() -> None:
            task = asyncio.current_task()
            assert task is not None
            await cancelled_at(command(orm, work), waits, task.cancel)

        await add(orm, f"{number} before")  # with a connection that is used again
        if connection == "new":
            if isinstance(orm.database, PostgresDatabase):
                await orm.database.writers.close()
            await orm.database.writer.dispose()
        before = await logged(orm)
        (outcome,) = await asyncio.gather(asyncio.create_task(run()), return_exceptions=True)
        await orm.side.units.settle()
        kept = [title for title in await titles(orm) if title in (first, second)]
        assert kept in ([], [first, second])
        assert await logged(orm) - before == len(kept)
        assert _in_use(orm) == 0
        return type(outcome), len(kept)

    waits, outcomes = 1, {await cancelled(1)}
    while (type(None), 2) not in outcomes:
        waits += 1
        outcomes.add(await cancelled(waits))
    assert waits > 2
    # On a busy machine it does not wait as often every time.
    while (asyncio.CancelledError, 2) not in outcomes and waits > 1:
        waits -= 1
        outcomes.add(await cancelled(waits))
    # The commit goes on once it has begun, though nobody waits for it any more.
    assert outcomes == {(asyncio.CancelledError, 0), (asyncio.CancelledError, 2), (type(None), 2)}
    await add(orm, "afterwards")


async def test_closing_waits_for_what_is_being_committed(database_url: str):
    orm = ORMService(config(database_url))
    await orm.init(models=Base)
    tasks = [asyncio.create_task(add(orm, str(i))) for i in range(5)]
    await asyncio.gather(*tasks)
    task = asyncio.create_task(add(orm, "last"))
    while not orm.side.units._concluding and not task.done():  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)
    await orm.close()
    await task
    await orm.init(models=Base)
    assert "last" in await titles(orm)
    await orm.close()


# SQLite: other processes


WRITER = """
import asyncio, sys
from diptych import ConfigService, ORMService
from tests.conformance.tables import Base, Book

async def main(url, name):
    orm = ORMService(ConfigService(environ={}, database_url=url))
    await orm.init(models=Base)
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(50):
        await orm.create(Book, title=f"{name} {i}", author="A")
    await orm.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_two_processes_that_write_one_file_wait_for_each_other(sqlite_url: str):
    orm = ORMService(config(sqlite_url))
    await orm.init(models=Base)
    pipe = asyncio.subprocess.PIPE
    root = Path(__file__).parents[2]
    writers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, sqlite_url, name, cwd=root, stdin=pipe, stdout=pipe
        )
        for name in "ab"
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert await writer.stdout.readline() == b"ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
    for i in range(50):
        await add(orm, f"c {i}")
    assert [await writer.wait() for writer in writers] == [0, 0]
    for writer in writers:
        await writer.communicate()
    assert sorted(await titles(orm)) == sorted(f"{name} {i}" for name in "abc" for i in range(50))
    assert await logged(orm) == 150
    await orm.close()


async def test_a_busy_file_is_waited_for(sqlite_url: str):
    async with ORMService(config(sqlite_url)) as orm:
        await orm.all(Book)
        holder = sqlite3.connect(orm.database.reader.url.database or "", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(add(orm, "a"))
        assert await titles(orm) == []  # readers don't wait
        assert not writing.done()
        holder.execute("ROLLBACK")
        await writing
        holder.close()
        assert await titles(orm) == ["a"]


async def test_a_file_that_stays_busy_is_reported(sqlite_url: str):
    async with ORMService(config(sqlite_url, database_timeout_ms=50)) as orm:
        await orm.all(Book)
        holder = sqlite3.connect(orm.database.reader.url.database or "", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            DatabaseBusyError, match="held the SQL database for longer than DATABASE_TIMEOUT_MS"
        ) as caught:
            await add(orm, "a")
        assert caught.value.retry_after_s >= 1
        holder.execute("ROLLBACK")
        holder.close()
        await add(orm, "a")


async def test_a_writing_connection_that_stays_in_use_is_reported(sqlite_url: str):
    async with ORMService(config(sqlite_url, database_timeout_ms=50)) as orm:
        await orm.all(Book)
        held, release = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            held.set()
            await release.wait()

        holding = asyncio.create_task(command(orm, hold))
        await held.wait()
        with pytest.raises(DatabaseBusyError):
            await add(orm, "a")
        release.set()
        await holding
        await add(orm, "a")


# PostgreSQL: away and back


@pytest.fixture(scope="module")
def own_postgres():
    """A server of these tests' own, which they stop."""
    with PostgresServer() as server:
        yield server


async def test_a_server_that_is_away_is_told_and_found_again(own_postgres: PostgresServer):
    async with ORMService(config(own_postgres.url_of(own_postgres.create_database()))) as orm:
        await add(orm, "before")
        own_postgres.stop()
        for call in (orm.get(Book, 1), orm.all(Book), add(orm, "meanwhile"), orm.delete(Book, 1)):
            with pytest.raises(DatabaseUnavailableError) as caught:
                await call
            assert not isinstance(caught.value, DatabaseBusyError)
            assert caught.value.retry_after_s >= 1
        assert (await orm.side.health()).state == "away"
        own_postgres.start()
        assert (await orm.side.health()).state == "up"
        await add(orm, "after")
        assert await titles(orm) == ["before", "after"]


async def test_a_restart_between_two_calls_is_not_noticed(own_postgres: PostgresServer):
    own_postgres.start()
    async with ORMService(config(own_postgres.url_of(own_postgres.create_database()))) as orm:
        await add(orm, "before")
        own_postgres.restart()
        await asyncio.sleep(0.01)  # the closed connections are noticed by the event loop
        assert await titles(orm) == ["before"]
        await add(orm, "after")


async def test_a_server_that_goes_away_within_a_command_fails_it(own_postgres: PostgresServer):
    own_postgres.start()
    async with ORMService(config(own_postgres.url_of(own_postgres.create_database()))) as orm:
        await orm.all(Book)

        async def work() -> None:
            await add(orm, "a")
            own_postgres.kill()
            await add(orm, "b")

        with pytest.raises(DatabaseUnavailableError):
            await command(orm, work)
        own_postgres.start()
        assert await titles(orm) == []


async def test_a_server_that_goes_away_at_the_commit_leaves_it_open_whether_it_happened(
    own_postgres: PostgresServer,
):
    own_postgres.start()
    async with ORMService(config(own_postgres.url_of(own_postgres.create_database()))) as orm:
        await orm.all(Book)

        async def work() -> None:
            await add(orm, "a")
            own_postgres.kill()

        with pytest.raises(
            DatabaseUnavailableError, match="broke during the commit: the change may be there or not"
        ):
            await command(orm, work)
        own_postgres.start()
        assert await titles(orm) == []


# PostgreSQL: its own time-outs


@pytest.fixture
async def postgres_orm(postgres_url: str):
    async with ORMService(config(postgres_url)) as orm:
        await orm.all(Book)
        yield orm


async def test_a_time_out_of_the_server_is_told_in_its_words_with_what_to_do(postgres_orm: ORMService):
    await add(postgres_orm, "a")
    lock = "SELECT 1 FROM books FOR UPDATE"

    async def timed_out(setting: str, statement: str) -> None:
        await postgres_orm.execute(sa.text(f"SET LOCAL {setting} = 50"))
        await postgres_orm.execute(sa.text(statement))

    async with postgres_orm.database.writer.connect() as holder:
        await holder.execute(sa.text(lock))
        for setting, statement, words in (
            ("statement_timeout", "SELECT pg_sleep(5)", "statement timeout.*raise statement_timeout"),
            ("lock_timeout", lock, "lock timeout.*raise lock_timeout"),
            ("lock_timeout", f"{lock} NOWAIT", "could not obtain lock.*raise lock_timeout"),
        ):
            with pytest.raises(DatabaseBusyError, match=words) as caught:
                await command(postgres_orm, functools.partial(timed_out, setting, statement))
            assert "DATABASE_TIMEOUT_MS" not in str(caught.value)


async def test_a_time_out_after_the_commit_leaves_it_open_whether_it_happened(
    postgres_orm: ORMService, monkeypatch: pytest.MonkeyPatch
):
    """The commit is sent together with a look at the leases: a time-out of either is the same error."""
    await add(postgres_orm, "adopted")
    slow = sa.select(sa.text("CAST(pg_sleep(5) AS text)"))
    monkeypatch.setattr(FENCE_STATEMENTS["postgresql"], "leased", slow)

    async def work() -> None:
        await add(postgres_orm, "a")
        await postgres_orm.execute(sa.text("SELECT set_config('statement_timeout', '50', false)"))

    with pytest.raises(
        DatabaseUnavailableError, match=r"the change may be there or not: .*statement timeout"
    ) as caught:
        await command(postgres_orm, work)
    assert not isinstance(caught.value, DatabaseBusyError)
    assert await titles(postgres_orm) == ["adopted", "a"]


async def test_a_look_that_fails_after_the_commit_leaves_it_open_whether_it_happened(
    postgres_orm: ORMService, monkeypatch: pytest.MonkeyPatch
):
    """Its table was taken away meanwhile, or the rights on the table: the change is committed nevertheless."""
    await add(postgres_orm, "adopted")
    gone = sa.select(sa.literal("")).select_from(sa.table("is_gone"))
    monkeypatch.setattr(FENCE_STATEMENTS["postgresql"], "leased", gone)

    async def work() -> None:
        await add(postgres_orm, "a")
        await postgres_orm.all(Book)

    with pytest.raises(
        DatabaseUnavailableError, match=r"the change may be there or not: .*is_gone"
    ) as caught:
        await command(postgres_orm, work)
    assert caught.value.may_be_done
    assert await titles(postgres_orm) == ["adopted", "a"]
