"""Declared conditions, of a read model and of its lists: both stores show the rows that Python selects.

Python's own selection is by SQL's logic of three values, written out here.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import enum
import operator
import random
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConfigService, Diptych, ReadModel, UnreadableRowError, WiringError, by, code_point_text
from tests.captured import Program
from tests.catalogue import answered_by


class Base(DeclarativeBase):
    pass


class State(enum.Enum):
    OPEN = "z"
    DONE = "y"
    BLOCKED = "x"


class Item(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str | None] = mapped_column(code_point_text(20), unique=True)
    number: Mapped[int | None]
    text: Mapped[str | None] = mapped_column(code_point_text(20))
    flag: Mapped[bool | None]
    size: Mapped[float | None]
    price: Mapped[decimal.Decimal | None] = mapped_column(sa.Numeric(10, 2))
    day: Mapped[datetime.date | None]
    moment: Mapped[datetime.datetime | None]
    instant: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    hour: Mapped[datetime.time | None]
    lasting: Mapped[datetime.timedelta | None]
    tag: Mapped[uuid.UUID | None]
    state: Mapped[State | None]
    kind: Mapped[str | None] = mapped_column(sa.Enum("b", "a", "B", name="kind"))


class ItemDocument(Struct):
    id: int
    number: int | None
    text: str | None


UTC, WEST = datetime.UTC, datetime.timezone(datetime.timedelta(hours=-7))
VALUES: dict[str, Sequence[Any]] = {
    "number": (-3, 0, 1, 7),
    "text": ("", "a", "B", "b", "é", "\U0010ffff"),
    "flag": (False, True),
    "size": (-1.5, 0.0, 0.1, 2.0),
    "price": tuple(map(decimal.Decimal, ("-1.50", "0.00", "2.25", "10.00"))),
    "day": tuple(datetime.date(2026, 1, day) for day in (1, 2, 3)),
    "moment": tuple(datetime.datetime(2026, 1, day, 12, 30, 0, day) for day in (1, 2, 3)),
    "instant": (
        *(datetime.datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2)),
        datetime.datetime(2026, 1, 1, 20, tzinfo=WEST),
    ),
    "hour": (datetime.time(0), datetime.time(8, 30), datetime.time(23, 59, 59, 5)),
    "lasting": tuple(datetime.timedelta(hours=hours) for hours in (0, 1, 50)),
    "tag": tuple(uuid.UUID(int=n) for n in (1, 1 << 100, (1 << 128) - 1)),
    "state": tuple(State),
    "kind": ("b", "a", "B"),
}


def _item(chance: random.Random, number: int) -> dict[str, Any]:
    row: dict[str, Any] = {name: chance.choice((None, *values)) for name, values in VALUES.items()}
    return row | {"id": number, "code": chance.choice((None, f"c{number}"))}


# Conditions: what SQLAlchemy is told, and what SQL means by it, None for unknown.

Meaning = Callable[[Mapping[str, Any]], bool | None]


def _compared(chance: random.Random) -> tuple[Any, Meaning]:
    name = chance.choice(list(VALUES))
    column, values = getattr(Item, name), VALUES[name]
    constant, other = chance.choice(values), chance.choice(values)
    shown = (lambda value: value.name) if name == "state" else (lambda value: value)
    match chance.randint(0, 7):
        case 0:
            return column.is_(None), lambda row: row[name] is None
        case 1:
            return column.is_not(None), lambda row: row[name] is not None
        case 2:
            some = chance.sample(values, chance.randint(0, len(values)))
            return column.in_(some), lambda row: _unless_null(row[name], some, lambda v: v in some)
        case 3:
            some = chance.sample(values, chance.randint(0, len(values)))
            return column.not_in(some), lambda row: _unless_null(row[name], some, lambda v: v not in some)
        case 4 if name == "flag":
            if chance.random() < 0.5:
                return column.is_(constant), lambda row: row[name] is constant
            return column.is_not(constant), lambda row: row[name] is not constant
        case 5 if name == "flag":
            return chance.choice(((column, _is_true), (~column, _is_false)))
        case 6:
            return column.between(constant, other), lambda row: _unless_null(
                row[name], [0], lambda v: shown(constant) <= shown(v) <= shown(other)
            )
    compare = chance.choice((operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge))
    if name == "flag":
        compare = chance.choice((operator.eq, operator.ne))
    return compare(column, constant), lambda row: _unless_null(
        row[name], [0], lambda v: compare(shown(v), shown(constant))
    )


def _is_true(row: Mapping[str, Any]) -> bool | None:
    return None if row["flag"] is None else bool(row["flag"])


def _is_false(row: Mapping[str, Any]) -> bool | None:
    return None if row["flag"] is None else not row["flag"]


def _unless_null(value: Any, compared: Sequence[Any], test: Callable[[Any], bool]) -> bool | None:
    """Unknown of null, unless it is compared with nothing."""
    return None if value is None and compared else test(value)


def _condition(chance: random.Random, depth: int = 2) -> tuple[Any, Meaning]:
    kind = chance.randint(0, 5) if depth else 0
    if kind < 2:
        return _compared(chance)
    if kind == 2:
        told, means = _condition(chance, depth - 1)
        return sa.not_(told), lambda row: None if (found := means(row)) is None else not found
    parts = [_condition(chance, depth - 1) for _ in range(2)]
    decisive = kind == 3
    join = sa.or_ if decisive else sa.and_

    def means_all(row: Mapping[str, Any]) -> bool | None:
        found = [means(row) for _, means in parts]
        if decisive in found:
            return decisive
        return None if None in found else not decisive

    return join(*(told for told, _ in parts)), means_all


class Declared:
    """A read model with generated conditions, and what they mean: for the rows, and for those of each list."""

    def __init__(self, chance: random.Random) -> None:
        told, self.shows = _condition(chance, depth=chance.randint(0, 2))
        lists = {name: _condition(chance) for name in ("first", "second")}
        self.has: dict[str, Meaning] = {name: means for name, (_, means) in lists.items()}
        self.has["all"] = lambda _row: True
        self.model: Any = type(
            "ItemReadModel",
            (ReadModel,),
            {
                "key": Item.id,
                "also": (Item.code,),
                "document": ItemDocument,
                "where": told,
                "lists": (
                    by(Item.number, name="first", where=lists["first"][0]),
                    by(Item.text.desc(), Item.number, name="second", where=lists["second"][0]),
                    by(Item.id, name="all"),
                ),
            },
        )
        self.made: list[Any] = []

        def init(_handler: Any, items: Any) -> None:
            self.made.append(items)

        init.__annotations__ = {"items": self.model}
        self.handlers = type("Items", (), {"__init__": init})

    @contextlib.asynccontextmanager
    async def application(
        self, database_url: str, redis_url: str | None, lease_ms: int = 10_000
    ) -> AsyncIterator[tuple[Any, Any]]:
        config = ConfigService(
            environ={},
            database_url=database_url,
            redis_url=redis_url,
            redis_query_timeout_ms=2000,
            redis_command_timeout_ms=5000,
            lease_ms=lease_ms,
        )
        app = Diptych(config, models=Base, handlers=[self.handlers], read_models=[self.model])
        async with app:
            yield app, self.made.pop()

    async def check(self, rows: Mapping[int, Mapping[str, Any]], redis: Any, sql: Any) -> None:
        """Fails unless each store shows the rows that Python selects."""
        shown = {key: row for key, row in rows.items() if self.shows(row) is True}
        for store, items in (("redis", redis), ("sql", sql)):
            for key, row in rows.items():
                found = [await items.get(key)]
                found += [await items.get(code=row["code"])] if row["code"] is not None else []
                for document in found:
                    assert document.served.store == store
                    assert (document.body is not None) == (key in shown), (store, row)
        for name, has in self.has.items():
            wanted = {key for key, row in shown.items() if has(row) is True}
            found, after, asked = list[int](), None, True
            while asked:
                pages = [await items.page(name, limit=4, after=after, count=True) for items in (redis, sql)]
                assert [page.served.store for page in pages] == ["redis", "sql"]
                assert pages[0].body == pages[1].body, name
                page = msgspec.json.decode(pages[0].body)
                found += [item["id"] for item in page["items"]]
                assert page["total"] == len(wanted)
                after = page["next"]
                asked = after is not None
            assert len(found) == len(set(found))
            assert set(found) == wanted, (name, [rows[key] for key in set(found) ^ wanted])


FOREIGN = {
    "number": ("NULL", "0", "7"),
    "text": ("NULL", "'a'", "'B'"),
    "flag": ("NULL", "false", "true"),
    "state": ("NULL", "'OPEN'", "'DONE'"),
    "price": ("NULL", "2.25", "10"),
}
MEANT = {"false": False, "true": True, "'OPEN'": State.OPEN, "'DONE'": State.DONE} | {
    "NULL": None,
    "0": 0,
    "7": 7,
    "'a'": "a",
    "'B'": "B",
    "2.25": decimal.Decimal("2.25"),
    "10": decimal.Decimal(10),
}


@pytest.mark.parametrize("seed", range(6))
async def test_both_stores_show_the_rows_that_python_selects(database_url, valkey, seed):
    chance = random.Random(seed)
    declared = Declared(chance)
    rows = {number: _item(chance, number) for number in range(1, 31)}
    async with (
        declared.application(database_url, valkey.url) as (app, redis),
        declared.application(database_url, None) as (_, sql),
    ):
        program = Program(database_url)
        await app.orm.create_all(Item, list(rows.values())[:20])
        await answered_by(app, "redis")  # some rows come by a build, some by commands
        await app.orm.create_all(Item, list(rows.values())[20:])
        await declared.check(rows, redis, sql)
        for _ in range(4):
            for key in chance.sample(sorted(rows), 8):
                await _change(chance, app, program, rows, key)
            await app.catch_up()
            await declared.check(rows, redis, sql)
        await app.rebuild(declared.model)
        await declared.check(rows, redis, sql)


async def _change(
    chance: random.Random, app: Diptych, program: Program, rows: dict[int, dict[str, Any]], key: int
) -> None:
    """Changes a row, by one of the ways in which rows are changed."""
    match chance.randint(0, 3):
        case 0:
            await app.orm.delete(Item, key)
            rows[key] = _item(chance, key)
            await app.orm.create(Item, **rows[key])
        case 1:
            name = chance.choice(list(FOREIGN))
            text = chance.choice(FOREIGN[name])
            rows[key][name] = MEANT[text]
            await program.runs(f"UPDATE items SET {name} = {text} WHERE id = {key}")
        case 2:
            new = _item(chance, key)
            rows[key] |= new
            async with app.orm.session() as session:
                item = await session.get_one(Item, key)
                for name, value in new.items():
                    setattr(item, name, value)
        case _:
            name = chance.choice(list(VALUES))
            rows[key][name] = chance.choice((None, *VALUES[name]))
            await app.orm.update(Item, key, **{name: rows[key][name]})


ODD = {
    "sqlite": {
        "flag": ("2", "-1"),
        "number": ("'text'", "1.5", "x'00'"),
        "text": ("x'ff00'", "5"),
        "day": ("'no day'", "'0000-00-00'"),
        "instant": ("'no instant'",),
        "state": ("'FORMER'", "'open'"),
        "size": ("'text'", "9e999"),
        "price": ("'text'",),
        "tag": ("'no tag'",),
    },
    "postgresql": {
        "size": ("'NaN'", "'Infinity'", "'-Infinity'"),
        "price": ("'NaN'",),
        "day": ("'infinity'", "'-infinity'", "'0044-03-15 BC'"),
        "moment": ("'infinity'", "'0044-03-15 BC'"),
        "instant": ("'infinity'", "'-infinity'"),
        "lasting": ("'1 month'", "'-1 day'"),
    },
}
"""Values that no command stores, by other programs."""


def _odd_conditions(name: str) -> list[Any]:
    column, values = getattr(Item, name), VALUES[name][:2]
    value = values[1]
    conditions = [column == value, column != value, column.in_(values), column.not_in(values)]
    conditions += [column.is_(None), column.is_not(None)]
    return conditions if name == "flag" else [*conditions, column < value, column <= value, column > value]


async def test_values_that_no_command_stores_are_decided_alike(database_url, valkey):
    """Both stores show the same rows, whether they have come to Redis by a build or by changes."""
    odd = ODD["sqlite" if database_url.startswith("sqlite") else "postgresql"]
    program = Program(database_url)
    for name, texts in odd.items():
        conditions = _odd_conditions(name)
        declared = Declared(random.Random(0))
        declared.model.where = sa.or_(Item.id > 2, conditions[-1])
        lists = [by(Item.id, name=f"{n}", where=where) for n, where in enumerate(conditions)]
        declared.model.lists = (*lists, by(getattr(Item, name), name="ordered", where=conditions[1]))
        rows = [{"id": n + 1, name: VALUES[name][n % 2]} for n in range(len(texts) + 4)]
        async with declared.application(database_url, None) as (app, sql):
            await app.orm.execute(sa.delete(Item))
            await app.orm.create_all(Item, rows)
            for n, text in enumerate(texts, 1):
                await program.runs(f"UPDATE items SET {name} = {text} WHERE id = {n}")
            expected = await _shown(sql, declared, len(rows))
        async with declared.application(database_url, valkey.url, 1000) as (app, redis):
            await answered_by(app, "redis")
            assert await _shown(redis, declared, len(rows)) == expected, name
            await program.runs("UPDATE items SET code = id")
            await app.catch_up()
            assert await _shown(redis, declared, len(rows)) == expected, name


async def _shown(items: Any, declared: Declared, number: int) -> list[Any]:
    """The rows in each list, and which documents are there, or set aside.

    Not in their order: SQL has an order for values that no list is in the order of.
    """

    async def is_there(key: int) -> Any:
        try:
            return bool(await items.get(key))
        except UnreadableRowError:
            return "set aside"

    pages = [(await items.page(order.name)).decode() for order in declared.model.lists]
    listed: list[Any] = [sorted(item.id for item in page.items) for page in pages]
    return listed + [await is_there(key) for key in range(1, number + 1)]


# What is refused


class OddBase(DeclarativeBase):
    pass


class Odd(OddBase):
    __tablename__ = "odds"

    id: Mapped[int] = mapped_column(primary_key=True)
    folded: Mapped[str] = mapped_column(sa.String(20, collation="NOCASE"))
    blob: Mapped[bytes | None]
    anything: Mapped[Any] = mapped_column(sa.JSON, nullable=True)
    since: Mapped[datetime.time | None] = mapped_column(sa.Time(timezone=True))


def _declares(key: Any, where: Any, order: Any = None) -> type:
    document = msgspec.defstruct("Document", [("id", int)])
    lists = (order,) if order is not None else ()
    return type(
        "FaultyReadModel",
        (ReadModel,),
        {"key": key, "document": document, "where": where, "lists": lists},
    )


async def _refusal(database_url: str, model: type, models: Any = Base) -> str:
    config = ConfigService(environ={}, database_url=database_url)
    with pytest.raises(WiringError) as refused:
        async with Diptych(config, models=models, handlers=[], read_models=[model]):
            pass
    return str(refused.value)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (sa.func.lower(Item.text) == "a", "lower"),
        (Item.text.like("a%"), "LIKE"),
        (Item.text.startswith("a"), "LIKE"),
        (Item.number + 1 > 2, "add a column"),
        (Item.number > Item.id, "with constants"),
        (Item.number.in_(sa.select(Item.id)), "SELECT"),
        (Item.number == sa.bindparam("n", callable_=lambda: 1), "with constants"),
        (Item.number == sa.bindparam("n"), "with constants"),
        (Item.number.is_distinct_from(1), "IS DISTINCT FROM"),
        (Item.number.between(2, 1, symmetric=True), "SYMMETRIC"),
        (Item.number.between(None, 1), "null"),
        (Item.number, "items.number"),
        (sa.text("number > 1"), "number > 1"),
        (False, "`where` = False"),
        (Item.__table__.c.number > 1, "no mapped attribute"),
        (Odd.id > 1, "conditions are over Item's own columns"),
        (sa.and_(Item.flag.is_(True), Item.number > 1 << 90), "'number', which can't hold the constant"),
        (Item.number == "many", "'number', which can't hold the constant 'many'"),
        (Item.price > decimal.Decimal("0.001"), "decimal places"),
        (Item.size > float("nan"), "finite"),
        (Item.moment > datetime.datetime(2026, 1, 1, tzinfo=UTC), "'moment', which can't hold"),
        (Item.state == "other", "'state', which can't hold"),
    ],
)
async def test_a_condition_that_both_stores_can_t_decide_alike_is_refused_at_start(sqlite_url, where, told):
    of_model = await _refusal(sqlite_url, _declares(Item.id, where))
    of_list = await _refusal(sqlite_url, _declares(Item.id, None, by(Item.id, name="some", where=where)))
    for refusal in (of_model, of_list):
        assert "FaultyReadModel" in refusal
        assert "where" in refusal
        assert told in refusal
    assert "by(id, name='some'" in of_list


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (Odd.folded == "a", "'folded', which is of the collation NOCASE"),
        (Odd.blob == b"a", "must be of one of the types"),
        (Odd.since > datetime.time(1, tzinfo=UTC), "must be of one of the types"),
        (Odd.anything.is_(None), "what it makes of null"),
    ],
)
async def test_columns_that_databases_compare_in_their_own_ways_are_refused(sqlite_url, where, told):
    assert told in await _refusal(sqlite_url, _declares(Odd.id, where), OddBase)


async def test_null_of_any_column_can_be_asked_for(sqlite_url):
    config = ConfigService(environ={}, database_url=sqlite_url)
    where = sa.or_(Odd.blob.is_(None), Odd.since.is_not(None))
    async with Diptych(config, models=OddBase, handlers=[], read_models=[_declares(Odd.id, where)]):
        pass


async def test_two_lists_of_one_order_are_told_apart_by_their_conditions(sqlite_url):
    orders = by(Item.id, name="low", where=Item.number < 1), by(Item.id, name="high", where=Item.number >= 1)
    declared = Declared(random.Random(0))
    declared.model.where, declared.model.lists = None, orders
    async with declared.application(sqlite_url, None) as (app, items):
        await app.orm.create_all(Item, [{"id": n, "number": n} for n in (0, 1, 2)])
        for order, ids in zip(orders, ([0], [1, 2]), strict=True):
            asked = by(*(Item.id,), where=Item.number < 1 if order.name == "low" else Item.number >= 1)
            for given in (order, order.name, asked):
                page = await items.page(given)
                assert [item.id for item in page.decode().items] == ids
        with pytest.raises(WiringError, match="has no list by"):
            await items.page(by(Item.id))
