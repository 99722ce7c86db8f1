"""Statements that go to PostgreSQL's driver directly: the same answers, and the same errors, as through an engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from diptych import DatabaseBusyError, DatabaseUnavailableError, ORMService
from diptych.fence.contract import FenceId, FenceRow
from diptych.sql.postgres.database import PostgresDatabase
from tests.conformance.conftest import config
from tests.conformance.tables import Base, Book

FENCE = FenceId("test:Books", "1")


@pytest.fixture
async def orm(postgres_url: str) -> AsyncIterator[ORMService]:
    async with ORMService(config(postgres_url)) as service:
        await service.init(models=Base)
        await service.side.fence.register(FENCE, ["books"])
        yield service


async def row(orm: ORMService) -> FenceRow:
    (found,) = await orm.side.fence.rows()
    return found


async def building(orm: ORMService, until: float) -> None:
    async with orm.database.writer.begin() as connection:
        await connection.execute(
            sa.text("UPDATE diptych_fence SET building_until = :until"), {"until": until}
        )


async def test_the_fence_is_read_as_through_an_engine(orm: ORMService):
    directly = await row(orm)
    assert directly.id == FENCE
    assert directly.tables == {"books"}
    assert directly.now > 1_000_000_000
    assert isinstance(orm.database, PostgresDatabase)
    orm.database.dedicated._is_busy = True  # then the engine is asked
    assert {type(value) for value in vars_of(await row(orm))} == {type(value) for value in vars_of(directly)}


def vars_of(row: FenceRow) -> list[object]:
    return [getattr(row, name) for name in row.__struct_fields__]


async def test_each_read_is_of_all_that_was_committed_before(orm: ORMService):
    for until in (1.5, 2.5, 3.5):
        await building(orm, until)
        assert (await row(orm)).building_until == until


async def test_commands_ask_no_engine_for_the_fence(orm: ORMService):
    asked: list[str] = []
    await orm.create(Book, title="first", author="A")
    sa.event.listen(
        orm.database.keeper.sync_engine, "after_cursor_execute", lambda *call: asked.append(call[2])
    )
    for number in range(5):
        await orm.create(Book, title=str(number), author="A")
    assert asked == []


async def test_reads_at_the_same_time_are_all_answered(orm: ORMService):
    await building(orm, 7.0)
    rows = await asyncio.gather(*(row(orm) for _ in range(6)))
    assert [found.building_until for found in rows] == [7.0] * 6


async def test_a_connection_that_was_cut_is_replaced(orm: ORMService):
    await row(orm)
    async with orm.database.writer.connect() as connection:
        await connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    for until in (1.0, 2.0):
        await building(orm, until)
        assert (await row(orm)).building_until == until


async def test_a_read_that_is_cancelled_leaves_no_answer_to_the_next_one(orm: ORMService):
    for steps in range(12):
        await building(orm, steps)
        reading = asyncio.create_task(row(orm))
        for _ in range(steps):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        await building(orm, steps + 0.5)
        assert (await row(orm)).building_until == steps + 0.5


async def test_an_error_at_the_row_of_the_log_is_told_as_ever_and_leaves_nothing(orm: ORMService):
    async with orm.database.writer.begin() as connection:
        name = (await connection.execute(sa.text("SELECT current_database()"))).scalar_one()
        await connection.execute(sa.text(f"ALTER DATABASE {name} SET lock_timeout = '100ms'"))
    await orm.database.writer.dispose()
    async with orm.database.reader.connect() as holder:
        await holder.execute(sa.text("SET default_transaction_read_only = off"))
        await holder.execute(sa.text("BEGIN"))
        await holder.execute(sa.text("LOCK TABLE diptych_log"))
        with pytest.raises(DatabaseBusyError):
            await orm.create(Book, title="T", author="A")
        await holder.execute(sa.text("ROLLBACK"))
    assert await orm.all(Book) == []
    await orm.create(Book, title="T", author="A")


@pytest.mark.parametrize("way", ["prepare", "fetch"])
async def test_a_statement_on_a_session_that_the_server_is_ending_tells_that_sql_is_away(
    orm: ORMService, monkeypatch: pytest.MonkeyPatch, way: str
):
    """Between the server's last words and the end of the connection, asyncpg has an error of its own."""
    await orm.create(Book, title="before", author="A")

    async def refused(*_arguments: Any, **_named: Any) -> None:
        raise asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress")

    with monkeypatch.context() as patch:
        patch.setattr(asyncpg.Connection, way, refused)
        with pytest.raises(DatabaseUnavailableError):
            await (orm.create(Book, title="meanwhile", author="A") if way == "fetch" else orm.all(Book))
    await orm.create(Book, title="after", author="A")
    assert [book.title for book in await orm.all(Book)] == ["before", "after"]


async def test_a_new_connection_that_the_server_ends_at_once_tells_that_sql_is_away(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    async def refused(*_arguments: Any, **_named: Any) -> None:
        raise asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress")

    monkeypatch.setattr(asyncpg.Connection, "fetchval", refused)
    with pytest.raises(DatabaseUnavailableError):
        await ORMService(config(postgres_url)).init(models=Base)
