"""The change log is forgotten by its age, and never before all who still have to read it have done so."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych import ConfigService, Diptych, RebuildFailedError
from diptych.fence.statements import followers
from diptych.log.retention import Retention
from tests.books import AddBook, BookReadModel, DeleteBook
from tests.catalogue import (
    Held,
    agree,
    catalogue,
    eventually,
    fence_row,
    sees,
    sees_in_redis,
    set_author,
    store_of,
)


async def _forget(app: Diptych, **days: Any) -> None:
    """What each process does at its start and every hour."""
    settings, database = ConfigService(environ={}, **days).settings, app.orm.database
    await Retention(database, settings, followers(database.name)).run()


async def _execute(app: Diptych, statement: str) -> None:
    async with app.orm.database.writer.begin() as connection:
        await connection.execute(sa.text(statement))


async def _all_is_old(app: Diptych) -> None:
    """Whatever clock says so."""
    await _execute(app, "UPDATE diptych_log SET recorded_at = '2001-01-01 00:00:00.000000'")


async def _logged(app: Diptych) -> int:
    async with app.orm.database.reader.connect() as connection:
        return int((await connection.execute(sa.text("SELECT count(*) FROM diptych_log"))).scalar_one())


async def _newest(app: Diptych) -> int:
    """The number of the newest transaction in the log."""
    is_sqlite = app.orm.database.name == "sqlite"
    newest = "max(position)" if is_sqlite else "max(transaction::text::bigint)"
    async with app.orm.database.reader.connect() as connection:
        return int((await connection.execute(sa.text(f"SELECT {newest} FROM diptych_log"))).scalar_one())


async def _carried(app: Diptych) -> None:
    """Waits until the cursor of the generation that serves has passed all that is in the log."""
    newest = await _newest(app)

    async def has_passed() -> bool:
        cursor = (await fence_row(app)).cursor
        return cursor is not None and newest < cursor.xmin

    await eventually(has_passed, "a pass has carried everything")


@pytest.mark.parametrize("days", [{"log_retention_days": 1}, {"log_personal_data_days": 1}])
async def test_a_planned_rebuild_still_finds_in_the_log_what_it_has_to_bring_in(
    database_url: str, valkey: Any, days: dict[str, int]
) -> None:
    """The generation that serves has it already; the rebuild has read the rows before they were changed."""
    async with catalogue(database_url, valkey.url) as app:
        for number in range(5):
            await app.execute(AddBook(f"{number}", "old"))
        await sees_in_redis(app, "1", "old")
        held = Held(store_of(app), "backfill", after=True)
        rebuilding = asyncio.create_task(app.rebuild(BookReadModel))
        await held.reached.wait()
        await set_author(app, "1", "new")
        await app.execute(DeleteBook("2"))
        await _carried(app)
        await _all_is_old(app)
        await _forget(app, **days)
        held.go_on.set()
        await rebuilding
        await sees_in_redis(app, "1", "new")
        await sees_in_redis(app, "2", None)
        await agree(app)
        await _carried(app)
        await _forget(app, log_retention_days=1)
        assert await _logged(app) == 0, "afterwards nothing holds it"


async def test_a_rebuild_that_stood_still_for_long_fails_and_is_not_published(
    database_url: str, valkey: Any
) -> None:
    """The log is not kept for it for ever."""
    async with catalogue(database_url, valkey.url, lease_ms=20_000) as app:
        await app.execute(AddBook("1", "old"))
        await sees_in_redis(app, "1", "old")
        former = (await fence_row(app)).generation
        held = Held(store_of(app), "backfill", after=True)
        rebuilding = asyncio.create_task(app.rebuild(BookReadModel))
        await held.reached.wait()
        await set_author(app, "1", "new")
        await _execute(app, f"UPDATE diptych_fence SET building_until = 1 WHERE generation != '{former}'")
        await _forget(app, log_retention_days=1)
        held.go_on.set()
        with pytest.raises(RebuildFailedError, match="Start it again"):
            await rebuilding
        assert (await fence_row(app)).generation == former
        await sees(app, "1", "new")
        assert [row.id for row in await app.orm.side.fence.rows()] == [(await fence_row(app)).id]
        with redis.Redis.from_url(valkey.url) as client:
            assert all(former.encode() in key for key in client.keys("*marker"))
        await app.rebuild(BookReadModel)
        await sees_in_redis(app, "1", "new")


_MANY = 25_000


async def _fill(app: Diptych) -> None:
    """Adds entries to the log that nobody has read for years."""
    numbers = f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {_MANY}) "
    columns = "entity, table_name, key, kind, version, command_id, recorded_at, image"
    insert = f"INSERT INTO diptych_log ({columns}) "
    entry = "'Book', 'books', '{\"id\"\\:1}', 'created', 1, '', '2001-01-01 00:00:00.000000', '{}'"
    await _execute(app, f"{insert} {numbers} SELECT {entry} FROM n")


class _Parts:
    """The numbers of those entries that each transaction of retention forgets."""

    def __init__(self, app: Diptych, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        self.after_each: Callable[[], object] = lambda: None
        self._begin = app.orm.database.begin
        monkeypatch.setattr(app.orm.database, "begin", self.begin)

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        async with self._begin() as connection:
            before = await self._left(connection)
            yield connection
            if forgotten := before - await self._left(connection):
                self.rows.append(forgotten)
        if forgotten:
            self.after_each()

    async def _left(self, connection: AsyncConnection) -> int:
        left = sa.text("SELECT count(*) FROM diptych_log WHERE image = '{}'")
        return int((await connection.execute(left)).scalar_one())


@pytest.mark.parametrize("setting", ["log_retention_days", "log_personal_data_days"])
async def test_a_large_log_is_forgotten_in_parts(
    database_url: str, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """Others have their turn between two parts, and no statement takes longer for a larger log."""
    async with catalogue(database_url) as app:
        await app.execute(AddBook("1", "x"))
        await _fill(app)
        parts = _Parts(app, monkeypatch)
        await _forget(app, **{setting: 1})
        assert sum(parts.rows) == _MANY
        assert max(parts.rows) <= 10_000
        await app.execute(AddBook("2", "x"))
        assert await _logged(app) == (2 if setting == "log_retention_days" else _MANY + 2)
        parts.rows.clear()
        await _forget(app, **{setting: 1})
        assert parts.rows == [], "the younger rows stay"


async def test_who_stops_leaves_the_rest_of_the_log_for_the_next_run(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with catalogue(database_url) as app:
        await _fill(app)
        parts = _Parts(app, monkeypatch)
        settings, database = ConfigService(environ={}, log_retention_days=1).settings, app.orm.database
        retention = Retention(database, settings, followers(database.name))
        stopped = asyncio.Event()

        async def stop() -> None:
            await retention.stop()
            stopped.set()

        parts.after_each = lambda: asyncio.get_running_loop().create_task(stop())
        retention.start()
        await asyncio.wait_for(stopped.wait(), 20)
        assert 0 < await _logged(app) == _MANY - sum(parts.rows)
        parts.after_each = lambda: None
        await _forget(app, log_retention_days=1)
        assert await _logged(app) == 0


class _Ahead(datetime.datetime):
    """The clock of a process that is two days ahead."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> _Ahead:
        return cls.fromtimestamp(datetime.datetime.now(tz).timestamp() + 2 * 86_400, tz)


async def test_the_clock_of_a_process_does_not_decide_what_the_log_forgets(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with catalogue(database_url) as app:
        await app.execute(AddBook("1", "x"))
        right = datetime.datetime
        monkeypatch.setattr(datetime, "datetime", _Ahead)
        await _forget(app, log_retention_days=1, log_personal_data_days=1)
        await app.execute(AddBook("2", "x"))
        monkeypatch.setattr(datetime, "datetime", right)
        async with app.orm.database.reader.connect() as connection:
            found = (await connection.execute(sa.text("SELECT recorded_at, image FROM diptych_log"))).all()
    assert len(found) == 2
    for recorded_at, image in found:
        assert image is not None
        written = (
            recorded_at if isinstance(recorded_at, right) else right.fromisoformat(f"{recorded_at}+00:00")
        )
        assert abs(right.now(datetime.UTC) - written) < datetime.timedelta(hours=1)
