"""Pages with filters, both ways, numbered and counted: the same bytes from both stores, as Python selects them."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import enum
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

import msgspec
import pytest
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import (
    Diptych,
    InvalidMessage,
    ReadModel,
    UnsupportedFilterError,
    between,
    by,
    code_point_text,
    starts_with,
)
from diptych.read.lists.index import ListIndex
from tests.catalogue import answered_by, keeper_of
from tests.configuration import configured
from tests.conformance.pages import Shown, asked_of, selected_ids, walk


class Base(DeclarativeBase):
    pass


class State(enum.Enum):
    OPEN = "o"
    DONE = "d"
    BLOCKED = "b"


class Ticket(Base):
    __tablename__ = "tickets"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(code_point_text(40))
    state: Mapped[State | None]
    priority: Mapped[int | None]
    price: Mapped[decimal.Decimal] = mapped_column(sa.Numeric(10, 2))
    opened: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    title: Mapped[str | None] = mapped_column(code_point_text(40))


class TicketDocument(Struct):
    id: int
    owner: str
    title: str | None


class TicketReadModel(ReadModel[Ticket]):
    key = Ticket.id
    document = TicketDocument
    lists = (
        by(Ticket.owner, Ticket.opened.desc(), name="newest"),
        by(Ticket.state, Ticket.priority.desc().nulls_last(), Ticket.opened, name="urgent"),
        by(Ticket.owner, Ticket.state, Ticket.price.desc(), name="dearest"),
        by(Ticket.title.desc(), name="titles"),
        by(Ticket.title.nulls_first(), Ticket.priority, name="by-title"),
        by(Ticket.priority.desc(), name="priority"),
        by(Ticket.id, name="all"),
    )


class Tickets:
    made: ClassVar[list[TicketReadModel]] = []

    def __init__(self, tickets: TicketReadModel) -> None:
        self.made.append(tickets)


OWNERS = ("ann", "bob", "a", "anna")
TITLES = (None, "", "a", "ab", "abc", "b", "é", "\U0010ffff", "a\U0010ffffz")
MOMENTS = [datetime.datetime(2026, 1, day, tzinfo=datetime.UTC) for day in (1, 2, 3)]


def _ticket(chance: random.Random, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "owner": chance.choice(OWNERS),
        "state": chance.choice([None, *State]),
        "priority": chance.choice([None, -1, 0, 5]),
        "price": decimal.Decimal(chance.choice(["-1.50", "0.00", "2.25", "10.00"])),
        "opened": chance.choice([None, *MOMENTS]),
        "title": chance.choice(TITLES),
    }


def _filter_of(chance: random.Random, index: ListIndex) -> dict[str, Any] | None:
    """A filter that the list can serve."""
    rows = [_ticket(chance, chance.randint(1, 40)) for _ in range(3)]
    names = index.columns[: chance.randint(0, len(index.columns))]
    where: dict[str, Any] = {name: rows[0][name] for name in names}
    if names and names[-1] != "id" and chance.random() < 0.4:
        where[names[-1]] = [row[names[-1]] for row in rows][: chance.randint(0, 3)]
    if len(names) < len(index.columns) and chance.random() < 0.5:
        name = index.columns[len(names)]
        ends = [chance.choice([None, row[name]]) for row in rows]
        where[name] = between(ends[0], ends[1])
        if name == "title" and chance.random() < 0.5:
            where[name] = starts_with(rows[2][name] or "")
    return where or None


@contextlib.asynccontextmanager
async def application(
    database_url: str, redis_url: str | None = None
) -> AsyncIterator[tuple[Diptych, Pages]]:
    config = configured(database_url, redis_url)
    async with Diptych(config, models=Base, handlers=[Tickets], read_models=[TicketReadModel]) as app:
        yield app, Pages(Tickets.made.pop(), "sql" if redis_url is None else "redis")


class Pages:
    """The pages of tickets from a store."""

    def __init__(self, tickets: TicketReadModel, store: str) -> None:
        self._tickets = tickets
        self._store = store

    async def __call__(self, name: str, where: Any = None, **asked: Any) -> bytes:
        page = await self._tickets.page(name, where=where, **asked)
        assert page.served.store == self._store, page.served
        return page.body


@pytest.mark.parametrize("seed", range(2))
async def test_both_stores_give_the_pages_that_python_selects(database_url, valkey, seed):
    chance = random.Random(seed)
    tickets = {number: _ticket(chance, number) for number in range(1, 41)}
    async with application(database_url, valkey.url) as (app, redis), application(database_url) as (_, sql):
        await app.orm.create_all(Ticket, list(tickets.values()))
        await answered_by(app, "redis")
        indexes = _indexes(app)
        for turn in range(60):
            index = chance.choice(indexes)
            where = _filter_of(chance, index)
            asked = asked_of(chance, where)
            told = (index.name, where, asked)

            async def page(index: ListIndex = index, where: Any = where, **asked: Any) -> Shown:
                bodies = [await route(index.name, where, **asked) for route in (redis, sql)]
                assert bodies[0] == bodies[1], (index.name, where, asked)
                return msgspec.json.decode(bodies[0], type=Shown)

            await walk(page, selected_ids(list(tickets.values()), index, where), asked, told)
            if turn % 10 == 0:  # cursors survive what happens to their rows
                gone = chance.choice(list(tickets))
                after = (await page(limit=5)).next
                await app.orm.delete(Ticket, gone, "id")
                del tickets[gone]
                if after is not None:
                    await page(after=after, limit=3)
                    await page(before=after, limit=3, count=True)
                tickets[gone] = _ticket(chance, gone)
                await app.orm.create(Ticket, **tickets[gone])


def _indexes(app: Diptych) -> Sequence[ListIndex]:
    return keeper_of(app).replica.compiled.lists


async def test_what_no_list_can_serve_is_refused_and_the_lists_are_named(database_url, valkey):
    async with application(database_url, valkey.url) as (app, redis), application(database_url) as (_, sql):
        await answered_by(app, "redis")
        for route in (redis, sql):
            for name, where in (
                ("newest", {"opened": MOMENTS[0]}),
                ("newest", {"owner": ["ann", "bob"], "opened": MOMENTS[0]}),
                ("newest", {"owner": between("a", "b"), "opened": MOMENTS[0]}),
                ("newest", {"owner": "ann", "title": "a"}),
                ("newest", {"colour": "red"}),
                ("priority", {"priority": starts_with("a")}),
            ):
                with pytest.raises(UnsupportedFilterError, match=name):
                    await route(name, where)
            with pytest.raises(UnsupportedFilterError, match="these lists can: dearest") as refused:
                await route("newest", {"owner": "ann", "state": State.OPEN})
            assert refused.value.lists == ("dearest",)


async def test_faulty_arguments_are_refused(sqlite_url):
    async with application(sqlite_url) as (app, pages):
        await app.orm.create_all(Ticket, [_ticket(random.Random(n), n) for n in range(1, 9)])
        cursor = msgspec.json.decode(await pages("all", limit=1), type=Shown).next
        for asked in (
            {"after": cursor, "before": cursor},
            {"after": cursor, "offset": 1},
            {"before": cursor, "offset": 1},
            {"offset": -1},
            {"offset": 10_001},
            {"offset": True},
            {"limit": 0},
            {"before": "no cursor"},
            {"where": {"id": [1, 2]}},
            {"where": {"id": between("x", None)}},
        ):
            with pytest.raises(InvalidMessage):
                await pages("all", **asked)
        with pytest.raises(InvalidMessage, match="several values"):
            await pages("newest", {"owner": ["ann", "bob"]}, offset=1)
        with pytest.raises(InvalidMessage, match="more than 20"):
            await pages("newest", {"owner": [f"{n}" for n in range(21)]})


async def test_a_cursor_holds_no_filter(database_url, valkey):
    """With the cursor of one owner's page, another owner's page shows that owner's tickets alone."""
    async with application(database_url, valkey.url) as (app, redis), application(database_url) as (_, sql):
        tickets = [_ticket(random.Random(n), n) | {"owner": OWNERS[n % 2]} for n in range(1, 21)]
        await app.orm.create_all(Ticket, tickets)
        await answered_by(app, "redis")
        for route in (redis, sql):
            first = msgspec.json.decode(await route("newest", {"owner": "ann"}, limit=2))
            other = msgspec.json.decode(await route("newest", {"owner": "bob"}, after=first["next"]))
            assert {item["owner"] for item in other["items"]} <= {"bob"}
            with pytest.raises(InvalidMessage, match="cursor"):
                await route("newest", after=first["next"])


@pytest.mark.parametrize("where", [{"owner": "\ud800", "opened": None}, {"owner": None, "opened": between()}])
async def test_values_that_no_row_can_have_select_nothing(database_url, valkey, where):
    """Of a column before others too."""
    async with application(database_url, valkey.url) as (app, redis), application(database_url) as (_, sql):
        await app.orm.create_all(Ticket, [_ticket(random.Random(n), n) for n in range(1, 5)])
        await answered_by(app, "redis")
        for route in (redis, sql):
            assert await route("newest", where, count=True) == b'{"items":[],"next":null,"total":0}'
