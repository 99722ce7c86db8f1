"""The first and the last day of the calendar: PostgreSQL has two values for each, Python and Redis have one."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import Diptych, Document, ReadModel, between, by
from diptych.testing import settled
from tests.captured import Program
from tests.configuration import configured
from tests.servers import RedisServer

FIRST, LAST = datetime.date.min, datetime.date.max
LAST_MOMENT = datetime.datetime.max
SOME = datetime.date(2026, 1, 1)

ROWS = [  # id, kind, until, moment
    (0, 0, "'9999-12-31'", "'9999-12-31 23:59:59.999999'"),
    (1, 1, "'infinity'", "'infinity'"),
    (2, 0, "'9999-12-31'", "'2026-01-01 00:00:00'"),
    (3, 1, "'infinity'", "'9999-12-31 23:59:59.999999'"),
    (4, 0, "'2026-01-01'", "'infinity'"),
    (5, 1, "'-infinity'", "'-infinity'"),
    (6, 0, "'0001-01-01'", "'0001-01-01 00:00:00'"),
    (7, 1, "'-infinity'", "'0001-01-01 00:00:00'"),
    (8, 0, "'0001-01-01'", "'-infinity'"),
    (9, 1, "NULL", "NULL"),
]


class Base(DeclarativeBase):
    pass


class Price(Base):
    __tablename__ = "prices"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[int]
    until: Mapped[datetime.date | None]
    moment: Mapped[datetime.datetime | None]


class Term(Base):
    """Has a day in its key."""

    __tablename__ = "terms"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    until: Mapped[datetime.date] = mapped_column(primary_key=True)
    note: Mapped[str]


class PriceDocument(msgspec.Struct):
    id: int
    until: datetime.date | None
    moment: datetime.datetime | None


class TermDocument(msgspec.Struct):
    id: int
    note: str


class Prices(ReadModel[Price]):
    key = Price.id
    document = PriceDocument
    lists = (
        by(Price.until, name="until"),
        by(Price.until.desc(), name="latest"),
        by(Price.moment.desc(), name="moment"),
        by(Price.kind, Price.until.desc(), name="kind"),
        by(Price.until, Price.moment.desc(), name="both"),
    )


class Terms(ReadModel[Term]):
    key = (Term.id, Term.until)
    document = TermDocument
    lists = (by(Term.id),)


def _conditional(name: str, condition: Any) -> type[ReadModel[Price]]:
    members = {
        "key": Price.id,
        "document": PriceDocument,
        "where": condition,
        "lists": (by(Price.id, name="id"),),
    }
    return type(name, (ReadModel,), members)


CONDITIONS = {
    "Current": Price.until == LAST,
    "Ended": Price.until < LAST,
    "Not": Price.until != LAST,
    "AtMostFirst": Price.until <= FIRST,
    "AfterFirst": Price.until > FIRST,
    "AtLeastLast": Price.until >= LAST,
    "One": Price.until.in_([SOME, LAST]),
    "Moment": Price.moment == LAST_MOMENT,
}
CONDITIONAL = {name: _conditional(name, condition) for name, condition in CONDITIONS.items()}


@asynccontextmanager
async def both(
    postgres_url: str, valkey: RedisServer, read_models: list[type[ReadModel[Any]]]
) -> AsyncIterator[list[Diptych]]:
    """An application that Redis answers and one that SQL answers, over the rows."""

    def made(redis_url: str | None) -> Diptych:
        return Diptych(configured(postgres_url, redis_url), models=Base, handlers=[], read_models=read_models)

    program = Program(postgres_url)
    async with made(None) as by_sql:
        async with by_sql.orm.database.reader.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        values = ", ".join(f"({a}, {b}, {c}, {d})" for a, b, c, d in ROWS)
        await program.runs(
            f"INSERT INTO prices (id, kind, until, moment) VALUES {values}",
            "INSERT INTO terms VALUES (1, '9999-12-31', 'a'), (2, 'infinity', 'b'), (3, '2026-01-01', 'c')",
        )
        async with made(valkey.url) as by_redis:
            await settled(by_redis)
            yield [by_redis, by_sql]


async def _pages(app: Diptych, model: type[Any], name: str, limit: int, **asked: Any) -> list[int]:
    """Returns the ids of all pages, which are the same backwards."""
    read_model = app.provide(model)
    found, before, after = list[int](), None, None
    for _ in range(len(ROWS) + 1):
        page = (await read_model.page(name, limit=limit, after=after, count=True, **asked)).decode()
        found += [item.id for item in page.items]
        before, after = page.items and page.previous, page.next
        if after is None:
            break
    assert len(found) == page.total
    last, back = len(page.items), list[int]()
    while before is not None:
        page = (await read_model.page(name, limit=limit, before=before, **asked)).decode()
        back = [item.id for item in page.items] + back
        before = page.previous
    assert back == found[: len(found) - last]
    return found


ORDERS = {
    "until": [5, 6, 7, 8, 4, 0, 1, 2, 3],
    "latest": [0, 1, 2, 3, 4, 5, 6, 7, 8],
    "moment": [0, 1, 3, 4, 2, 5, 6, 7, 8],
    "kind": [0, 2, 4, 6, 8, 1, 3, 5, 7],
    "both": [5, 6, 7, 8, 4, 0, 1, 3, 2],
}


@pytest.mark.parametrize("limit", [1, 2, 4, 20])
async def test_pages_are_in_one_order_and_lose_no_row(postgres_url: str, valkey: RedisServer, limit: int):
    async with both(postgres_url, valkey, [Prices]) as apps:
        for name, expected in ORDERS.items():
            from_redis, from_sql = [await _pages(app, Prices, name, limit) for app in apps]
            assert from_sql == from_redis, name
            assert [each for each in from_sql if each != 9] == expected, name


FILTERS: list[tuple[str, dict[str, Any], list[int]]] = [
    ("until", {"until": LAST}, [0, 1, 2, 3]),
    ("latest", {"until": FIRST}, [5, 6, 7, 8]),
    ("until", {"until": [SOME, LAST]}, [0, 1, 2, 3, 4]),
    ("until", {"until": between(SOME, LAST)}, [4, 0, 1, 2, 3]),
    ("until", {"until": between(LAST)}, [0, 1, 2, 3]),
    ("latest", {"until": between(FIRST, SOME)}, [4, 5, 6, 7, 8]),
    ("latest", {"until": between(end=FIRST)}, [5, 6, 7, 8]),
    ("kind", {"kind": 1, "until": LAST}, [1, 3]),
    ("moment", {"moment": LAST_MOMENT}, [0, 1, 3, 4]),
    ("both", {"until": LAST, "moment": between(datetime.datetime(2026, 1, 1))}, [0, 1, 3, 2]),
]


@pytest.mark.parametrize("limit", [1, 3, 20])
async def test_a_filter_finds_both_values(postgres_url: str, valkey: RedisServer, limit: int):
    async with both(postgres_url, valkey, [Prices]) as apps:
        for app in apps:
            for name, where, expected in FILTERS:
                assert await _pages(app, Prices, name, limit, where=where) == expected, (name, where)


async def test_a_condition_selects_both_values(postgres_url: str, valkey: RedisServer):
    expected = {
        "Current": [0, 1, 2, 3],
        "Ended": [4, 5, 6, 7, 8],
        "Not": [4, 5, 6, 7, 8],
        "AtMostFirst": [5, 6, 7, 8],
        "AfterFirst": [0, 1, 2, 3, 4],
        "AtLeastLast": [0, 1, 2, 3],
        "One": [0, 1, 2, 3, 4],
        "Moment": [0, 1, 3, 4],
    }
    async with both(postgres_url, valkey, list(CONDITIONAL.values())) as apps:
        for app in apps:
            for name, model in CONDITIONAL.items():
                assert await _pages(app, model, "id", 20) == expected[name], name


async def test_a_row_is_found_by_a_key_at_an_end(postgres_url: str, valkey: RedisServer):
    async with both(postgres_url, valkey, [Terms]) as apps:
        await Program(postgres_url).runs("UPDATE terms SET note = note || '!'")
        await apps[0].catch_up()
        await settled(apps[0])
        for app in apps:
            terms = app.provide(Terms)
            found = [await terms.get((number, LAST)) for number in (1, 2)]
            assert [each.body for each in found] == [b'{"id":1,"note":"a!"}', b'{"id":2,"note":"b!"}']
            many = await terms.get_many([(1, LAST), (2, LAST), (3, SOME)])
            assert [document and document.note for document in map(Document.decode, many)] == [
                "a!",
                "b!",
                "c!",
            ]
