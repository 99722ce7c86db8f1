"""Lists in the order of joined rows' columns: the same pages from both stores, whatever happens to either row."""

from __future__ import annotations

import contextlib
import datetime
import enum
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

import msgspec
import pytest
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import (
    Diptych,
    ReadModel,
    UnsupportedFilterError,
    WiringError,
    between,
    by,
    code_point_text,
    join,
    starts_with,
)
from diptych.read.lists.index import ListIndex
from tests.catalogue import answered_by, keeper_of
from tests.configuration import configured
from tests.conformance.pages import Shown, asked_of, selected_ids, walk


class Base(DeclarativeBase):
    pass


class Rank(enum.Enum):
    SENIOR = "s"
    JUNIOR = "j"


class Agent(Base):
    __tablename__ = "agents"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(40))
    level: Mapped[int]
    rank: Mapped[Rank]
    seen: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=True))


class Ticket(Base):
    __tablename__ = "tickets"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(code_point_text(40))
    priority: Mapped[int | None]
    agent_id: Mapped[int | None] = mapped_column(index=True)
    helper_id: Mapped[int | None] = mapped_column(index=True)


class TicketDocument(Struct):
    id: int
    owner: str
    agent_name: str | None
    agent_level: int | None
    agent_rank: Rank | None
    helper_seen: datetime.datetime | None


class TicketReadModel(ReadModel[Ticket]):
    key = Ticket.id
    document = TicketDocument
    joined: ClassVar = {
        "agent_name": join(Agent.name, Ticket.agent_id, Agent.id),
        "agent_level": join(Agent.level, Ticket.agent_id, Agent.id),
        "agent_rank": join(Agent.rank, Ticket.agent_id, Agent.id),
        "helper_seen": join(Agent.seen, Ticket.helper_id, Agent.id),
    }
    lists = (
        by(Agent.name, Ticket.priority.desc()),
        by(Ticket.owner, Agent.level.desc().nulls_last(), name="levels"),
        by(Agent.rank.desc(), Agent.name, Agent.seen.desc(), name="ranks"),
        by(Agent.seen.nulls_first(), name="seen", where=Ticket.priority > 0),
    )


class Tickets:
    made: ClassVar[list[TicketReadModel]] = []

    def __init__(self, tickets: TicketReadModel) -> None:
        self.made.append(tickets)


NAMES = (None, "", "a", "ab", "é", "B", "\U0010ffff")
MOMENTS = [datetime.datetime(2026, 1, day, tzinfo=datetime.UTC) for day in (1, 2, 3)]


def _agent(chance: random.Random, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "name": chance.choice(NAMES),
        "level": chance.choice([-1, 0, 5]),
        "rank": chance.choice([*Rank]),
        "seen": chance.choice([None, *MOMENTS]),
    }


def _ticket(chance: random.Random, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "owner": chance.choice(["ann", "bob"]),
        "priority": chance.choice([None, -1, 0, 5]),
        "agent_id": chance.choice([None, *range(1, 8)]),
        "helper_id": chance.choice([None, *range(1, 8)]),
    }


class Rows:
    """The rows of both tables, as Python knows them."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.agents = {number: _agent(chance, number) for number in range(1, 6)}
        self.tickets = {number: _ticket(chance, number) for number in range(1, 31)}

    def joined(self, ticket: Mapping[str, Any]) -> dict[str, Any]:
        agent, helper = (self.agents.get(ticket[name], {}) for name in ("agent_id", "helper_id"))
        return {
            **ticket,
            **{f"agent_{name}": agent.get(name) for name in ("name", "level", "rank")},
            "helper_seen": helper.get("seen"),
        }

    def of(self, index: ListIndex) -> list[dict[str, Any]]:
        return [
            self.joined(ticket)
            for ticket in self.tickets.values()
            if index.name != "seen" or (ticket["priority"] or 0) > 0
        ]

    async def change(self, app: Diptych) -> None:
        """Changes a row of either table, by the service or by anybody's SQL."""
        chance, number = self._chance, self._chance.randint(1, 7)
        if chance.random() < 0.4:
            ticket = _ticket(chance, chance.randint(1, 30))
            await app.orm.update(Ticket, ticket["id"], "id", **{**ticket, "id": ticket["id"]})
            self.tickets[ticket["id"]] = ticket
        elif number not in self.agents:
            self.agents[number] = _agent(chance, number)
            await app.orm.create(Agent, **self.agents[number])
        elif chance.random() < 0.3:
            del self.agents[number]
            await app.orm.execute(sa.delete(Agent).where(Agent.id == number))
        else:
            self.agents[number] = _agent(chance, number)
            changed = sa.update(Agent).where(Agent.id == number).values(**self.agents[number])
            await app.orm.execute(changed)


def _filter_of(chance: random.Random, index: ListIndex, rows: Rows) -> dict[str, Any] | None:
    """A filter that the list can serve."""
    some = [rows.joined(_ticket(chance, 1)) for _ in range(3)]
    names = index.columns[: chance.randint(0, len(index.columns) - 1)]
    where: dict[str, Any] = {name: some[0][name] for name in names}
    if names and chance.random() < 0.4:
        where[names[-1]] = [row[names[-1]] for row in some][: chance.randint(0, 3)]
    if chance.random() < 0.5:
        name = index.columns[len(names)]
        where[name] = between(*(chance.choice([None, row[name]]) for row in some[:2]))
        if name == "agent_name" and chance.random() < 0.5:
            where[name] = starts_with(some[2][name] or "")
    return where or None


@contextlib.asynccontextmanager
async def application(database_url: str, redis_url: str | None = None) -> AsyncIterator[tuple[Diptych, Any]]:
    config = configured(database_url, redis_url)
    async with Diptych(config, models=Base, handlers=[Tickets], read_models=[TicketReadModel]) as app:
        tickets, store = Tickets.made.pop(), "sql" if redis_url is None else "redis"

        async def page(*arguments: Any, **asked: Any) -> bytes:
            found = await tickets.page(*arguments, **asked)
            assert found.served.store == store, found.served
            return found.body

        yield app, page


@pytest.mark.parametrize("seed", range(2))
async def test_both_stores_give_the_pages_that_python_selects(database_url, valkey, seed):
    chance = random.Random(seed)
    rows = Rows(chance)
    async with application(database_url, valkey.url) as (app, redis), application(database_url) as (_, sql):
        await app.orm.create_all(Agent, list(rows.agents.values()))
        await app.orm.create_all(Ticket, list(rows.tickets.values()))
        await answered_by(app, "redis")
        indexes = keeper_of(app).replica.compiled.lists
        for _turn in range(40):
            index = chance.choice(indexes)
            where = _filter_of(chance, index, rows)
            asked = asked_of(chance, where)
            told = (index.name, where, asked)

            async def page(index: ListIndex = index, where: Any = where, **asked: Any) -> Shown:
                bodies = [await route(index.name, where=where, **asked) for route in (redis, sql)]
                assert bodies[0] == bodies[1], (index.name, where, asked)
                return msgspec.json.decode(bodies[0], type=Shown)

            await walk(page, selected_ids(rows.of(index), index, where), asked, told)
            await rows.change(app)


async def test_a_joined_column_is_called_like_its_field(database_url):
    async with application(database_url) as (app, page):
        await app.orm.create(Agent, id=1, name="a", level=1, rank=Rank.JUNIOR, seen=None)
        await app.orm.create(Ticket, id=1, owner="ann", priority=1, agent_id=1, helper_id=None)
        named = await page("name,priority", where={"agent_name": "a"})
        assert named == await page(by(Agent.name, Ticket.priority.desc()), where={"agent_name": "a"})
        assert msgspec.json.decode(named, type=Shown).ids == [1]
        with pytest.raises(UnsupportedFilterError, match="agent_name"):
            await page("levels", where={"agent_name": "a"})


@pytest.mark.parametrize(
    ("lists", "problem"),
    [
        (
            (by(Agent.id),),
            r"'id' is of Agent: .* declare a field with join\(Agent.id, …\)",
        ),
        (
            (by(Agent.level), by(Agent.level)),
            "2 lists are called 'level'",
        ),
    ],
)
async def test_what_is_no_order_is_refused_by_name(sqlite_url, lists, problem):
    listed: Any = type("Listed", (TicketReadModel,), {"lists": lists})
    app = Diptych(configured(sqlite_url), models=Base, handlers=[], read_models=[listed])
    with pytest.raises(WiringError, match=problem):
        async with app:
            pass


async def test_a_column_of_two_joined_rows_is_refused(sqlite_url):
    class TwoAgents(TicketDocument):
        helper_name: str | None = None

    class Listed(ReadModel[Ticket]):
        key = Ticket.id
        document = TwoAgents
        joined: ClassVar = {
            **TicketReadModel.joined,
            "helper_name": join(Agent.name, Ticket.helper_id, Agent.id),
        }
        lists = (by(Agent.name),)

    app = Diptych(configured(sqlite_url), models=Base, handlers=[], read_models=[Listed])
    with pytest.raises(WiringError, match=r"several joined fields \(agent_name, helper_name\)"):
        async with app:
            pass
