"""Connections of PostgreSQL that are passed from one unit of work to the next."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa

from diptych import DatabaseBusyError, DatabaseUnavailableError, ORMService
from diptych.sql.postgres.database import PostgresDatabase
from diptych.sql.postgres.writers import KeptConnections
from diptych.write.unit_of_work import new_context
from tests.conformance.conftest import config
from tests.conformance.tables import Base, Book


@pytest.fixture(params=[1, 2, 3])
async def orm(request: pytest.FixtureRequest, postgres_url: str) -> AsyncIterator[ORMService]:
    settings = {"database_pool_size": request.param, "database_timeout_ms": 500}
    async with ORMService(config(postgres_url, **settings)) as service:
        await service.init(models=Base)
        yield service


def _kept(orm: ORMService) -> KeptConnections:
    assert isinstance(orm.database, PostgresDatabase)
    assert isinstance(orm.database.writers, KeptConnections)
    return orm.database.writers


def _checked_out(orm: ORMService) -> int:
    pool: Any = orm.database.writer.pool
    return int(pool.checkedout())


async def _held(orm: ORMService, go_on: asyncio.Event, title: str) -> None:
    async def work(_unit: Any) -> None:
        await orm.create(Book, title=title, author="A")
        await go_on.wait()

    await orm.side.units.run(work, new_context())


async def _begun(orm: ORMService, go_on: asyncio.Event) -> list[asyncio.Task[None]]:
    """So many units of work as have connections, each in a transaction."""
    most = max(1, orm._settings.database_pool_size - 1)
    tasks = [asyncio.create_task(_held(orm, go_on, f"held {number}")) for number in range(most)]
    while _kept(orm).in_use < most:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.01)
    return tasks


async def test_more_units_than_connections_are_all_run_and_the_pool_has_one_left(orm: ORMService):
    await asyncio.gather(*(orm.create(Book, title=f"{n}", author="A") for n in range(50)))
    assert _kept(orm).in_use == 0
    size = orm._settings.database_pool_size
    assert _checked_out(orm) <= size - 1
    async with orm.database.writer.connect() as connection:
        assert (await connection.execute(sa.select(sa.func.count()).select_from(Book))).scalar_one() == 50


async def test_who_waits_too_long_is_told_so_and_takes_nothing_from_others(orm: ORMService):
    go_on = asyncio.Event()
    tasks = await _begun(orm, go_on)
    with pytest.raises(DatabaseBusyError, match="DATABASE_POOL_SIZE"):
        await orm.create(Book, title="late", author="A")
    go_on.set()
    await asyncio.gather(*tasks)
    await orm.create(Book, title="late", author="A")
    assert _kept(orm).in_use == 0


async def test_who_is_cancelled_as_the_wait_ends_is_cancelled(orm: ORMService):
    kept, size = _kept(orm), orm._settings.database_pool_size
    taken = [await kept.take() for _ in range(max(1, size - 1))]
    waiting = asyncio.create_task(kept.take())
    await asyncio.sleep(0)
    kept._waiting[0] = (kept._waiting[0][0], 0.0)
    kept._give_up()  # the task does not know yet
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    for connection in taken:
        await kept.give_back(connection)
    assert kept.in_use == 0


async def test_a_connection_that_comes_as_its_waiter_is_cancelled_goes_to_the_next(orm: ORMService):
    kept, size = _kept(orm), orm._settings.database_pool_size
    taken = [await kept.take() for _ in range(max(1, size - 1))]
    waiting = [asyncio.create_task(kept.take()) for _ in range(3)]
    await asyncio.sleep(0)
    await kept.give_back(taken[0])  # it is the first one's, who does not know yet
    waiting[0].cancel()
    second = await asyncio.wait_for(waiting[1], 5)
    await kept.give_back(second)
    await kept.give_back(await asyncio.wait_for(waiting[2], 5))
    for connection in taken[1:]:
        await kept.give_back(connection)
    assert waiting[0].cancelled()
    assert kept.in_use == 0


async def test_a_connection_that_the_server_has_closed_is_replaced(orm: ORMService):
    await asyncio.gather(*(orm.create(Book, title=f"{n}", author="A") for n in range(4)))
    async with orm.database.keeper.connect() as connection:
        await connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    await asyncio.sleep(0.2)
    await asyncio.gather(*(orm.create(Book, title=f"again {n}", author="A") for n in range(4)))
    assert _kept(orm).in_use == 0


async def test_the_connection_of_a_session_is_kept_without_its_transaction(orm: ORMService):
    async with orm.session() as session:
        session.add(Book(title="T", author="A"))
        async with session.begin_nested():
            session.add(Book(title="U", author="A"))
    assert (_kept(orm).in_use, _checked_out(orm)) == (0, min(1, orm._settings.database_pool_size - 1))
    async with orm.database.keeper.connect() as connection:
        open_ones = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND state LIKE 'idle in transaction%' AND pid <> pg_backend_pid()"
        )
        assert await connection.scalar(sa.text(open_ones)) == 0

    async def fails() -> None:
        async with orm.session() as session:
            session.add(Book(title="V", author="A"))
            await session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert set((await orm.execute(sa.select(Book.title))).scalars()) == {"T", "U"}


async def test_the_connection_of_a_session_that_altered_it_goes_to_the_pool(orm: ORMService):
    async with orm.session() as session:
        session.add(Book(title="T", author="A"))
        await (await session.connection()).execution_options(stream_results=True)
    assert (_kept(orm).in_use, _checked_out(orm)) == (0, 0)
    assert await orm.get(Book, "T", "title") is not None


@pytest.mark.parametrize("is_nested", [True, False])
async def test_a_connection_that_breaks_under_a_session_is_told_as_such(orm: ORMService, is_nested: bool):
    async def work(_unit: Any) -> None:
        async with orm.session() as session:
            session.add(Book(title="T", author="A"))
            await session.flush()
            async with session.begin_nested() if is_nested else contextlib.nullcontext():
                session.add(Book(title="U", author="A"))
                pid = await session.scalar(sa.text("SELECT pg_backend_pid()"))
                async with orm.database.keeper.connect() as connection:
                    await connection.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
                await asyncio.sleep(0.2)
                await session.flush()

    with pytest.raises(DatabaseUnavailableError):
        await orm.side.units.run(work, new_context())
    await orm.create(Book, title="V", author="A")
    assert set((await orm.execute(sa.select(Book.title))).scalars()) == {"V"}
    assert _kept(orm).in_use == 0
