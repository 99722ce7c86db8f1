"""Rows read back from the log's JSON are exactly what a select gives, where the column says so."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import math
import random
import struct
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ORMService, code_point_text
from tests.conformance.tables import Book, Reversed, Size

UTC = datetime.UTC


class Images(DeclarativeBase):
    pass


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Odd(enum.Enum):
    PAIR = (1, 2)
    HALF = 0.5


class Shout(sa.String):
    """An application's own subclass, which could do anything to its values."""


def of(kind: Any) -> Any:
    return mapped_column(kind, nullable=True)


class Everything(Images):
    """A column of each type, and of each way to say it."""

    __tablename__ = "every_type"

    id: Mapped[int] = mapped_column(primary_key=True)
    small: Mapped[Any] = of(sa.SmallInteger)
    whole: Mapped[Any] = mapped_column("whole_column", sa.Integer, nullable=True)
    big: Mapped[Any] = of(sa.BigInteger)
    real: Mapped[Any] = of(sa.Double)
    single: Mapped[Any] = of(sa.REAL)
    rounded: Mapped[Any] = of(sa.Float(asdecimal=True, decimal_return_scale=4))
    flag: Mapped[Any] = of(sa.Boolean)
    short: Mapped[Any] = of(sa.String(20))
    text: Mapped[Any] = of(sa.Text)
    coded: Mapped[Any] = of(code_point_text(20))
    padded: Mapped[Any] = of(sa.CHAR(20))
    price: Mapped[Any] = of(sa.Numeric(8, 2))
    exact: Mapped[Any] = of(sa.Numeric(15, 5))
    inexact: Mapped[Any] = of(sa.Numeric(8, 2, asdecimal=False))
    day: Mapped[Any] = of(sa.Date)
    moment: Mapped[Any] = of(sa.DateTime)
    instant: Mapped[Any] = of(sa.DateTime(timezone=True))
    stamp: Mapped[Any] = of(sa.TIMESTAMP(timezone=True))
    time: Mapped[Any] = of(sa.Time)
    zoned_time: Mapped[Any] = of(sa.Time(timezone=True))
    span: Mapped[Any] = of(sa.Interval)
    name: Mapped[Any] = of(sa.Uuid)
    name_text: Mapped[Any] = of(sa.Uuid(as_uuid=False))
    data: Mapped[Any] = of(sa.LargeBinary)
    size: Mapped[Any] = of(sa.Enum(Size))
    level: Mapped[Any] = of(sa.Enum(Level))
    odd: Mapped[Any] = of(sa.Enum(Odd))
    word: Mapped[Any] = of(sa.Enum("yes", "no", name="word_of_image"))
    document: Mapped[Any] = of(sa.JSON)
    indexed: Mapped[Any] = of(sa.JSON().with_variant(postgresql.JSONB(), "postgresql"))
    mutable: Mapped[Any] = of(MutableDict.as_mutable(sa.JSON()))
    backwards: Mapped[Any] = of(Reversed)
    half_backwards: Mapped[Any] = of(sa.Text().with_variant(Reversed(), "sqlite"))
    day_or_text: Mapped[Any] = of(sa.Date().with_variant(sa.Text(), "postgresql"))
    shouted: Mapped[Any] = of(Shout(20))
    pickled: Mapped[Any] = of(sa.PickleType)


NOT_LOGGED = {
    "inexact",
    "zoned_time",
    "odd",
    "backwards",
    "half_backwards",
    "day_or_text",
    "shouted",
    "pickled",
}

CHARACTERS = "aZ0 \"\\/'\n\r\t\x01\x7f\x80é\u2028\ufeff\uffff📚\U0010ffff<>&"
EDGES: dict[str, list[Any]] = {
    "small": [-(2**15), 0, 2**15 - 1],
    "whole": [-(2**31), 0, 2**31 - 1],
    "big": [-(2**63), 2**53 + 1, 2**63 - 1],
    "real": [0.0, -0.0, 1.0, 0.1, 1e22, 1e300, -5e-324, 1.7976931348623157e308, float(2**63)],
    "single": [0.0, -0.0, 1.0, 0.1, 3.4e38],
    "rounded": [1, 0.5, "1.2345", -0.0001],
    "flag": [True, False],
    "short": ["", " ", "null", "é", "e\u0301"],
    "price": ["0", "-0.00", "1.5", "1E+3", "-999999.99", 7],
    "exact": ["0.00001", "1", "-1234567890.12345"],
    "inexact": ["1.0", "0.5"],
    "day": [datetime.date.min, datetime.date.max],
    "moment": [datetime.datetime.min, datetime.datetime.max, datetime.datetime(2024, 3, 31, 2, 30, 0, 1)],
    "instant": [
        datetime.datetime(1, 1, 2, tzinfo=UTC),
        datetime.datetime(9999, 12, 30, 23, 59, 59, 999999, UTC),
        datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=45))),
    ],
    "time": [datetime.time.min, datetime.time.max, datetime.time(1, 2, 3)],
    "zoned_time": [datetime.time(1, 2, tzinfo=UTC)],
    "span": [datetime.timedelta(0), datetime.timedelta(microseconds=-1), datetime.timedelta(days=-400, seconds=5)],
    "data": [b"", b"\x00", bytes(range(256))],
    "size": list(Size),
    "level": list(Level),
    "word": ["yes", "no"],
    "document": [
        *(None, [], {}, "", "text", 0, -0.0, 1.0, 1e22, 2**70, True, [None, {"": [{"a": 0.1}]}]),
        {"é📚": "\"\\\n\u2028", "b": 1, "a": [2**63, -(2**63)]},
    ],
    "backwards": ["abc"],
    "half_backwards": ["abc"],
    "shouted": ["abc"],
    "pickled": [{"a": (1, 2)}],
}  # fmt: skip
EDGES["mutable"] = [value for value in EDGES["document"] if isinstance(value, dict)]


def _text(chance: random.Random) -> str:
    return "".join(chance.choice(CHARACTERS) for _ in range(chance.randrange(20)))


def _moment(chance: random.Random) -> datetime.datetime:
    seconds = chance.randrange(-60_000_000_000, 250_000_000_000)
    return datetime.datetime(1970, 1, 1) + datetime.timedelta(
        seconds=seconds, microseconds=chance.randrange(10**6)
    )


def _real(chance: random.Random) -> float:
    while not math.isfinite(value := struct.unpack("d", chance.randbytes(8))[0]):
        pass
    return float(value)


def _json(chance: random.Random, depth: int = 3) -> Any:
    kinds: list[Callable[[], Any]] = [
        *(
            lambda: None,
            lambda: _real(chance),
            lambda: chance.randrange(-(2**80), 2**80),
            lambda: _text(chance),
        ),
    ]
    if depth:
        kinds.append(lambda: [_json(chance, depth - 1) for _ in range(chance.randrange(4))])
        kinds.append(lambda: {_text(chance): _json(chance, depth - 1) for _ in range(chance.randrange(4))})
    return chance.choice(kinds)()


def _document(chance: random.Random) -> Any:
    """A number alone is refused if SQLite can't hold it."""
    found = _json(chance)
    return [found] if isinstance(found, int | float) else found


RANDOM: dict[str, Callable[[random.Random], Any]] = {
    "big": lambda chance: chance.randrange(-(2**63), 2**63),
    "real": _real,
    "single": lambda chance: chance.uniform(-1e6, 1e6),
    "price": lambda chance: decimal.Decimal(chance.randrange(-(10**8) + 1, 10**8)).scaleb(-2),
    "short": _text,
    "text": _text,
    "coded": _text,
    "padded": _text,
    "day": lambda chance: _moment(chance).date(),
    "moment": _moment,
    "instant": lambda chance: _moment(chance).replace(tzinfo=UTC),
    "stamp": lambda chance: _moment(chance).replace(tzinfo=UTC),
    "time": lambda chance: _moment(chance).time(),
    "span": lambda chance: datetime.timedelta(
        days=chance.randrange(-700, 700), microseconds=chance.randrange(10**9)
    ),
    "name": lambda chance: uuid.UUID(bytes=chance.randbytes(16)),
    "name_text": lambda chance: str(uuid.UUID(bytes=chance.randbytes(16))),
    "data": lambda chance: chance.randbytes(chance.randrange(30)),
    "document": _document,
    "indexed": lambda chance: [_json(chance) for _ in range(2)],
}


def values_for(number: int) -> dict[str, Any]:
    chance = random.Random(number)
    values = {name: found[number % len(found)] for name, found in EDGES.items() if number < 15}
    return {name: make(chance) for name, make in RANDOM.items() if name not in values} | values


async def logged_and_selected(orm: ORMService, model: type) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """For each row its last image, as decoded, and what a select gives."""
    entity = orm.side.entities.of(model)
    async with orm.database.reader.connect() as connection:
        log = sa.text("SELECT image FROM diptych_log WHERE entity = :name ORDER BY position")
        images = [
            json.loads(text) for text in (await connection.execute(log, {"name": model.__name__})).scalars()
        ]
        rows = [entity.row(row) for row in await connection.execute(sa.select(*entity.columns.values()))]
    last = {image["id"]: image for image in images}
    return [(entity.from_log(last[row["id"]]), row) for row in rows if row["id"] in last]


@pytest.mark.filterwarnings("ignore:Dialect sqlite.aiosqlite does .not. support Decimal")
async def test_an_image_gives_back_what_a_select_gives(orm: ORMService):
    """In value, type, sign of zero, decimal places and time zone; after an insert and after an update."""
    for number in range(40):
        created = await orm.create(Everything, **values_for(number))
        if number % 2:
            await orm.update(Everything, created.id, **values_for(number + 1000))
    pairs = await logged_and_selected(orm, Everything)
    assert len(pairs) == 40
    columns = set(orm.side.entities.of(Everything).columns)
    for image, row in pairs:
        assert image.keys() == columns - NOT_LOGGED
        for name, value in image.items():
            assert repr(value) == repr(row[name]), name
            assert isinstance(row[name], type(value)), name  # asyncpg has a UUID of its own
            assert value == row[name], name


async def test_columns_say_whether_the_log_gives_them_back(orm: ORMService):
    described = orm.side.entities.of(Everything).describe(orm.database.reader.dialect)
    assert described.table == "every_type"
    assert {name for name, column in described.columns.items() if not column.logged} == NOT_LOGGED


class Computed(Images):
    """Numbers that the database makes, and that JSON has no word for."""

    __tablename__ = "computed_numbers"

    id: Mapped[int] = mapped_column(primary_key=True)
    endless: Mapped[float] = mapped_column(sa.Double, default=lambda: math.inf)
    less: Mapped[float] = mapped_column(sa.Double, default=lambda: -math.inf)


async def test_infinite_numbers_do_not_become_null(orm: ORMService):
    await orm.create(Computed)
    ((image, row),) = await logged_and_selected(orm, Computed)
    assert image == row == {"id": 1, "endless": math.inf, "less": -math.inf}


async def test_a_value_that_the_column_cannot_have_is_left_out(orm: ORMService):
    """Another version of the application has written it, or it is of a class that the application has changed."""
    entity = orm.side.entities.of(Everything)
    assert entity.from_log({
        "whole": "many", "flag": 1, "day": "soon", "size": "huge", "text": 5, "data": "!", "name": "x",
        "unknown": 1, "backwards": "cba", "big": 1.5, "price": {}, "instant": "2024-01-01T00:00:00Z", "short": None,
    }) == {"instant": datetime.datetime(2024, 1, 1, tzinfo=UTC), "short": None}  # fmt: skip
    assert orm.side.entities.of(Book).from_log({}) == {}
