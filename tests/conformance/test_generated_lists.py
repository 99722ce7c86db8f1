"""Lists of generated declarations: both stores give the pages that Python selects, whatever changes in between.

Orders over own columns, columns of joined rows and elements of collections, conditions, filters, cursors (forged ones
too), numbered pages and totals. ``DIPTYCH_DECLARATIONS`` chooses how many declarations are tried, ``DIPTYCH_SEED``
which.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import decimal
import enum
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from diptych import Diptych, InvalidMessage, ReadModel, between, by, code_point_text, each, join, starts_with
from diptych.read.lists.index import ListIndex
from tests.catalogue import answered_by, keeper_of
from tests.configuration import configured
from tests.conformance.pages import Shown, asked_of, selected_ids, walk

DECLARATIONS = int(os.environ.get("DIPTYCH_DECLARATIONS", "3"))
SEED = int(os.environ.get("DIPTYCH_SEED", "0"))
TURNS = 40
ITEMS, AGENTS, TAGS = range(1, 26), range(1, 6), range(1, 6)


class Base(DeclarativeBase):
    pass


class State(enum.Enum):
    OPEN = "o"
    DONE = "d"
    BLOCKED = "b"


class Agent(Base):
    __tablename__ = "agents"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(40))
    level: Mapped[int]


class Tag(Base):
    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(code_point_text(40))


item_tags = sa.Table(
    "item_tags",
    Base.metadata,
    sa.Column("item_id", sa.ForeignKey("items.id", ondelete="CASCADE"), index=True),
    sa.Column("tag_id", sa.ForeignKey("tags.id", ondelete="CASCADE"), index=True),
)


class Item(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(40))
    title: Mapped[str | None] = mapped_column(code_point_text(40))
    state: Mapped[State | None]
    priority: Mapped[int | None]
    price: Mapped[decimal.Decimal] = mapped_column(sa.Numeric(10, 2))
    score: Mapped[float | None]
    opened: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    day: Mapped[datetime.date]
    is_active: Mapped[bool]
    agent_id: Mapped[int | None] = mapped_column(index=True)
    tags: Mapped[list[Tag]] = relationship(secondary=item_tags, passive_deletes=True)


class ItemDocument(msgspec.Struct):
    id: int
    owner: str
    agent_name: str | None
    agent_level: int | None


COLUMNS = {
    **{
        name: getattr(Item, name)
        for name in (
            "id",
            "owner",
            "title",
            "state",
            "priority",
            "price",
            "score",
            "opened",
            "day",
            "is_active",
        )
    },
    "agent_name": Agent.name,
    "agent_level": Agent.level,
}
TEXTS = ("owner", "title", "agent_name")
DIRECTIONS: tuple[Callable[[Any], Any], ...] = (
    lambda column: column,
    lambda column: column.desc(),
    lambda column: column.nulls_first(),
    lambda column: column.desc().nulls_last(),
)
Meaning = Callable[[Mapping[str, Any]], bool]
CONDITIONS: tuple[tuple[Any, Meaning], ...] = (
    (None, lambda _row: True),
    (Item.is_active.is_(True), lambda row: row["is_active"]),
    (Item.priority > 0, lambda row: (row["priority"] or 0) > 0),
    (
        sa.or_(Item.title.is_(None), Item.state != State.DONE),
        lambda row: row["title"] is None or row["state"] not in (None, State.DONE),
    ),
)
NAMES = (None, "", "a", "ab", "é", "B", "\U0010ffff", "a\U0010ffffz")
MOMENTS = [datetime.datetime(2026, 1, day, tzinfo=datetime.UTC) for day in (1, 2, 3)]


class Declared:
    """A read model with generated lists, and the meanings of its conditions."""

    def __init__(self, chance: random.Random) -> None:
        where, self.shows = chance.choice(CONDITIONS)
        self.has: dict[str, Meaning] = {}
        lists = [self._list(chance, f"list-{number}") for number in range(chance.randint(2, 5))]
        self._made: list[Any] = []
        self.model: Any = type(
            "ItemReadModel",
            (ReadModel,),
            {
                "key": Item.id,
                "document": ItemDocument,
                "joined": {
                    "agent_name": join(Agent.name, Item.agent_id, Agent.id),
                    "agent_level": join(Agent.level, Item.agent_id, Agent.id),
                },
                "where": where,
                "lists": tuple(lists),
            },
        )

        def init(_handler: Any, items: Any) -> None:
            self._made.append(items)

        init.__annotations__ = {"items": self.model}
        self._handler = type("Items", (), {"__init__": init})

    def _list(self, chance: random.Random, name: str) -> Any:
        where, self.has[name] = chance.choice(CONDITIONS)
        columns = [
            chance.choice(DIRECTIONS)(COLUMNS[column])
            for column in chance.sample(list(COLUMNS), chance.randint(1, 4))
        ]
        if chance.random() < 0.4:
            columns.insert(chance.randint(0, min(1, len(columns))), each(Item.tags, Tag.name))
        return by(*columns, name=name, where=where)

    @contextlib.asynccontextmanager
    async def application(
        self, database_url: str, redis_url: str | None = None
    ) -> AsyncIterator[tuple[Diptych, Any]]:
        config = configured(database_url, redis_url)
        async with Diptych(config, models=Base, handlers=[self._handler], read_models=[self.model]) as app:
            items, store = self._made.pop(), "sql" if redis_url is None else "redis"

            async def page(index: ListIndex, where: Any, **asked: Any) -> bytes | str:
                """The page, or what is wrong with the question."""
                try:
                    found = await items.page(index.name, where=where, **asked)
                except InvalidMessage as error:
                    return str(error)
                assert found.served.store == store, found.served
                return bytes(found.body)

            yield app, page


class Rows:
    """The rows, as Python knows them, and changes of them by commands and by a program beside the application."""

    def __init__(self, chance: random.Random, declared: Declared) -> None:
        self._chance = chance
        self._declared = declared
        self.agents = {number: self._agent(number) for number in AGENTS[:3]}
        self.tags = {number: self._tag(number) for number in TAGS}
        self.items = {number: self._item(number) for number in ITEMS}
        self.links = {(chance.choice(ITEMS), chance.choice(TAGS)) for _ in range(40)}

    def _agent(self, number: int) -> dict[str, Any]:
        return {"id": number, "name": self._chance.choice(NAMES), "level": self._chance.choice([-1, 0, 5])}

    def _tag(self, number: int) -> dict[str, Any]:
        return {"id": number, "name": self._chance.choice(NAMES[:4])}

    def _item(self, number: int) -> dict[str, Any]:
        chance = self._chance
        return {
            "id": number,
            "owner": chance.choice(["ann", "bob", "a", "Anna"]),
            "title": chance.choice(NAMES),
            "state": chance.choice([None, *State]),
            "priority": chance.choice([None, -1, 0, 5]),
            "price": decimal.Decimal(chance.choice(["-1.50", "0.00", "2.25", "10.00"])),
            "score": chance.choice([None, -0.5, 0.0, 1e300]),
            "opened": chance.choice([None, *MOMENTS]),
            "day": datetime.date(2026, 1, chance.randint(1, 3)),
            "is_active": chance.random() < 0.6,
            "agent_id": chance.choice([None, *AGENTS]),
        }

    def _shown(self, item: dict[str, Any]) -> dict[str, Any]:
        agent = self.agents.get(item["agent_id"], {})
        tags = {self.tags[tag]["name"] for number, tag in self.links if number == item["id"]}
        return {**item, "agent_name": agent.get("name"), "agent_level": agent.get("level"), "tags": tags}

    def of(self, index: ListIndex, where: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """The rows in a list; of a list by tags those with the tag that is asked for."""
        has = self._declared.has[index.name]
        rows = [self._shown(item) for item in self.items.values() if self._declared.shows(item) and has(item)]
        if index.collection is None:
            return rows
        tag = (where or {})["tags"]
        return [{**row, "tags": tag} for row in rows if tag in row["tags"]]

    def values_of(self, name: str, number: int) -> list[Any]:
        """Values of a column, as some rows may have them."""
        rows = [self._shown(self._item(self._chance.choice(ITEMS))) for _ in range(number)]
        return [self._chance.choice(NAMES[:4]) if name == "tags" else row[name] for row in rows]

    async def change(self, app: Diptych) -> None:
        ways = (self._change_item, self._replace_item, self._change_agent, self._rename_tag, self._link)
        await self._chance.choice(ways)(app)

    async def _change_item(self, app: Diptych) -> None:
        item = self._item(self._chance.choice(ITEMS))
        self.items[item["id"]] = item
        changes = {name: value for name, value in item.items() if name != "id"}
        await app.orm.update(Item, item["id"], "id", **changes)

    async def _replace_item(self, app: Diptych) -> None:
        number = self._chance.choice(ITEMS)
        await app.orm.delete(Item, number, "id")
        self.links = {link for link in self.links if link[0] != number}
        self.items[number] = self._item(number)
        async with app.orm.session() as session:
            session.add(Item(**self.items[number]))

    async def _change_agent(self, app: Diptych) -> None:
        number = self._chance.choice(AGENTS)
        if number not in self.agents:
            self.agents[number] = self._agent(number)
            await app.orm.create(Agent, **self.agents[number])
        elif self._chance.random() < 0.3:
            del self.agents[number]
            await app.orm.execute(sa.delete(Agent).where(Agent.id == number))
        else:
            self.agents[number] = self._agent(number)
            changed = sa.update(Agent).where(Agent.id == number).values(**self.agents[number])
            await app.orm.execute(changed)

    async def _rename_tag(self, app: Diptych) -> None:
        number = self._chance.choice(TAGS)
        self.tags[number] = self._tag(number)
        async with app.orm.session() as session:
            tag = await session.get(Tag, number)
            assert tag is not None
            tag.name = self.tags[number]["name"]

    async def _link(self, app: Diptych) -> None:
        item, tag = self._chance.choice(ITEMS), self._chance.choice(TAGS)
        values = {"item_id": item, "tag_id": tag}
        if (item, tag) in self.links:
            self.links.remove((item, tag))
            linked = (item_tags.c[name] == value for name, value in values.items())
            await app.orm.execute(sa.delete(item_tags).where(*linked))
        else:
            self.links.add((item, tag))
            await app.orm.execute(sa.insert(item_tags).values(**values))


def _filter_of(chance: random.Random, index: ListIndex, rows: Rows) -> dict[str, Any] | None:
    """A filter that the list can serve."""
    least = 0 if index.each_at is None else index.each_at + 1
    names = index.columns[: chance.randint(least, len(index.columns) - 1)]
    where: dict[str, Any] = {name: rows.values_of(name, 1)[0] for name in names}
    if names and names[-1] not in ("id", "tags") and chance.random() < 0.3:
        where[names[-1]] = rows.values_of(names[-1], 3)[: chance.randint(0, 3)]
    following = index.columns[len(names)]
    if chance.random() < 0.5 and following != "tags":
        ends = [chance.choice([None, value]) for value in rows.values_of(following, 2)]
        where[following] = between(*ends)
        if following in TEXTS and chance.random() < 0.5:
            where[following] = starts_with(rows.values_of(following, 1)[0] or "")
    return where or None


def _forged(chance: random.Random, index: ListIndex, given: str | None, rows: Rows) -> str:
    """A cursor that no page of the list has told: of other values, of another list, bent, or nonsense."""
    if given and chance.random() < 0.4:
        data = bytearray(base64.urlsafe_b64decode(given + "=" * (-len(given) % 4)))
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        return base64.urlsafe_b64encode(bytes(data)).rstrip(b"=").decode()
    if chance.random() < 0.6:
        at = chance.randint(0, len(index.columns) - 1)
        values = [rows.values_of(name, 1)[0] for name in index.columns[at:]]
        with contextlib.suppress(Exception):
            return index.cursor(index.encoded(values, at=at))
    return chance.choice(
        ["", "x", "!", "AAAA", "é", "_" * 300, base64.b64encode(chance.randbytes(20)).decode()]
    )


Both = Callable[..., Awaitable[bytes | str]]


async def _try_forged(chance: random.Random, both: Both, index: ListIndex, rows: Rows, where: Any) -> None:
    """A forged cursor is refused, or is a place among what the filter selects: it shows nothing else."""
    several = any(isinstance(wanted, list) for wanted in (where or {}).values())
    first = await both(limit=3)
    given = None if isinstance(first, str) else msgspec.json.decode(first, type=Shown).next
    wanted = selected_ids(rows.of(index, where), index, where)
    for side in ("after", "before"):
        found = await both(limit=5, **{side: _forged(chance, index, given, rows)})
        if isinstance(found, str):
            assert "is not a cursor that this list has given" in found, found
            continue
        ids = msgspec.json.decode(found, type=Shown).ids
        assert set(ids) <= set(wanted)
        if ids and not several:  # they stand side by side
            start = wanted.index(ids[0])
            assert ids == wanted[start : start + len(ids)]


@pytest.mark.parametrize("seed", range(SEED, SEED + DECLARATIONS))
async def test_both_stores_give_the_pages_that_python_selects(database_url, valkey, seed):
    chance = random.Random(seed)
    declared = Declared(chance)
    rows = Rows(chance, declared)
    async with (
        declared.application(database_url, valkey.url) as (app, redis),
        declared.application(database_url) as (_, sql),
    ):
        await app.orm.create_all(Agent, list(rows.agents.values()))
        await app.orm.create_all(Tag, list(rows.tags.values()))
        await app.orm.create_all(Item, list(rows.items.values()))
        links = [{"item_id": item, "tag_id": tag} for item, tag in rows.links]
        await app.orm.execute(sa.insert(item_tags), links)
        await answered_by(app, "redis")
        indexes = keeper_of(app).replica.compiled.lists
        for turn in range(TURNS):
            index = chance.choice(indexes)
            where = _filter_of(chance, index, rows)
            asked = asked_of(chance, where)
            told = (seed, turn, str(index.order), where, asked)

            async def both(
                index: ListIndex = index, where: Any = where, told: object = told, **asked: Any
            ) -> bytes | str:
                found: list[bytes | str] = [await route(index, where, **asked) for route in (redis, sql)]
                assert found[0] == found[1], (told, asked)
                return found[0]

            async def page(both: Both = both, **asked: Any) -> Shown:
                return msgspec.json.decode(await both(**asked), type=Shown)

            await walk(page, selected_ids(rows.of(index, where), index, where), asked, told)
            await _try_forged(chance, both, index, rows, where)
            await rows.change(app)
