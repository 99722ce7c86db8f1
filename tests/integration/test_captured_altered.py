"""Migrations alter the columns that entries name, under open sessions, and nobody is kept from writing."""

from __future__ import annotations

import datetime

import asyncpg
import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import Diptych, Document, Query, ReadModel, code_point_text
from tests.captured import Program, application, prepare, same, served_by_redis
from tests.configuration import configured

LEASE_S = 1.0
_CHANGE = "UPDATE parts SET amount = amount + 10"
ALTERED = {
    "the key of a read model": 'ALTER TABLE parts ALTER code TYPE text COLLATE "C"',
    "a foreign key": "ALTER TABLE parts ALTER maker_id TYPE int",
    "the primary key": "ALTER TABLE parts ALTER id TYPE int",
}


@pytest.mark.parametrize("alter", [pytest.param(text, id=name) for name, text in ALTERED.items()])
async def test_an_open_session_writes_on_after_the_type_of_a_column_was_altered(postgres_url, valkey, alter):
    """It has the plans of the triggers from before: its entries name no row until a pass has mended the triggers."""
    program = await prepare(postgres_url)
    session = await asyncpg.connect(postgres_url, statement_cache_size=0)
    async with application(postgres_url, valkey.url, lease_ms=int(LEASE_S * 1000)) as app:
        await session.execute(_CHANGE)
        await app.catch_up()
        await served_by_redis(app)
        await program.runs(_CHANGE, alter, _CHANGE)
        await session.execute(_CHANGE)
        await app.catch_up()
        await same(app)
        await served_by_redis(app)
        await session.execute("UPDATE parts SET amount = 70 WHERE code = 'b'")
        last = "SELECT row_id, key::json ->> 'code' AS code FROM diptych_log ORDER BY position DESC LIMIT 1"
        assert [tuple(row) for row in await session.fetch(last)] == [("2", "b")]
        await app.catch_up()
        await same(app, store="redis")
    await session.close()


async def test_a_command_writes_on_after_the_type_of_a_column_was_altered(postgres_url, valkey):
    """Its entries name no row: it waits for a pass, or for the end of the lease."""
    program = await prepare(postgres_url)
    async with application(postgres_url, valkey.url, lease_ms=int(LEASE_S * 1000)) as app:

        async def change() -> None:
            async with app.orm.session() as session:
                await session.execute(sa.text(_CHANGE))
            await same(app)

        await served_by_redis(app)
        await change()
        await program.runs("ALTER TABLE parts ALTER maker_id TYPE int")
        for _ in range(3):
            await change()
        await served_by_redis(app)
        await change()


class Base(DeclarativeBase):
    """The declarative base of the table of days."""


class Day(Base):
    """A day, with what is named in entries."""

    __tablename__ = "days"

    id: Mapped[int] = mapped_column(primary_key=True)
    day: Mapped[datetime.date] = mapped_column(unique=True)
    name: Mapped[str | None] = mapped_column(code_point_text(200))


class DayDocument(msgspec.Struct, frozen=True):
    id: int
    name: str | None


class Days(ReadModel[Day]):
    key = Day.id
    document = DayDocument


class GetDay(Query[Document[DayDocument]], frozen=True):
    id: int


class Queries:
    def __init__(self, days: Days) -> None:
        self._days = days

    async def get(self, query: GetDay) -> Document[DayDocument]:
        return await self._days.get(query.id)


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("text", "2024-02-29"),
        ("timestamp", "2024-02-29T00:00:00"),
        ("int USING extract(year FROM day)", "2024"),
        ("json USING to_json(day)", "2024-02-29"),
    ],
)
async def test_dates_become_something_else(postgres_url, kind, named):
    config = configured(postgres_url)
    async with Diptych(config, models=Base, handlers=[Queries], read_models=[Days]):
        pass
    await Program(postgres_url).runs_each_alone(
        "INSERT INTO days (id, day) VALUES (1, '2024-02-29')",
        "ALTER TABLE days DROP CONSTRAINT days_day_key",
        f"ALTER TABLE days ALTER day TYPE {kind}",
        "UPDATE days SET name = 'leap'",
    )
    connection = await asyncpg.connect(postgres_url)
    keys = await connection.fetch("SELECT key, row_id FROM diptych_log ORDER BY position")
    assert msgspec.json.decode(keys[0]["key"]) == {"id": 1, "day": "2024-02-29"}
    assert [(msgspec.json.decode(row["key"]), row["row_id"]) for row in keys[1:]] == [
        ({"id": 1, "day": named}, "1")
    ]
    await connection.close()
