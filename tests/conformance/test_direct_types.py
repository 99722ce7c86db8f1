"""A change is one statement on PostgreSQL whatever the types of its columns, and stores what two statements do."""

from __future__ import annotations

import datetime
import decimal
import enum
import functools
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from diptych import ORMService, UnreadableRowError
from diptych.write import changes, logged
from tests.conformance.conftest import config, statements_of

UTC = datetime.UTC
EAST = datetime.timezone(datetime.timedelta(hours=5, minutes=45))


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Size(enum.Enum):
    S = 1
    L = 2


_numbers = itertools.count(1)


class Base(DeclarativeBase):
    pass


class Everything(Base):
    """A column of each type that PostgreSQL's driver has as an engine has it; unique ones are in the log's keys."""

    __tablename__ = "everything"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    small: Mapped[int | None] = mapped_column(sa.SmallInteger)
    big: Mapped[int | None] = mapped_column(sa.BigInteger)
    flag: Mapped[bool | None]
    text: Mapped[str | None] = mapped_column(sa.Text)
    char: Mapped[str | None] = mapped_column(sa.CHAR(5))
    real: Mapped[float | None] = mapped_column(sa.REAL)
    double: Mapped[float | None] = mapped_column(sa.Double)
    price: Mapped[decimal.Decimal | None] = mapped_column(sa.Numeric(12, 3))
    number: Mapped[decimal.Decimal | None] = mapped_column(sa.Numeric)
    code: Mapped[uuid.UUID | None] = mapped_column(unique=True)
    code_text: Mapped[str | None] = mapped_column(sa.Uuid(as_uuid=False))
    at: Mapped[datetime.datetime | None] = mapped_column(sa.DateTime(timezone=True), unique=True)
    local: Mapped[datetime.datetime | None]
    day: Mapped[datetime.date | None]
    time: Mapped[datetime.time | None]
    duration: Mapped[datetime.timedelta | None] = mapped_column(unique=True)
    own_duration: Mapped[datetime.timedelta | None] = mapped_column(postgresql.INTERVAL)
    data: Mapped[bytes | None] = mapped_column(unique=True)
    colour: Mapped[Colour | None]
    plain_colour: Mapped[Colour | None] = mapped_column(sa.Enum(Colour, native_enum=False))
    by_value: Mapped[Colour | None] = mapped_column(
        sa.Enum(Colour, name="by_value", values_callable=lambda kind: [one.value for one in kind])
    )
    size: Mapped[Size | None]
    word: Mapped[str | None] = mapped_column(sa.Enum("one", "two", name="words"))
    document: Mapped[Any | None] = mapped_column(sa.JSON)
    binary: Mapped[Any | None] = mapped_column(JSONB)
    none_is_null: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    numbers: Mapped[list[int] | None] = mapped_column(sa.ARRAY(sa.Integer))
    words: Mapped[list[str] | None] = mapped_column(sa.ARRAY(sa.Text))
    codes: Mapped[list[uuid.UUID] | None] = mapped_column(sa.ARRAY(sa.Uuid))
    varied: Mapped[datetime.timedelta | None] = mapped_column(
        sa.Interval().with_variant(postgresql.INTERVAL(precision=6), "postgresql")
    )


class Made(Base):
    """Columns whose values are made by the database, or by this process, in every way."""

    __tablename__ = "made"

    key: Mapped[int] = mapped_column(sa.Identity(always=True), primary_key=True)
    name: Mapped[str]
    constant: Mapped[int] = mapped_column(default=7)
    function: Mapped[uuid.UUID] = mapped_column(default=lambda: uuid.UUID(int=next(_numbers)))
    partial: Mapped[int] = mapped_column(default=functools.partial(int, "12"))
    of_c: Mapped[float] = mapped_column(sa.Double, default=time.time)
    type: Mapped[list[Any]] = mapped_column(JSONB, default=list)
    nothing: Mapped[Any | None] = mapped_column(JSONB, default=lambda: None)
    absent: Mapped[Any | None] = mapped_column(JSONB)
    json_null: Mapped[Any | None] = mapped_column(JSONB, default=sa.JSON.NULL)
    expression: Mapped[int] = mapped_column(default=sa.select(sa.literal(3) + 4).scalar_subquery())
    sequence: Mapped[int] = mapped_column(sa.Sequence("made_numbers"))
    of_server: Mapped[datetime.date] = mapped_column(server_default=sa.func.current_date())
    computed: Mapped[int] = mapped_column(sa.Computed("constant * 2"))
    changed: Mapped[int | None] = mapped_column(onupdate=lambda: next(_numbers))
    changed_constant: Mapped[int | None] = mapped_column(onupdate=5)
    changed_expression: Mapped[int | None] = mapped_column(onupdate=sa.literal(1) + 1)


NEW_FOR_EACH = ("of_c", "id", "key", "sequence", "changed", "function")
"""Columns whose values are new for each row: they are compared by their types."""


class DataBase(MappedAsDataclass, DeclarativeBase):
    pass


class Data(DataBase):
    __tablename__ = "data"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    name: Mapped[str]
    code: Mapped[uuid.UUID] = mapped_column(insert_default=uuid.uuid4, init=False)
    tags: Mapped[list[str]] = mapped_column(JSONB, default_factory=lambda: ["new"])


class Lowered(Base):
    """Its ``onupdate`` is a text that names a column of the log's key."""

    __tablename__ = "lowered"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    lower: Mapped[str | None] = mapped_column(onupdate=sa.text("lower(name)"))
    literal: Mapped[str | None] = mapped_column(onupdate=sa.func.lower(sa.literal_column("name")))


class Upper(Base):
    __tablename__ = "upper"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    upper: Mapped[str | None] = mapped_column(onupdate=sa.func.upper(name.column))  # type: ignore[attr-defined]


@pytest.fixture
async def orm(postgres_url: str) -> AsyncIterator[ORMService]:
    async with ORMService(config(postgres_url)) as service:
        for model in (Everything, Made, Data, Lowered, Upper):
            await service.all(model)  # makes the table
        yield service


LOW: dict[str, Any] = {
    "small": -(2**15),
    "big": -(2**63),
    "flag": False,
    "text": "",
    "char": "",
    "real": -0.1,
    "double": -5e-324,
    "price": decimal.Decimal("-999999999.999"),
    "number": decimal.Decimal("-1E-30"),
    "code": uuid.UUID(int=0),
    "code_text": "AAAAAAAA-0000-0000-0000-000000000001",
    "at": datetime.datetime.min.replace(tzinfo=UTC),
    "local": datetime.datetime.min,
    "day": datetime.date.min,
    "time": datetime.time.min,
    "duration": datetime.timedelta(days=-3, microseconds=1),
    "own_duration": datetime.timedelta(microseconds=-1),
    "data": b"",
    "colour": Colour.RED,
    "plain_colour": Colour.RED,
    "by_value": Colour.RED,
    "size": Size.S,
    "word": "one",
    "document": None,
    "binary": None,
    "none_is_null": None,
    "numbers": [],
    "words": [""],
    "codes": [],
    "varied": datetime.timedelta(0),
}
HIGH: dict[str, Any] = {
    "small": 2**15 - 1,
    "big": 2**63 - 1,
    "flag": True,
    "text": "'\"\\\n\t\u2028ß😀",
    "char": "ü",
    "real": 3.4028235e38,
    "double": 1.7976931348623157e308,
    "price": decimal.Decimal("999999999.999"),
    "number": decimal.Decimal(-(10**40)),
    "code": uuid.UUID(int=2**128 - 1),
    "code_text": "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "at": datetime.datetime.max.replace(tzinfo=UTC),
    "local": datetime.datetime.max,
    "day": datetime.date.max,
    "time": datetime.time.max,
    "duration": datetime.timedelta(days=80_000_000, hours=23, microseconds=999_999),
    "own_duration": datetime.timedelta(days=400, seconds=1),
    "data": bytes(range(256)),
    "colour": Colour.BLUE,
    "plain_colour": Colour.BLUE,
    "by_value": Colour.BLUE,
    "size": Size.L,
    "word": "two",
    "document": {"ß": [None, 2**70, 0.1, 1e22, True, "\u2028"], "a": {}},
    "binary": [{"b": 1, "a": [None, 2**70, 0.1, 1e22]}, "x"],
    "none_is_null": {"a": None},
    "numbers": [1, -(2**31)],
    "words": ["a,b", '"', "NULL", "{}"],
    "codes": [uuid.UUID(int=1)],
    "varied": datetime.timedelta(days=1),
}
VALUES = [LOW, HIGH, {}, dict.fromkeys(LOW)]


async def both_routes(
    orm: ORMService, monkeypatch: pytest.MonkeyPatch, model: Any, steps: Callable[[], Awaitable[list[Any]]]
) -> list[Any]:
    """Runs the steps by one statement for each change and by two, and returns what each has left."""
    found = []
    for is_direct in (True, False):
        with monkeypatch.context() as patch, statements_of(monkeypatch) as seen:
            if not is_direct:
                patch.setattr(changes, "_is_possible", lambda *_: False)
            returned = await steps()
        entity = orm.side.entities.of(model)
        assert logged.is_possible(entity)
        assert is_direct != ("BEGIN ISOLATION LEVEL REPEATABLE READ" in seen)
        async with orm.database.reader.connect() as connection:
            rows = (await connection.execute(sa.text(f"SELECT * FROM {entity.full_name}"))).mappings().all()
            entries = await connection.execute(
                sa.text("SELECT kind, key, old_key, image FROM diptych_log ORDER BY position")
            )
            log = [(one[0], *(_read(entity, text) for text in one[1:])) for one in entries]
        found.append(([_plain(each) for each in returned], [_plain(row) for row in rows], log))
        async with orm.database.writer.begin() as connection:
            await connection.execute(sa.text(f"TRUNCATE {entity.full_name}, diptych_log RESTART IDENTITY"))
    return found


def _plain(found: Any) -> Any:
    """The values by name, each with its type, so that 1 and 1.0 and True differ."""
    if found is None or isinstance(found, bool | list):
        return found
    values = found if isinstance(found, Mapping) else vars(found)
    return {
        name: (type(value), None if name in NEW_FOR_EACH else repr(value))
        for name, value in values.items()
        if name != "_sa_instance_state"
    }


def _read(entity: Any, text: str | None) -> Any:
    """What people read in the log, and what diptych reads. JSON's own form may differ, as in the order of keys."""
    if text is None:
        return None
    decoded = msgspec.json.decode(text)
    exact = entity.from_log(decoded)
    # Not exact for any database, and read again from the row; it is for people to read.
    exact["own_duration"] = msgspec.convert(decoded.get("own_duration"), datetime.timedelta | None)
    read = {name: exact.get(name, value) for name, value in decoded.items()}
    return _plain(read)


def _differences(one: Any, other: Any, where: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for name in one:
            yield from _differences(one[name], other[name], f"{where} {name}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for n, (each, others) in enumerate(zip(one, other, strict=True)):
            yield from _differences(each, others, f"{where} {n}")
    elif one != other:
        yield f"{where}: {one!r}, {other!r}"


@pytest.mark.parametrize("before", range(len(VALUES)))
async def test_rows_and_images_of_all_types_are_those_of_two_statements(orm, monkeypatch, before: int):
    async def steps() -> list[Any]:
        created = await orm.create(Everything, name="x", **VALUES[before])
        after = VALUES[(before + 1) % len(VALUES)]
        changed = await orm.update(Everything, "x", "name", return_instance=True, name="y", **after)
        assert await orm.delete(Everything, changed.id)
        kept = await orm.create(Everything, name="x", **VALUES[before])
        return [created, changed, kept]

    direct, slow = await both_routes(orm, monkeypatch, Everything, steps)
    assert not list(_differences(direct, slow))
    assert [kind for kind, *_ in direct[2]] == ["created", "updated", "deleted", "created"]


WHOLE = (
    "0",
    "7",
    "1000",
    "10000",
    "-120000",
    "1234000",
    "100000000",
    "900010000",
    "1E+20",
    "10000.0",
    "0.00",
)


@pytest.mark.parametrize("number", [*WHOLE, "NaN", "Infinity"])
async def test_a_number_is_logged_as_the_driver_reads_it(orm, monkeypatch, number: str):
    """asyncpg reads 10000 as 1E+4, which is also how a document has it."""

    async def steps() -> list[Any]:
        created = await orm.create(
            Everything, name="x", number=decimal.Decimal(number) if number in WHOLE else None
        )
        async with orm.database.writer.begin() as connection:
            await connection.execute(sa.text(f"UPDATE everything SET number = '{number}'"))
        return [created, await orm.update(Everything, "x", "name", return_instance=True, small=1)]

    direct, slow = await both_routes(orm, monkeypatch, Everything, steps)
    assert not list(_differences(direct, slow))
    assert direct[2][-1][-1]["number"] == direct[0][1]["number"]


@pytest.mark.parametrize(
    "duration", ["2 years 13 months -4 days", "-1 month 25:00:00.5", "178000 years", "-0.1 sec"]
)
async def test_a_duration_is_logged_as_the_driver_reads_it(orm, monkeypatch, duration: str):
    async def steps() -> list[Any]:
        await orm.create(Everything, name="x")
        async with orm.database.writer.begin() as connection:
            await connection.execute(sa.text(f"UPDATE everything SET duration = '{duration}'"))
        return [await orm.update(Everything, "x", "name", return_instance=True, small=1)]

    direct, slow = await both_routes(orm, monkeypatch, Everything, steps)
    assert not list(_differences(direct, slow))
    assert direct[2][-1][-1]["duration"][0] is datetime.timedelta


async def test_a_duration_that_python_can_not_have_leaves_the_row_as_it_was(orm):
    await orm.create(Everything, name="x")
    async with orm.database.writer.begin() as connection:
        await connection.execute(sa.text("UPDATE everything SET duration = '170000000 years'"))
    with pytest.raises(UnreadableRowError):
        await orm.update(Everything, "x", "name", small=1)
    assert await orm.update(Everything, "x", "name", small=1, duration=None)


async def test_values_made_by_defaults_are_those_of_two_statements(orm, monkeypatch):
    async def steps() -> list[Any]:
        created = await orm.create(Made, name="x")
        changed = await orm.update(Made, created.key, return_instance=True, name="y")
        return [created, changed, await orm.create(Made, name="z", function=uuid.UUID(int=3), type=[1])]

    direct, slow = await both_routes(orm, monkeypatch, Made, steps)
    assert not list(_differences(direct, slow))
    created, changed, given = direct[0]
    assert (created["partial"], created["type"]) == ((int, "12"), (list, "[]"))
    assert (changed["changed_constant"], changed["changed"][0]) == ((int, "5"), int)
    assert given["type"] == (list, "[1]")


async def test_none_made_by_a_default_is_null_in_json(orm):
    """As SQLAlchemy stores it: a value that is given or made is JSON's null, an absent one is SQL's."""
    await orm.create(Made, name="x")
    async with orm.database.reader.connect() as connection:
        found = await connection.execute(
            sa.text("SELECT nothing::text, absent::text, json_null::text FROM made")
        )
        assert found.one() == ("null", None, "null")


async def test_a_text_that_names_columns_means_those_of_the_row(orm):
    row = await orm.create(Lowered, name="A")
    changed = await orm.update(Lowered, row.id, return_instance=True, name="B")
    assert (changed.name, changed.lower, changed.literal) == ("B", "a", "a")


async def test_an_expression_of_columns_means_those_of_the_row(orm, monkeypatch):
    async def steps() -> list[Any]:
        row = await orm.create(Upper, name="a")
        return [await orm.update(Upper, row.id, return_instance=True, name="b")]

    direct, slow = await both_routes(orm, monkeypatch, Upper, steps)
    assert not list(_differences(direct, slow))
    assert direct[0][0]["upper"] == (str, "'A'")


async def test_defaults_of_a_mapped_dataclass_are_those_of_two_statements(orm, monkeypatch):
    async def steps() -> list[Any]:
        created = await orm.create(Data, name="x")
        codes.append(created.code)
        return [(await orm.update(Data, created.id, return_instance=True, name="y")).tags]

    codes: list[uuid.UUID] = []
    direct, slow = await both_routes(orm, monkeypatch, Data, steps)
    assert direct[0] == slow[0] == [["new"]]
    assert len(set(codes)) == 2
