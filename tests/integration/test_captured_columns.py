"""Rows of every type of column, and tables of every name, are captured: no image of a trigger is believed."""

from __future__ import annotations

import datetime
import enum
import itertools
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import (
    ConfigService,
    Diptych,
    Document,
    Query,
    ReadModel,
    UnreadableRowError,
    code_point_text,
)
from diptych.log.browse import LogBrowser
from tests.captured import Program
from tests.catalogue import answered_by
from tests.servers import RedisServer

D = TypeVar("D")
ODD, NUMBER, NAME, AMOUNT = '"Odd ""Table"', '"The Id"', '"Näme\'s"', '"AMOUNT %"'
ODD_COLUMNS = f"{NUMBER}, {NAME}, {AMOUNT}"
KEY = uuid.UUID("0123abcd-0000-4000-8000-00000000beef")


class Colour(enum.Enum):
    """An enum of the database on PostgreSQL."""

    RED = "red"
    BLUE = "blue"


class Base(DeclarativeBase):
    """The declarative base of the application."""


class Sample(Base):
    """Columns whose values a trigger could not tell."""

    __tablename__ = "samples"

    id: Mapped[uuid.UUID] = mapped_column(sa.Uuid, primary_key=True)
    day: Mapped[datetime.date] = mapped_column(sa.Date, unique=True)
    large: Mapped[int] = mapped_column(sa.BigInteger, unique=True)
    at: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    price: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 2))
    share: Mapped[float | None] = mapped_column(sa.Float(53))
    small: Mapped[float | None] = mapped_column(sa.REAL)
    colour: Mapped[Colour | None] = mapped_column(sa.Enum(Colour))
    raw: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    twice: Mapped[int | None] = mapped_column(sa.BigInteger, sa.Computed("large * 2", persisted=False))


class Named(Base):
    """A table whose names need quotes, with a key of any text."""

    __tablename__ = 'Odd "Table'

    number: Mapped[int] = mapped_column("The Id", sa.Integer, primary_key=True)
    name: Mapped[str] = mapped_column("Näme's", code_point_text(200), unique=True)
    amount: Mapped[int] = mapped_column("AMOUNT %", sa.Integer)


class SampleDocument(msgspec.Struct, frozen=True):
    id: uuid.UUID
    day: datetime.date
    large: int
    at: datetime.datetime | None
    price: Decimal | None
    share: float | None
    small: float | None
    colour: Colour | None
    twice: int | None


class NamedDocument(msgspec.Struct, frozen=True):
    name: str
    amount: int


class ById(ReadModel[Sample]):
    key = Sample.id
    document = SampleDocument


class ByDay(ReadModel[Sample]):
    key = Sample.day
    document = SampleDocument


class ByLarge(ReadModel[Sample]):
    key = Sample.large
    document = SampleDocument


class ByName(ReadModel[Named]):
    key = Named.name
    document = NamedDocument


class NumberedDocument(msgspec.Struct, frozen=True):
    number: int
    name: str


class ByNumber(ReadModel[Named]):
    key = Named.number
    document = NumberedDocument


class GetById(Query[Document[SampleDocument]], frozen=True):
    id: uuid.UUID


class GetByDay(Query[Document[SampleDocument]], frozen=True):
    day: datetime.date


class GetByLarge(Query[Document[SampleDocument]], frozen=True):
    large: int


class GetByName(Query[Document[NamedDocument]], frozen=True):
    name: str


class GetByNumber(Query[Document[NumberedDocument]], frozen=True):
    number: int


class Queries:
    def __init__(
        self, by_id: ById, by_day: ByDay, by_large: ByLarge, by_name: ByName, by_number: ByNumber
    ) -> None:
        self.by_id, self.by_day, self.by_large, self.by_name = by_id, by_day, by_large, by_name
        self.by_number = by_number

    async def get(self, query: GetById) -> Document[SampleDocument]:
        return await self.by_id.get(query.id)

    async def get_of_day(self, query: GetByDay) -> Document[SampleDocument]:
        return await self.by_day.get(query.day)

    async def get_large(self, query: GetByLarge) -> Document[SampleDocument]:
        return await self.by_large.get(query.large)

    async def get_named(self, query: GetByName) -> Document[NamedDocument]:
        return await self.by_name.get(query.name)

    async def get_numbered(self, query: GetByNumber) -> Document[NumberedDocument]:
        return await self.by_number.get(query.number)


def _application(database_url: str, redis_url: str | None) -> Diptych:
    values: dict[str, Any] = {"database_url": database_url, "redis_url": redis_url, "lease_ms": 10_000}
    values |= {"redis_query_timeout_ms": 2000, "redis_command_timeout_ms": 5000}
    return Diptych(
        ConfigService(environ={}, **values),
        models=Base,
        handlers=[Queries],
        read_models=[ById, ByDay, ByLarge, ByName, ByNumber],
    )


class Both:
    """An application with Redis, and one of which SQL answers, over the same rows."""

    def __init__(self, app: Diptych, plain: Diptych, program: Program) -> None:
        self.app = app
        self.program = program
        self._plain = plain

    async def change(self, *statements: str) -> None:
        """Has the program execute the statements, and waits until the changes have arrived."""
        await self.program.runs(*statements)
        await self.app.catch_up()

    async def find(self, query: Query[Document[D]]) -> D | None:
        """Returns the document in Redis. Fails unless SQL gives the same bytes."""
        document = await self.app.ask(query)
        assert document.served.store == "redis"
        assert document.body == (await self._plain.ask(query)).body
        return document.decode()


@pytest.fixture
async def both(database_url: str, valkey: RedisServer) -> AsyncIterator[Both]:
    """Both applications, with a row of samples."""
    async with _application(database_url, None) as plain, _application(database_url, valkey.url) as app:
        await app.orm.create(
            Sample,
            id=KEY,
            day="2020-02-29",
            large=2**53 + 1,
            at=datetime.datetime(2020, 1, 1, 12, tzinfo=datetime.UTC),
            price="1.10",
            share=0.1 + 0.2,
            small=0.1,
            colour=Colour.RED,
            raw=b"\x00\xff",
        )
        await answered_by(app, "redis")
        yield Both(app, plain, Program(database_url))


async def test_values_of_every_type(both):
    """The program's time zone is another, and so are the forms that a trigger would give them."""
    zone = [] if both.program.is_sqlite else ["SET TIME ZONE 'Asia/Kathmandu'", "SET extra_float_digits = 0"]
    await both.change(*zone, "UPDATE samples SET price = price + 1, share = 1.0 / 3")
    first = await both.find(GetById(KEY))
    assert (first.price, first.share, first.twice) == (Decimal("2.10"), 1 / 3, (2**53 + 1) * 2)
    assert first.at == datetime.datetime(2020, 1, 1, 12, tzinfo=datetime.UTC)
    other = uuid.uuid4()
    text = other.hex if both.program.is_sqlite else str(other)
    await both.change(
        *zone,
        "INSERT INTO samples (id, day, large, at, price, share, small, colour, raw) "
        f"SELECT '{text}', '2021-01-01', -9223372036854775808 / 2, at, 0.00, 1e300, small, 'BLUE', raw FROM samples",
    )
    second = await both.find(GetById(other))
    assert (second.colour, second.share, second.twice) == (Colour.BLUE, 1e300, -(2**63))
    assert (
        second
        == await both.find(GetByLarge(-(2**62)))
        == await both.find(GetByDay(datetime.date(2021, 1, 1)))
    )


async def test_numbers_that_a_float_does_not_hold(both):
    for step in range(1, 4):
        await both.change("UPDATE samples SET large = large + 1")
        assert await both.find(GetByLarge(2**53 + step)) is None
        assert (await both.find(GetByLarge(2**53 + step + 1))).id == KEY


async def test_days_from_the_first_to_the_last(both):
    days = [datetime.date(1, 1, 2), datetime.date(9999, 12, 30), datetime.date(2024, 2, 29)]
    for before, day in itertools.pairwise([datetime.date(2020, 2, 29), *days]):
        await both.change(f"UPDATE samples SET day = '{day}'")
        assert await both.find(GetByDay(before)) is None
        assert (await both.find(GetByDay(day))).id == KEY


@pytest.mark.parametrize(("day", "read"), [("infinity", datetime.date.max), ("-infinity", datetime.date.min)])
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_days_without_end_have_the_keys_that_the_driver_gives_them(both, day, read):
    await both.change(f"UPDATE samples SET day = '{day}'")
    found = (await both.app.ask(GetByDay(read))).decode()
    assert found is not None
    assert (found.id, found.day) == (KEY, read)
    await both.change("UPDATE samples SET day = '2000-01-01'")
    assert (await both.app.ask(GetByDay(read))).decode() is None
    assert (await both.find(GetByDay(datetime.date(2000, 1, 1)))).id == KEY


async def test_a_uuid_that_is_changed(both):
    new = uuid.UUID(int=5)
    await both.change(f"UPDATE samples SET id = '{new.hex if both.program.is_sqlite else new}'")
    assert await both.find(GetById(KEY)) is None
    assert (await both.find(GetById(new))).large == 2**53 + 1


async def test_names_that_need_quotes_and_odd_keys(both):
    names = ["", " ", "ä'\"\\", "\t\n", "a%sb:c{d}", "😀\u2028", "NULL", "x" * 200]
    for number, name in enumerate(names):
        text = name.replace("'", "''")
        await both.change(f"INSERT INTO {ODD} ({ODD_COLUMNS}) VALUES ({number}, '{text}', 1)")
        await both.change(f'UPDATE {ODD} SET "AMOUNT %" = 2 WHERE "The Id" = {number}')
        assert await both.find(GetByName(name)) == NamedDocument(name, 2)
    await both.app.orm.execute(sa.update(Named).values({Named.amount: 3}))
    for name in names:
        assert await both.find(GetByName(name)) == NamedDocument(name, 3)
    await both.change(f"DELETE FROM {ODD}")
    for name in names:
        assert await both.find(GetByName(name)) is None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_value_of_another_type_than_its_column_fails_no_write_of_a_program(both):
    """SQLite keeps bytes in columns of text and of numbers; JSON has no bytes."""
    await both.program.runs("UPDATE samples SET large = x'00ff', colour = x'01'")
    await both.program.runs(f"INSERT INTO {ODD} ({ODD_COLUMNS}) VALUES (1, x'ff', 1), (2, 'b', 1)")
    await both.app.catch_up()
    assert await both.find(GetByName("b")) == NamedDocument("b", 1)
    await both.change("UPDATE samples SET large = 7, colour = 'RED'", f"DELETE FROM {ODD}")
    assert (await both.find(GetByLarge(7))).id == KEY
    assert await both.find(GetByName("b")) is None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_text_that_is_no_text_in_a_column_that_entries_name_disables_nothing(both):
    """SQLite keeps any bytes as text, and writes them into the entry; its driver fails to load them."""
    bad = "CAST(x'4df66c' AS TEXT)"
    await both.change(f"INSERT INTO {ODD} ({ODD_COLUMNS}) VALUES (1, 'a', 1), (2, {bad}, 1)")
    assert await both.find(GetByName("a")) == NamedDocument("a", 1)
    with pytest.raises(UnreadableRowError):
        await both.find(GetByNumber(2))
    await both.change(f"UPDATE {ODD} SET {NAME} = {bad} || {NUMBER}, {AMOUNT} = 2")
    assert await both.find(GetByName("a")) is None
    async with both.app.orm.session() as session:
        session.add(Named(number=3, name="c", amount=3))
        await session.execute(sa.text(f"UPDATE {ODD} SET {AMOUNT} = 4 WHERE {NUMBER} = 1"))
    assert await both.find(GetByNumber(3)) == NumberedDocument(3, "c")
    browser = LogBrowser(both.app.orm.database)
    entries, _ = await browser.newest(10)
    shown = [await browser.at(entry.position) for entry in entries]
    named = [entry[1].new for entry in shown if entry is not None and entry[1].new is not None]
    assert {"number": 2, "name": "M\ufffdl2"} in named
    await both.change(f"UPDATE {ODD} SET {NAME} = 'b' || {NUMBER}")
    assert await both.find(GetByNumber(2)) == NumberedDocument(2, "b2")
    await both.change(f"DELETE FROM {ODD}")
    assert await both.find(GetByNumber(1)) is None
