"""What is stored comes back as it was, or is refused: SQLite changes no value in silence."""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import Fault, InvalidValueError, ORMService
from tests.conformance.conftest import config

UTC = datetime.UTC
EAST = datetime.timezone(datetime.timedelta(hours=5, minutes=45))


class Base(DeclarativeBase):
    pass


MADE: dict[str, Any] = {}
"""What the defaults of the next row make."""


def made(kind: Any) -> Any:
    def default(context: Any) -> Any:
        return MADE.get(context.current_column.name)

    return mapped_column(kind, nullable=True, default=default)


class Exact(Base):
    """Columns without defaults, so that rows are written in the event loop."""

    __tablename__ = "exact"

    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[Decimal | None] = mapped_column(sa.Numeric(20, 4))
    ratio: Mapped[Decimal | None] = mapped_column(sa.Numeric())
    whole: Mapped[Decimal | None] = mapped_column(sa.Numeric(30, 0))
    rounded: Mapped[float | None] = mapped_column(sa.Numeric(8, 2, asdecimal=False))
    real: Mapped[float | None] = mapped_column(sa.Double)
    local: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime)
    instant: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    time: Mapped[datetime.time | None] = mapped_column(sa.Time)
    zoned_time: Mapped[datetime.time | None] = mapped_column(sa.Time(timezone=True))
    document: Mapped[Any | None] = mapped_column(sa.JSON)


class Default(Base):
    """The same kinds with values that are made by functions."""

    __tablename__ = "by_default"

    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[Decimal | None] = made(sa.Numeric(20, 4))
    ratio: Mapped[Decimal | None] = made(sa.Numeric())
    real: Mapped[float | None] = made(sa.Double)
    local: Mapped[datetime.datetime | None] = made(sa.DateTime)
    instant: Mapped[datetime.datetime | None] = made(sa.DateTime(timezone=True))
    time: Mapped[datetime.time | None] = made(sa.Time)
    zoned_time: Mapped[datetime.time | None] = made(sa.Time(timezone=True))
    document: Mapped[Any | None] = made(sa.JSON)


@pytest.fixture
async def exact(orm: ORMService) -> ORMService:
    """An open service with these tables, empty."""
    async with orm.database.writer.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    return orm


@contextmanager
def refused(model: type, field: str, words: str) -> Iterator[None]:
    with pytest.raises(InvalidValueError) as caught:
        yield
    assert caught.value.faults == (Fault(field, words),)
    assert str(caught.value) == f"{model.__name__}: {field} {words}"


def digits(places: int) -> str:
    return f"must be a number that SQLite can hold exactly (some 15 digits, {places} of them decimal places at most)"


JSON_NUMBER = "must not be a single number of more digits than SQLite can hold: put it into a list"
INEXACT: list[tuple[str, Any, str]] = [
    ("amount", Decimal("12345678901234.5678"), digits(4)),
    ("amount", "9999999999999999.9999", digits(4)),
    ("ratio", Decimal("1E-14"), digits(10)),
    ("ratio", Decimal("1E+400"), digits(10)),
    ("ratio", "0.12345678901", digits(10)),
    ("whole", 10**29 + 1, digits(0)),
    ("whole", 2**53 + 1, digits(0)),
    ("document", 2**64 + 1, JSON_NUMBER),
    ("document", 2**63 - 1 + 2**70, JSON_NUMBER),
]


async def test_what_sqlite_cannot_hold_exactly_is_refused_there_and_kept_on_postgresql(exact: ORMService):
    """By name, whether the row is new or changed. To look for it finds nothing, and is no error."""
    row = await exact.create(Exact)
    for field, value, words in INEXACT:
        if exact.database.name == "sqlite":
            with refused(Exact, field, words):
                await exact.create(Exact, **{field: value})
            with refused(Exact, field, words):
                await exact.update(Exact, row.id, **{field: value})
            if field != "document":
                assert await exact.get(Exact, value, field) is None
        else:
            changed = await exact.update(Exact, row.id, return_instance=True, **{field: value})
            assert getattr(changed, field) == (value if field == "document" else Decimal(value))
            if field != "document":
                assert await exact.get(Exact, value, field) is not None


HELD: list[tuple[str, Any]] = [
    *(("amount", Decimal(text)) for text in ("0", "1.5", "-0.0001", "12345678901.2345", "99999999999.9999")),
    *(("ratio", Decimal(text)) for text in ("1E-10", "0.1", "-12345.678", "0.0", "1E+15")),
    *(("whole", Decimal(number)) for number in (0, -(2**53), 2**62, 10**15)),
    *(("rounded", number) for number in (0.1, 999999.99, 5.0)),
    *(("real", number) for number in (0.1, -5e-324, 1.7976931348623157e308, 1e22)),
    ("local", datetime.datetime(2024, 3, 31, 2, 30, 0, 1)),
    *(("instant", datetime.datetime(2024, 1, 1, 5, tzinfo=zone)) for zone in (UTC, EAST)),
    ("time", datetime.time(10, 0, 0, 1)),
    *(("zoned_time", datetime.time(10, 0, tzinfo=zone)) for zone in (UTC, EAST)),
    ("zoned_time", datetime.time(10, 0, 0, 1, tzinfo=EAST)),
    *(
        ("document", value)
        for value in (5, 0.1, 2**63 - 1, -(2**63), True, None, "5", [2**64 + 1], {"a": 1e22})
    ),
]


async def test_what_both_databases_hold_comes_back_as_it_was(exact: ORMService):
    for field, value in HELD:
        created = await exact.create(Exact, **{field: value})
        found = await exact.get(Exact, created.id)
        for instance in (created, found):
            assert getattr(instance, field) == value, (field, value)
        if isinstance(value, datetime.time) and value.tzinfo is not None:
            assert found is not None
            assert found.zoned_time is not None
            assert found.zoned_time.utcoffset() == value.utcoffset()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**15), max_value=10**15)
)
def test_a_number_is_kept_or_refused_and_never_changed(value, tmp_path_factory):
    import asyncio

    async def run() -> None:
        path = tmp_path_factory.mktemp("numbers") / "test.db"
        async with ORMService(config(str(path))) as orm:
            try:
                created = await orm.create(Exact, amount=value)
            except InvalidValueError:
                return
            found = await orm.get(Exact, created.id)
            assert found is not None
            assert created.amount == found.amount == value

    asyncio.run(run())


async def test_digits_that_a_column_of_inexact_numbers_would_round_are_refused(exact: ORMService):
    with refused(Exact, "rounded", "must have at most 2 decimal places"):
        await exact.create(Exact, rounded=1.005)


async def test_an_instant_that_no_year_of_utc_has_is_refused(exact: ORMService):
    for value in ("0001-01-01T00:00:00+05:00", "9999-12-31T23:00:00-05:00"):
        with refused(Exact, "instant", "must be in the years 1 to 9999 of UTC"):
            await exact.create(Exact, instant=value)
        assert await exact.get(Exact, value, "instant") is None


MADE_WRONG: list[tuple[str, Any, str]] = [
    ("amount", Decimal("12345678901234.5678"), digits(4)),
    ("amount", Decimal("NaN"), digits(4)),
    ("ratio", Decimal("1E-14"), digits(10)),
    ("real", math.nan, "must be a number"),
    ("local", datetime.datetime(2024, 1, 1, tzinfo=EAST), "must not have a time zone"),
    ("instant", datetime.datetime(2024, 1, 1), "must have a time zone"),
    ("time", datetime.time(10, tzinfo=EAST), "must not have a time zone"),
    ("zoned_time", datetime.time(10), "must have a time zone"),
    ("document", 2**64 + 1, JSON_NUMBER),
]


@pytest.mark.parametrize(("field", "value", "words"), MADE_WRONG, ids=str)
async def test_a_default_that_sqlite_would_change_is_refused_too(tmp_path, monkeypatch, field, value, words):
    """Which column it was is not known there; the words tell what is wrong, and the row is not there."""
    monkeypatch.setitem(MADE, field, value)
    async with ORMService(config(str(tmp_path / "test.db"))) as orm:
        with refused(Default, "a value", words):
            await orm.create(Default)
        monkeypatch.delitem(MADE, field)
        assert await orm.all(Default) == []
        created = await orm.create(Default)
        assert getattr(created, field) is None


class Constant(Base):
    __tablename__ = "constants"

    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[Decimal] = mapped_column(sa.Numeric(20, 4), default=Decimal("12345678901234.5678"))


async def test_a_constant_default_that_sqlite_would_change_is_refused_too(tmp_path):
    async with ORMService(config(str(tmp_path / "test.db"))) as orm:
        with refused(Constant, "a value", digits(4)):
            await orm.create(Constant)


async def test_what_another_program_has_stored_in_sqlite_is_read_as_it_is(tmp_path):
    """Digits that are lost are lost; an offset is heeded where the column has a zone, as PostgreSQL does."""
    async with ORMService(config(str(tmp_path / "test.db"))) as orm:
        row = await orm.create(Exact)
        foreign = """
            UPDATE exact SET amount = 12345678901234.5678, ratio = 1e-14, document = 1180591620717411303425,
            local = '2024-01-01 10:00:00+05:45', instant = '2024-01-01 10:00:00+05:45', zoned_time = '10:00:00'
        """
        async with orm.database.writer.begin() as connection:
            await connection.execute(sa.text(foreign))
        found = await orm.get(Exact, row.id)
        assert found is not None
        assert (found.amount, found.ratio) == (Decimal("12345678901234.5684"), Decimal(0))
        assert found.document == float(2**70)
        assert found.local == datetime.datetime(2024, 1, 1, 10)
        assert found.instant == datetime.datetime(2024, 1, 1, 10, tzinfo=EAST)
        assert found.instant.utcoffset() == datetime.timedelta(0)
        assert found.zoned_time == datetime.time(10)
        # What is in it is no hindrance to a change of something else.
        changed = await orm.update(Exact, row.id, real=0.5, return_instance=True)
        assert changed is not None
        assert changed.amount == decimal.Decimal("12345678901234.5684")
