"""PostgreSQL: a command that has noticed a change which its own snapshot does not show.

Constraints are checked against what is committed by then, and a read model is asked in a transaction of its own. If
the process that made such a change was killed before it told Redis, the command brings the change in before its
answer: no query may show less than what the command rests on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConfigService, Diptych, Document, Query, ReadModel, by, code_point_text
from diptych.write.unit_of_work import new_context
from tests.captured import Program
from tests.catalogue import answered_by, eventually
from tests.configuration import PATIENT_REDIS
from tests.integration.test_killed_before import LONG_MS, _killed


class Base(DeclarativeBase):
    pass


class Hall(Base):
    __tablename__ = "halls"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(50))


class Booking(Base):
    __tablename__ = "bookings"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(code_point_text(50), unique=True)
    hall_id: Mapped[int | None] = mapped_column(sa.ForeignKey("halls.id"), index=True)
    is_cancelled: Mapped[bool] = mapped_column(default=False)
    seat: Mapped[int | None]
    locker: Mapped[int | None]
    email: Mapped[str | None]
    badge: Mapped[int | None]

    __table_args__ = (
        sa.Index("one_on_a_seat", "seat", unique=True, postgresql_where=sa.text("NOT is_cancelled")),
        sa.Index("one_of_an_email", sa.text("lower(email)"), unique=True),
        ExcludeConstraint((sa.column("locker"), "="), where=sa.text("NOT is_cancelled"), using="hash"),
    )


class Area(Base):
    """A partitioned table, to which a foreign key refers."""

    __tablename__ = "areas"
    __table_args__ = {"postgresql_partition_by": "RANGE (id)"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(50))


class Sign(Base):
    __tablename__ = "signs"

    id: Mapped[int] = mapped_column(primary_key=True)
    area_id: Mapped[int] = mapped_column(sa.ForeignKey("areas.id"), index=True)


class Lamp(Base):
    """A foreign key to halls is in the database alone."""

    __tablename__ = "lamps"

    id: Mapped[int] = mapped_column(primary_key=True)
    hall_id: Mapped[int | None] = mapped_column(index=True)


class AreaDocument(msgspec.Struct, frozen=True):
    id: int
    name: str


class Areas(ReadModel[Area]):
    key = Area.id
    document = AreaDocument


class LampDocument(msgspec.Struct, frozen=True):
    id: int
    hall_id: int | None


class Lamps(ReadModel[Lamp]):
    key = Lamp.id
    document = LampDocument


class BookingDocument(msgspec.Struct, frozen=True):
    code: str
    hall_id: int | None
    is_cancelled: bool
    email: str | None
    badge: int | None


class Bookings(ReadModel[Booking]):
    key = Booking.code
    document = BookingDocument
    lists = (by(Booking.code),)


class Codes(ReadModel[Booking]):
    """A second read model of the same rows."""

    key = Booking.code
    document = BookingDocument


class GetBooking(Query[Document[BookingDocument]]):
    code: str
    is_second: bool = False
    is_from_sql: bool = False


class GetArea(Query[Document[AreaDocument]]):
    id: int


class GetLamp(Query[Document[LampDocument]]):
    id: int


class BookingQueries:
    def __init__(self, bookings: Bookings, codes: Codes, areas: Areas, lamps: Lamps) -> None:
        self.bookings = bookings
        self.codes = codes
        self.areas = areas
        self.lamps = lamps

    async def area(self, query: GetArea) -> Document[AreaDocument]:
        return await self.areas.get(query.id)

    async def lamp(self, query: GetLamp) -> Document[LampDocument]:
        return await self.lamps.get(query.id)

    async def get(self, query: GetBooking) -> Document[BookingDocument]:
        model = self.codes if query.is_second else self.bookings
        if not query.is_from_sql:
            return await model.get(query.code)
        model._reader._source, source = None, model._reader._source
        try:
            return await model.get(query.code)
        finally:
            model._reader._source = source


def _application(database_url: str, redis_url: str | None) -> Diptych:
    settings: dict[str, Any] = {**PATIENT_REDIS, "redis_probe_interval_ms": 20, "lease_ms": LONG_MS}
    return Diptych(
        ConfigService(environ={}, database_url=database_url, redis_url=redis_url, **settings),
        models=Base,
        handlers=[BookingQueries],
        read_models=[Bookings, Codes, Areas, Lamps],
    )


@asynccontextmanager
async def _two(database_url: str, redis_url: str) -> AsyncIterator[tuple[Diptych, Diptych]]:
    """Two processes answered from Redis, over two bookings of one hall."""
    async with _application(database_url, None):
        pass  # which makes the tables
    await Program(database_url).runs(
        "CREATE UNIQUE INDEX one_of_a_badge ON bookings (badge)",
        "CREATE TABLE areas_all PARTITION OF areas FOR VALUES FROM (0) TO (100)",
        "ALTER TABLE lamps ADD FOREIGN KEY (hall_id) REFERENCES halls",
    )
    async with _application(database_url, redis_url) as one, _application(database_url, redis_url) as two:
        await one.orm.create(Hall, id=1, name="great")
        await one.orm.create(Hall, id=2, name="dark")
        await one.orm.create(Lamp, id=1, hall_id=2)
        await one.orm.create(Booking, code="a", hall_id=1, seat=1, locker=1, email="Ann@x", badge=1)
        await one.orm.create(Booking, code="b", is_cancelled=True, seat=1, locker=2, email="bo@x", badge=2)
        for app in (one, two):
            await answered_by(app, "redis")
        await eventually(lambda: _is_there(two), "Redis has the bookings")
        yield one, two


async def _is_there(app: Diptych) -> bool:
    return await _shown(app, "a") is not None and await _shown(app, "b") is not None


async def _shown(app: Diptych, code: str, *, is_second: bool = False) -> BookingDocument | None:
    document = await app.ask(GetBooking(code, is_second))
    assert document.served.store == "redis"
    return document.decode()


Work = Callable[[Diptych], Awaitable[Any]]


async def _beside(two: Diptych, killed: Callable[[], Awaitable[Any]], then: Work) -> None:
    """Runs ``then`` as a command of ``two`` that began before the killed command committed."""
    has_begun, go_on = asyncio.Event(), asyncio.Event()

    async def work(_unit: object) -> None:
        await two.orm.all(Hall)  # takes the snapshot
        has_begun.set()
        await go_on.wait()
        await then(two)

    running = asyncio.create_task(two.orm.side.units.run(work, new_context()))
    await has_begun.wait()
    await killed()
    go_on.set()
    await running


class Case(NamedTuple):
    """What the killed command changes in the booking "a", and what the other command does thereupon."""

    changed: dict[str, Any]
    then: Work


NEW = {"hall_id": None, "seat": None, "locker": None, "email": None, "badge": None}
CASES = {
    "a partial unique index, a new row": Case(
        {"is_cancelled": True}, lambda app: app.orm.create(Booking, **{**NEW, "code": "c", "seat": 1})
    ),
    "a partial unique index, a row that comes back": Case(
        {"is_cancelled": True}, lambda app: app.orm.update(Booking, "b", "code", is_cancelled=False)
    ),
    "an exclusion constraint": Case(
        {"is_cancelled": True},
        lambda app: app.orm.update(Booking, "b", "code", locker=1, is_cancelled=False, seat=9),
    ),
    "an index on an expression": Case(
        {"email": "new@x"}, lambda app: app.orm.update(Booking, "b", "code", email="ANN@x")
    ),
    "an index that the mapping does not have": Case(
        {"badge": 5}, lambda app: app.orm.update(Booking, "b", "code", badge=1)
    ),
    "a child that has left its parent": Case({"hall_id": None}, lambda app: app.orm.delete(Hall, 1)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_what_a_constraint_has_shown(postgres_url: str, valkey: Any, case: Case) -> None:
    async with _two(postgres_url, valkey.url) as (one, two):
        changing = one.orm.update(Booking, "a", "code", **case.changed)
        await _beside(two, partial(_killed, one, changing), case.then)
        shown = await _shown(two, "a")
        assert {name: getattr(shown, name) for name in case.changed} == case.changed


async def test_a_child_that_was_deleted_before_its_parent(postgres_url: str, valkey: Any) -> None:
    async with _two(postgres_url, valkey.url) as (one, two):
        killed = partial(_killed, one, one.orm.delete(Booking, "a", "code"))
        await _beside(two, killed, lambda app: app.orm.delete(Hall, 1))
        assert await _shown(two, "a") is None


@pytest.mark.parametrize("store", ["sql", "redis"])
async def test_what_a_read_model_has_shown_to_a_handler(postgres_url: str, valkey: Any, store: str) -> None:
    """Whichever store answers, and whichever read model is asked afterwards."""

    async def then(app: Diptych) -> None:
        document = await app.ask(GetBooking("a", is_from_sql=store == "sql"))
        booking = document.decode()
        assert booking is not None
        assert (document.served.store, booking.badge) == (store, 7)
        await app.orm.update(Hall, 1, name="small")

    async with _two(postgres_url, valkey.url) as (one, two):
        changing = one.orm.update(Booking, "a", "code", badge=7)
        is_applied = store == "redis"
        killed = partial(_killed, one, changing, applied=is_applied, among=["Bookings"])
        await _beside(two, killed, then)
        for is_second in (False, True):
            shown = await _shown(two, "a", is_second=is_second)
            assert shown is not None
            assert shown.badge == 7


async def test_a_row_of_a_partitioned_table_that_a_new_row_refers_to(postgres_url: str, valkey: Any) -> None:
    """★ PostgreSQL looks for it in a new snapshot; in a plain table it would not find it."""
    async with _two(postgres_url, valkey.url) as (one, two):
        killed = partial(_killed, one, one.orm.create(Area, id=2, name="new"))
        await _beside(two, killed, lambda app: app.orm.create(Sign, id=1, area_id=2))
        assert (await two.ask(GetArea(2))).decode() == AreaDocument(2, "new")


async def test_a_foreign_key_that_the_database_alone_has_for_a_process_that_cannot_look(
    postgres_url: str, valkey: Any
) -> None:
    """Without Redis a command waits for what a table may lack that it has touched, by the catalogue too."""
    async with _two(postgres_url, valkey.url) as (one, two), _application(postgres_url, None) as three:
        killed = partial(_killed, one, one.orm.delete(Lamp, 1))
        await _beside(three, killed, lambda app: app.orm.delete(Hall, 2))
        assert (await two.ask(GetLamp(1))).decode() is None
