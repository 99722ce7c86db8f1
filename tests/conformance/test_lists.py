"""The orders of lists: the same from both stores, on both databases, for every sortable type."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import enum
import functools
import random
import uuid
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import Diptych, Page, Query, ReadModel, by, code_point_text
from diptych.read.declaration import ListOrder
from diptych.sql.description import Sorting
from tests.catalogue import answered_by
from tests.configuration import configured

UTC = datetime.UTC


class Base(DeclarativeBase):
    pass


class Size(enum.Enum):
    """Neither names nor values are in the order of their declaration, nor in the same."""

    SMALL = "m"
    LARGE = "z"
    BIG = "a"
    small = "s"
    TINY = "m"  # another name of SMALL


class Colour(enum.StrEnum):
    RED = "red"
    GREEN = "green"


class Event(Base):
    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(20), unique=True)
    at: Mapped[datetime.datetime] = mapped_column(sa.DateTime(timezone=True))
    local: Mapped[datetime.datetime] = mapped_column(sa.DateTime)
    day: Mapped[datetime.date]
    number: Mapped[int] = mapped_column(sa.BigInteger)
    code: Mapped[uuid.UUID]
    hexadecimal: Mapped[str] = mapped_column(sa.Uuid(as_uuid=False))
    size: Mapped[Size] = mapped_column(sa.Enum(Size))
    text_size: Mapped[Size] = mapped_column(sa.Enum(Size, native_enum=False, name="text_size"))
    colour: Mapped[Colour] = mapped_column(
        sa.Enum(Colour, values_callable=lambda found: [one.value for one in found])
    )
    word: Mapped[str] = mapped_column(sa.Enum("no", "yes", "maybe", name="word_of_event"))
    is_open: Mapped[bool]
    price: Mapped[decimal.Decimal] = mapped_column(sa.Numeric(12, 3))
    ratio: Mapped[float] = mapped_column(sa.Double)
    hour: Mapped[datetime.time]
    span: Mapped[datetime.timedelta]
    score: Mapped[int | None] = mapped_column(sa.BigInteger)
    note: Mapped[str | None] = mapped_column(code_point_text(20))
    until: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    cost: Mapped[decimal.Decimal | None] = mapped_column(sa.Numeric(30, 6))
    mood: Mapped[Size | None] = mapped_column(sa.Enum(Size, name="mood"))


class EventDocument(Struct):
    name: str
    at: datetime.datetime
    size: Size
    word: str


SORTED = (
    *(
        "at",
        "local",
        "day",
        "number",
        "code",
        "hexadecimal",
        "size",
        "text_size",
        "colour",
        "word",
        "is_open",
    ),
    *("price", "ratio", "hour", "span", "score", "note", "until", "cost", "mood"),
)
MIXED = (
    by(Event.size, Event.at, Event.word),
    by(Event.is_open.desc(), Event.price, Event.note.desc(), name="mixed"),
    by(Event.score.desc().nulls_last(), Event.note.nulls_first(), name="other-nulls"),
    by(
        Event.note.asc().nulls_first(),
        Event.score.desc(),
        Event.until.desc().nulls_last(),
        name="three-nulls",
    ),
    by(Event.mood.desc(), Event.name.desc(), name="by-key-descending"),
    by(Event.cost.desc().nulls_first(), name="dearest"),
)


class EventReadModel(ReadModel[Event]):
    key = Event.name
    document = EventDocument
    lists = (
        *(by(getattr(Event, name)) for name in SORTED),
        *(by(getattr(Event, name).desc(), name=f"{name}-descending") for name in SORTED),
        *MIXED,
    )


class ListEvents(Query[Page[EventDocument]]):
    order: int = 0
    limit: int = 50
    after: str | None = None


class Handler:
    def __init__(self, events: EventReadModel) -> None:
        self.events = events

    async def list(self, query: ListEvents) -> Page[EventDocument]:
        return await self.events.page(EventReadModel.lists[query.order], limit=query.limit, after=query.after)


def application(database_url: str, redis_url: str | None = None) -> Diptych:
    config = configured(database_url, redis_url)
    return Diptych(config, models=Base, handlers=[Handler], read_models=[EventReadModel])


ZONES = [
    UTC,
    ZoneInfo("Asia/Kathmandu"),
    ZoneInfo("America/New_York"),
    datetime.timezone(datetime.timedelta(hours=-12)),
]
INSTANTS = [
    datetime.datetime(1, 1, 2, tzinfo=UTC),
    datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
    datetime.datetime(2024, 3, 10, 7, 0, tzinfo=UTC),  # the hour that New York leaves out
    datetime.datetime(2024, 11, 3, 6, 30, tzinfo=UTC),  # one that it has twice
    datetime.datetime(2024, 11, 3, 6, 30, 0, 1, UTC),
    datetime.datetime(9999, 12, 30, tzinfo=UTC),
]


PRICES = [
    decimal.Decimal(text) for text in ("0", "-1.5", "1.5", "1.25", "10", "9.875", "-100", "1000000", "0.125")
]


def _event(chance: random.Random, number: int) -> dict[str, Any]:
    instant = chance.choice(INSTANTS)
    code = uuid.UUID(int=chance.choice([0, 1, 2**127, 2**128 - 1, chance.getrandbits(128)]))
    return {
        "name": f"{chance.choice('éaZz')}{number}",
        "at": instant.astimezone(chance.choice(ZONES)),
        "local": instant.replace(tzinfo=None),
        "day": instant.date(),
        "number": chance.choice([-(2**63), -1, 0, 2**63 - 1]),
        "code": code,
        "hexadecimal": chance.choice([str(code), str(code).upper(), code.hex]),
        "size": chance.choice(list(Size)),
        "text_size": chance.choice(list(Size)),
        "colour": chance.choice(list(Colour)),
        "word": chance.choice(["yes", "no", "maybe"]),
        "is_open": chance.random() < 0.5,
        "price": chance.choice(PRICES),
        "ratio": chance.choice([0.0, -0.0, 1.5, -1.5, 1e300, -1e-300, 2.0]),
        "hour": chance.choice([datetime.time(), datetime.time(23, 59, 59, 999999), datetime.time(6, 30)]),
        "span": chance.choice([-1, 0, 1]) * datetime.timedelta(days=chance.choice([0, 400]), microseconds=1),
        "score": chance.choice([None, -1, 0, 1, 2**63 - 1]),
        "note": chance.choice([None, "", "a", "é", "a b"]),
        "until": chance.choice([None, instant, INSTANTS[2]]),
        "cost": chance.choice([None, *PRICES]),
        "mood": chance.choice([None, *Size]),
    }


def _place(name: str, value: Any) -> Any:
    """Where a value is to be, as something that Python orders so."""
    if isinstance(value, Colour):
        return value.value
    if name == "at":
        return value.astimezone(UTC)  # Python compares the wall clock of one zone, twofold hours as equal
    return (
        value.name
        if isinstance(value, enum.Enum)
        else str(uuid.UUID(value))
        if name == "hexadecimal"
        else value
    )


def _compared(order: ListOrder, one: dict[str, Any], other: dict[str, Any]) -> int:
    """Less than 0 if the first event comes before the other."""
    for sorting in (*order.sorted_by, Sorting("name", Event)):
        values = [one[sorting.name], other[sorting.name]]
        if None in values and values != [None, None]:
            return -1 if (values[0] is None) == sorting.nulls_first else 1
        first, second = (value if value is None else _place(sorting.name, value) for value in values)
        if first is not None and second is not None and first != second:
            return -1 if (first < second) != sorting.descending else 1
    return 0


async def _pages(app: Diptych, order: int, store: str) -> list[Page[EventDocument]]:
    """Reads a list page by page, each from this store."""
    pages: list[Page[EventDocument]] = []
    after = None
    while not pages or after is not None:
        pages.append(await app.ask(ListEvents(order, 7, after)))
        assert pages[-1].served.store == store, pages[-1].served
        after = pages[-1].decode().next
    return pages


ORDERS = range(len(EventReadModel.lists))


async def test_redis_and_sql_give_the_same_pages_of_every_list(database_url, valkey):
    """The two halves of `read/lists`: the same bytes and so the same cursors, after commands and after a build."""
    chance = random.Random(1)
    events = [_event(chance, number) for number in range(30)]
    async with application(database_url, valkey.url) as app:
        await answered_by(app, "redis")
        await asyncio.gather(*(app.orm.create(Event, **event) for event in events))
        by_commands = [await _pages(app, order, "redis") for order in ORDERS]
        await app.rebuild(EventReadModel)
        await answered_by(app, "redis")
        by_build = [await _pages(app, order, "redis") for order in ORDERS]
    async with application(database_url) as app:
        by_sql = [await _pages(app, order, "sql") for order in ORDERS]
    for number, order in enumerate(EventReadModel.lists):
        wanted = sorted(events, key=functools.cmp_to_key(functools.partial(_compared, order)))
        listed = [item.name for page in by_sql[number] for item in page.decode().items]
        assert listed == [event["name"] for event in wanted], order
        for from_redis in (by_commands, by_build):
            bodies = [page.body for page in from_redis[number]]
            assert bodies == [page.body for page in by_sql[number]], order


async def test_a_page_that_ends_on_a_text_longer_than_its_column_has_a_next_one(sqlite_url, valkey):
    """SQLite does not mind the length of what another program writes, and so the cursor may be as long."""
    names = ["a", "b" * 60, "c" * 60, "d"]
    async with application(sqlite_url) as app:
        for number, name in enumerate(names):
            await app.orm.create(Event, **{**_event(random.Random(1), number), "name": f"{number}"})
            async with app.orm.database.writer.begin() as connection:
                await connection.execute(sa.update(Event).where(Event.name == f"{number}").values(name=name))
        by_sql = await _names_one_by_one(app)
    async with application(sqlite_url, valkey.url) as app:
        await answered_by(app, "redis")
        assert await _names_one_by_one(app) == by_sql == names


async def _names_one_by_one(app: Diptych) -> list[str]:
    names, after = [], None
    while True:
        page = (await app.ask(ListEvents(0, 1, after))).decode()
        names += [item.name for item in page.items]
        if (after := page.next) is None:
            return names
