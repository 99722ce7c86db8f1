"""Nested fields along unusual relationships: to itself, one to one, by other columns than the key, linked twice."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec import Struct, json
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from diptych import (
    ConfigService,
    Diptych,
    Document,
    Query,
    ReadModel,
    code_point_text,
    count,
    many,
    maximum,
    one,
)
from tests.catalogue import eventually
from tests.configuration import PATIENT_REDIS
from tests.programs import Foreign

ANN, BOB, EVE, ZOE = (uuid.UUID(int=n) for n in range(1, 5))


class Base(DeclarativeBase):
    pass


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


friends = sa.Table(
    "friends",
    Base.metadata,
    sa.Column("left_id", sa.ForeignKey("people.id"), primary_key=True),
    sa.Column("right_id", sa.ForeignKey("people.id"), primary_key=True, index=True),
)
rides = sa.Table(  # without a key: a person may ride twice
    "rides",
    Base.metadata,
    sa.Column("person_id", sa.ForeignKey("people.id"), index=True),
    sa.Column("car", sa.ForeignKey("linked.plate"), index=True),
)


class Car(Base):
    __tablename__ = "linked"  # a name that a query might take for a part of its own

    id: Mapped[int] = mapped_column(primary_key=True)
    plate: Mapped[str] = mapped_column(code_point_text(20), unique=True)


class Person(Base):
    __tablename__ = "people"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(40))
    friends: Mapped[list[Person]] = relationship(
        secondary=friends,
        primaryjoin=lambda: Person.id == friends.c.left_id,
        secondaryjoin=lambda: Person.id == friends.c.right_id,
    )
    passport: Mapped[Passport | None] = relationship()
    cars: Mapped[list[Car]] = relationship(secondary=rides)


class Passport(Base):
    __tablename__ = "passports"

    number: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey(Person.id), unique=True)
    until: Mapped[datetime.date]
    level: Mapped[Level] = mapped_column(sa.Enum(Level, native_enum=False))


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str] = mapped_column(code_point_text(40))


class Line(Base):
    __tablename__ = "order_lines"

    order_id: Mapped[int] = mapped_column(sa.ForeignKey(Order.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    parcel: Mapped[str | None] = mapped_column(code_point_text(20), unique=True)
    order: Mapped[Order] = relationship()
    scans: Mapped[list[Scan]] = relationship()


class Scan(Base):
    __tablename__ = "scans"

    id: Mapped[int] = mapped_column(primary_key=True)
    parcel: Mapped[str | None] = mapped_column(sa.ForeignKey(Line.parcel), index=True)
    day: Mapped[datetime.date]


class Friend(Struct, rename="upper"):
    name: str
    friends: tuple[Friend, ...]


class PassportDocument(Struct):
    until: datetime.date
    level: Level


class PersonDocument(Struct):
    id: uuid.UUID
    friends: tuple[Friend, ...]
    passport: PassportDocument | None
    cars: list[str] | None
    car_count: int


class LineDocument(Struct):
    number: int
    customer: str | None
    scans: list[datetime.date]
    scanned: datetime.date | None


class PersonReadModel(ReadModel[Person]):
    key = Person.id
    document = PersonDocument
    nested = {  # noqa: RUF012
        "friends": many(Person.friends, order=Person.name, depth=2),
        "passport": one(Person.passport),
        "cars": many(Person.cars, Car.plate, order=Car.plate),
        "car_count": count(Person.cars),
    }


class LineReadModel(ReadModel[Line]):
    key = (Line.order_id, Line.number)
    document = LineDocument
    nested = {  # noqa: RUF012
        "customer": one(Line.order, Order.customer),
        "scans": many(Line.scans, Scan.day, order=Scan.day),
        "scanned": maximum(Line.scans, Scan.day),
    }


class GetPerson(Query[Document[PersonDocument]]):
    id: uuid.UUID


class GetLine(Query[Document[LineDocument]]):
    order_id: int
    number: int


class Queries:
    def __init__(self, people: PersonReadModel, lines: LineReadModel) -> None:
        self.people, self.lines = people, lines

    async def person(self, query: GetPerson) -> Document[PersonDocument]:
        return await self.people.get(query.id)

    async def line(self, query: GetLine) -> Document[LineDocument]:
        return await self.lines.get((query.order_id, query.number))


def application(database_url: str, redis_url: str | None) -> Diptych:
    values = {**PATIENT_REDIS, "lease_ms": 3000, "database_url": database_url, "redis_url": redis_url}
    models: list[type[ReadModel[Any]]] = [PersonReadModel, LineReadModel]
    return Diptych(ConfigService(environ={}, **values), models=Base, handlers=[Queries], read_models=models)


@pytest.fixture
async def apps(database_url: str, valkey: Any) -> AsyncIterator[dict[str, Diptych]]:
    """The same application twice: answered from Redis, and from SQL."""
    async with application(database_url, valkey.url) as redis, application(database_url, None) as sql:
        yield {"redis": redis, "sql": sql}


async def _both_give(apps: dict[str, Diptych], query: Query[Document[Any]], wanted: Any) -> None:
    """Waits until both stores answer so: Redis does a pass after the change."""
    for store, app in apps.items():
        last: Any = None

        async def does(app: Diptych = app, store: str = store) -> bool:
            nonlocal last
            last = await app.ask(query)
            return bool(last.served.store == store and last.body == json.encode(wanted))

        try:
            await eventually(does, f"{store} answers {query}")
        except AssertionError:
            assert (last.served.store, json.decode(last.body or b"null")) == (store, wanted)
            raise


async def test_a_class_linked_to_itself_one_to_one_and_twice(apps, database_url):
    async with apps["redis"].orm.session() as session:
        ann, bob, eve, zoe = (
            Person(id=n, name=name) for n, name in ((ANN, "Ann"), (BOB, "Bob"), (EVE, "Eve"), (ZOE, "Zoe"))
        )
        ann.friends, bob.friends, eve.friends = [zoe, bob], [eve, ann], [zoe]
        ann.passport = Passport(number=1, until=datetime.date(2030, 1, 1), level=Level.LOW)
        session.add_all([ann, bob, eve, zoe, Car(id=1, plate="B 7"), Car(id=2, plate="A 1")])
    shown: dict[str, Any] = {
        "id": str(ANN),
        "friends": [
            {
                "NAME": "Bob",
                "FRIENDS": [{"NAME": "Ann", "FRIENDS": []}, {"NAME": "Eve", "FRIENDS": []}],
            },
            {"NAME": "Zoe", "FRIENDS": []},
        ],
        "passport": {"until": "2030-01-01", "level": "low"},
        "cars": [],
        "car_count": 0,
    }
    await _both_give(apps, GetPerson(ANN), shown)
    program = Foreign(database_url)
    anns, bobs, eves = (f"'{n.hex}'" for n in (ANN, BOB, EVE))
    ride = f"INSERT INTO rides (person_id, car) VALUES ({anns}, 'B 7')"
    await program.runs(
        f"UPDATE people SET name = 'Eva' WHERE id = {eves}",
        f"DELETE FROM friends WHERE left_id = {bobs} AND right_id = {anns}",
        f"UPDATE passports SET person_id = {bobs}",
        ride,
        ride,
        ride.replace("B 7", "A 1"),
    )
    friends = [{"NAME": "Bob", "FRIENDS": [{"NAME": "Eva", "FRIENDS": []}]}, shown["friends"][1]]
    shown |= {"friends": friends, "passport": None, "cars": ["A 1", "B 7"], "car_count": 2}
    await _both_give(apps, GetPerson(ANN), shown)
    await program.runs("DELETE FROM rides WHERE car = 'B 7'", "UPDATE passports SET level = 'HIGH'")
    await _both_give(apps, GetPerson(ANN), shown | {"cars": ["A 1"], "car_count": 1})
    passport = {"until": "2030-01-01", "level": "high"}
    await _both_give(
        apps,
        GetPerson(BOB),
        {
            "id": str(BOB),
            "friends": [{"NAME": "Eva", "FRIENDS": [shown["friends"][1]]}],
            "passport": passport,
            "cars": [],
            "car_count": 0,
        },
    )
    await program.close()


async def test_rows_of_a_key_of_several_columns_linked_by_another_column(apps, database_url):
    async with apps["redis"].orm.session() as session:
        lines = [Line(number=1, parcel="p1"), Line(number=2)]
        lines[0].scans = [Scan(id=n, day=datetime.date(2026, 1, n)) for n in (3, 2)]
        for line in lines:
            line.order = Order(id=line.number, customer=f"c{line.number}")
        session.add_all(lines)
    first = {
        "number": 1,
        "customer": "c1",
        "scans": ["2026-01-02", "2026-01-03"],
        "scanned": "2026-01-03",
    }
    second = {"number": 2, "customer": "c2", "scans": [], "scanned": None}
    await _both_give(apps, GetLine(1, 1), first)
    await _both_give(apps, GetLine(2, 2), second)
    program = Foreign(database_url)
    await program.runs(
        "UPDATE order_lines SET parcel = 'p2' WHERE number = 2",
        "UPDATE scans SET parcel = 'p2' WHERE id = 3",
        "UPDATE orders SET customer = 'new' WHERE id = 2",
    )
    await program.close()
    await _both_give(apps, GetLine(1, 1), first | {"scans": ["2026-01-02"], "scanned": "2026-01-02"})
    wanted = second | {"customer": "new", "scans": ["2026-01-03"], "scanned": "2026-01-03"}
    await _both_give(apps, GetLine(2, 2), wanted)
