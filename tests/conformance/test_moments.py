"""Moments of a database: statements that see one snapshot, on a kept connection or on one of a pool."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConfigService, DiptychError, ORMService
from diptych.sql.postgres import moments
from diptych.sql.statements import FewValues, PreparedSelect
from diptych.sql.view import NotAtOnceError, moment_of, view_of


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "things"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20))


NAMES = PreparedSelect(sa.select(Thing.name).order_by(Thing.id))


@pytest.fixture
async def orm(database_url: str) -> AsyncIterator[ORMService]:
    async with ORMService(ConfigService(environ={}, database_url=database_url)) as service:
        await service.create(Thing, id=1, name="a")
        yield service


on_either = pytest.mark.parametrize("opened", [moment_of, view_of])


async def _names(view: Any) -> list[str]:
    return [name for (name,) in await view.fetch_prepared(NAMES, {})]


@on_either
async def test_statements_of_a_moment_see_the_snapshot_of_the_first(orm, opened):
    database = orm.side.database
    async with opened(database) as view:
        await orm.create(Thing, id=2, name="b")  # before the first statement
        assert await _names(view) == ["a", "b"]
        await orm.create(Thing, id=3, name="c")
        assert await _names(view) == ["a", "b"]
    async with opened(database) as view:
        assert await _names(view) == ["a", "b", "c"]


async def test_moments_at_once_see_a_snapshot_each_or_none(orm):
    """SQLite has one connection for them, whose transaction is not shared; PostgreSQL opens as many as are needed."""
    database = orm.side.database
    async with moment_of(database) as first:
        assert await _names(first) == ["a"]
        await orm.create(Thing, id=2, name="b")
        try:
            async with moment_of(database) as second:
                assert await _names(second) == ["a", "b"]
        except NotAtOnceError:
            assert database.name == "sqlite"
        else:
            assert database.name == "postgresql"
        assert await _names(first) == ["a"]


@on_either
async def test_a_moment_that_fails_is_followed_by_another(orm, opened):
    database = orm.side.database
    with contextlib.suppress(ZeroDivisionError):
        async with opened(database) as view:
            await _names(view)
            raise ZeroDivisionError
    async with opened(database) as view:
        assert await _names(view) == ["a"]


async def test_a_connection_goes_back_to_its_pool_without_the_transaction_that_failed(postgres_url):
    async with ORMService(ConfigService(environ={}, database_url=postgres_url)) as orm:
        database = orm.side.database
        pid = PreparedSelect(sa.select(sa.func.pg_backend_pid()))
        zero = PreparedSelect(sa.select(sa.literal(1) / sa.func.length("")))
        found = []
        for _ in range(2):
            async with view_of(database, database.reader) as view:
                found.append(await view.fetch_prepared(pid, {}))
            with pytest.raises(DiptychError):
                async with view_of(database, database.reader) as view:
                    await view.fetch_prepared(zero, {})
        assert found[0] == found[1]


async def test_a_connection_with_a_statement_that_was_cut_off_is_given_up(postgres_url):
    """★ Its server may still be at the statement, and its transaction is open."""
    async with ORMService(ConfigService(environ={}, database_url=postgres_url)) as orm:
        await orm.create(Thing, id=1, name="a")
        database = orm.side.database
        pid = PreparedSelect(sa.select(sa.func.pg_backend_pid()))
        long = PreparedSelect(sa.select(sa.cast(sa.func.pg_sleep(30), sa.String)))
        async with view_of(database, database.reader) as view:
            ((first,),) = await view.fetch_prepared(pid, {})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), view_of(database, database.reader) as view:
                await view.fetch_prepared(long, {})
        async with view_of(database, database.reader) as view:
            ((second,),) = await view.fetch_prepared(pid, {})
            assert second != first
            assert await _names(view) == ["a"]


async def test_a_connection_whose_transaction_may_go_on_is_given_up(postgres_url, monkeypatch):
    """★ Its next user would read what was there when that transaction began."""
    async with ORMService(ConfigService(environ={}, database_url=postgres_url)) as orm:
        await orm.create(Thing, id=1, name="a")
        database, is_rolling_back, say = orm.side.database, asyncio.Event(), moments._say

        async def wait_before_rolling_back(connection: Any, what: str) -> None:
            if what == "ROLLBACK":
                is_rolling_back.set()
                await asyncio.sleep(30)
            await say(connection, what)

        async def fail() -> None:
            async with view_of(database, database.reader) as view:
                await _names(view)
                raise ZeroDivisionError

        monkeypatch.setattr(moments, "_say", wait_before_rolling_back)
        failing = asyncio.create_task(fail())
        await asyncio.wait_for(is_rolling_back.wait(), 10)
        failing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await failing
        await orm.update(Thing, 1, name="b")
        assert list(await database.read(NAMES.select)) == [("b",)]


async def test_connections_that_expire_while_a_moment_begins_are_not_used_again(postgres_url, monkeypatch):
    async with ORMService(ConfigService(environ={}, database_url=postgres_url)) as orm:
        database: Any = orm.side.database
        pid, say = PreparedSelect(sa.select(sa.func.pg_backend_pid())), moments._say

        async def its_pid() -> Any:
            async with moment_of(database) as view:
                return await view.fetch_prepared(pid, {})

        first = await its_pid()

        async def expire_at_begin(connection: Any, what: str) -> None:
            await say(connection, what)
            if what.startswith("BEGIN"):
                database.moments.expire()

        with monkeypatch.context() as patched:
            patched.setattr(moments, "_say", expire_at_begin)
            assert await its_pid() == first
        assert await its_pid() != first


async def test_a_kept_connection_that_the_server_has_ended_is_replaced(postgres_url):
    async with ORMService(ConfigService(environ={}, database_url=postgres_url)) as orm:
        await orm.create(Thing, id=1, name="a")
        database = orm.side.database
        pid = PreparedSelect(sa.select(sa.func.pg_backend_pid()))
        async with moment_of(database) as view:
            ((kept,),) = await view.fetch_prepared(pid, {})
        async with database.keeper.connect() as connection:
            await connection.execute(sa.select(sa.func.pg_terminate_backend(kept)))
        await asyncio.sleep(0.1)
        async with moment_of(database) as view:
            ((another,),) = await view.fetch_prepared(pid, {})
            assert another != kept
            assert await _names(view) == ["a"]


async def test_connections_that_lead_to_a_server_of_the_past_are_not_used_again(postgres_url):
    """★ What a server shows that is no longer at the address may lack a commit."""
    async with ORMService(ConfigService(environ={}, database_url=postgres_url)) as orm:
        database: Any = orm.side.database
        pid = PreparedSelect(sa.select(sa.func.pg_backend_pid()))

        async def its_pid() -> int:
            async with moment_of(database) as view:
                ((found,),) = await view.fetch_prepared(pid, {})
                return int(found)

        first = await its_pid()
        assert await its_pid() == first
        database.moments.expire()
        second = await its_pid()
        assert second != first
        async with moment_of(database) as view:
            assert await view.fetch_prepared(pid, {}) == [(second,)]
            database.moments.expire()
        assert await its_pid() != second


@on_either
async def test_a_moment_writes_nothing(orm, opened):
    async with contextlib.AsyncExitStack() as stack:
        view = await stack.enter_async_context(opened(orm.side.database))
        writes: Any = sa.insert(Thing).values(id=9, name="z").returning(Thing.id)
        with pytest.raises((NotAtOnceError, sa.exc.DBAPIError)):
            await view.fetch(writes)
    assert len([thing async for thing in orm.iterate(Thing)]) == 1


def test_few_values_are_prepared_by_their_number():
    few, made = FewValues(), []

    def make(given: Any) -> sa.Select[Any]:
        made.append(len(given))
        return sa.select(Thing.name).where(Thing.id.in_(given))

    for values in ([1], [2], [1, 2], [1, 2, 3, 4], list(range(16)), list(range(64))):
        found = few.get("things", values, Thing.id.type, make)
        assert found is not None
        assert list(dict.fromkeys(found[1].values())) == values
    assert made == [1, 4, 16, 64]
    assert few.get("things", list(range(65)), Thing.id.type, make) is None
    assert few.get("things", [], Thing.id.type, make) is None
