"""The orders of lists: the same from both stores, on both databases, for every sortable type."""

from __future__ import annotations

import asyncio
import datetime
import enum
import random
import uuid
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConfigService, Diptych, Page, Query, ReadModel, by, code_point_text
from tests.catalogue import answered_by

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


class EventDocument(Struct):
    name: str
    at: datetime.datetime
    size: Size
    word: str


SORTED = ("at", "local", "day", "number", "code", "hexadecimal", "size", "text_size", "colour", "word")


class EventReadModel(ReadModel[Event]):
    key = Event.name
    document = EventDocument
    lists = (*(by(getattr(Event, name)) for name in SORTED), by(Event.size, Event.at, Event.word))


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
    config = ConfigService(environ={}, database_url=database_url, redis_url=redis_url, lease_ms=10_000)
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


async def _pages(app: Diptych, order: int, store: str) -> list[Page[EventDocument]]:
    """Reads a list page by page, each from this store."""
    pages: list[Page[EventDocument]] = []
    after = None
    while not pages or after is not None:
        pages.append(await app.ask(ListEvents(order, 7, after)))
        assert pages[-1].served.store == store, pages[-1].served
        after = pages[-1].decode().next
    return pages


@pytest.mark.parametrize(
    "order", range(len(EventReadModel.lists)), ids=[str(order) for order in EventReadModel.lists]
)
async def test_redis_and_sql_give_the_same_pages_of_a_list(database_url, valkey, order):
    """The two halves of `read/lists`: the same bytes and so the same cursors, after commands and after a build."""
    chance = random.Random(order)
    events = [_event(chance, number) for number in range(30)]
    async with application(database_url, valkey.url) as app:
        await answered_by(app, "redis")
        await asyncio.gather(*(app.orm.create(Event, **event) for event in events))
        by_commands = await _pages(app, order, "redis")
        await app.rebuild(EventReadModel)
        await answered_by(app, "redis")
        by_build = await _pages(app, order, "redis")
    async with application(database_url) as app:
        by_sql = await _pages(app, order, "sql")
    for from_redis in (by_commands, by_build):
        assert [page.body for page in from_redis] == [page.body for page in by_sql]
    columns = EventReadModel.lists[order].columns
    wanted = sorted(
        events, key=lambda event: (*(_place(name, event[name]) for name in columns), event["name"])
    )
    listed = [item.name for page in by_sql for item in page.decode().items]
    assert listed == [event["name"] for event in wanted]


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
