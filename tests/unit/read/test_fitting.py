"""Which columns can fill which fields: what is said at start is what msgspec does with the values themselves."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NewType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from diptych.read.fitting import can_fill
from diptych.sql.description import Column

UTC = datetime.UTC


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


class Level(enum.IntEnum):
    LOW = 1


class Colour(enum.StrEnum):
    RED = "red"


class Odd(enum.Enum):
    PAIR = (1, 2)
    HALF = 0.5


class Inner(msgspec.Struct):
    a: int = 0


def column(kind: type | None, values: Iterable[Any] = (), *, zoned: bool = False) -> Column:
    texts = {value: str(value) for value in values} or None
    return Column("x", kind, False, False, True, True, lambda value: value, zoned=zoned, texts=texts)


TEXTS = [
    "",
    "a",
    "1",
    "2024-01-01",
    "2024-01-01T00:00:00",
    "2024-01-01T00:00:00Z",
    "10:00:00",
    "10:00:00Z",
    "PT1H",
]
TEXTS += ["AP8=", "12345678-1234-5678-1234-567812345678", "1.5", "small", "red", "yes"]
MOMENT, NOON = datetime.datetime(2024, 1, 1), datetime.time(12)
COLUMNS: dict[str, tuple[Column, list[Any], st.SearchStrategy[Any]]] = {
    "bool": (column(bool), [True, False], st.booleans()),
    "int": (column(int), [0, 1, 5, -(2**63)], st.integers(-(2**63), 2**63 - 1)),
    "float": (column(float), [0.0, 1.0, 0.5], st.floats(allow_nan=False, allow_infinity=False)),
    "decimal": (
        column(decimal.Decimal),
        [decimal.Decimal("1.50")],
        st.decimals(allow_nan=False, allow_infinity=False),
    ),
    "str": (column(str), TEXTS, st.text(st.characters(exclude_categories=["Cs"]))),
    "bytes": (column(bytes), [b"", b"a", b"1" * 16], st.binary()),
    "date": (column(datetime.date), [MOMENT.date()], st.dates()),
    "datetime": (column(datetime.datetime), [MOMENT], st.datetimes()),
    "instant": (
        column(datetime.datetime, zoned=True),
        [MOMENT.replace(tzinfo=UTC)],
        st.datetimes(timezones=st.just(UTC)),
    ),
    "time": (column(datetime.time), [NOON], st.times()),
    "zoned time": (
        column(datetime.time, zoned=True),
        [NOON.replace(tzinfo=UTC)],
        st.times(timezones=st.just(UTC)),
    ),
    "timedelta": (
        column(datetime.timedelta),
        [datetime.timedelta(1)],
        st.timedeltas(max_value=datetime.timedelta(9**9)),
    ),
    "uuid": (column(uuid.UUID), [uuid.UUID(int=1)], st.uuids()),
    "list": (column(list), [[], [1], ["a"]], st.lists(st.integers())),
    "dict": (column(dict), [{}, {"a": 1}], st.dictionaries(st.text("ab"), st.integers(0, 9))),
    "enum": (column(Size, Size), list(Size), st.sampled_from(Size)),
    "enum of numbers": (column(Level, Level), list(Level), st.sampled_from(Level)),
    "enum of texts": (column(Colour, Colour), list(Colour), st.sampled_from(Colour)),
    "enum that is no JSON": (column(Odd, Odd), list(Odd), st.sampled_from(Odd)),
    "words": (column(str, ["yes", "no"]), ["yes", "no"], st.sampled_from(["yes", "no"])),
    "whatever": (column(None), [object(), "a", 1, None], st.text()),
}

PLAIN: list[Any] = [
    *(Any, bool, int, float, str, bytes, bytearray, decimal.Decimal, object, complex),
    *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta, uuid.UUID),
    *(Size, Level, Colour, Literal["yes"], Literal["a", "b"], Literal[1], Literal[5, "yes"]),
    *(list, list[int], list[str], set[int], frozenset[str], tuple[int, ...], dict, dict[str, int], Inner),
    *(Annotated[datetime.datetime, Meta(tz=True)], Annotated[datetime.datetime, Meta(tz=False)]),
    *(Annotated[datetime.time, Meta(tz=True)], Annotated[datetime.time, Meta(tz=False)], NewType("Id", int)),
]
FIELDS = [*PLAIN, *(kind | None for kind in PLAIN if isinstance(kind, type) and kind is not object)]
FIELDS += [int | str, str | float | None, datetime.date | None, bool | Size, int | list[str] | None]


def _goes_out(value: Any, field: Any) -> bool:
    try:
        msgspec.json.encode(msgspec.convert(value, field))
    except (msgspec.ValidationError, TypeError):
        return False
    return True


@pytest.mark.parametrize("field", FIELDS, ids=str)
@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_can_fill_a_field_if_one_of_its_values_does(name, field):
    given_column, values, _ = COLUMNS[name]
    expected = name == "whatever" or any(_goes_out(value, field) for value in values)
    assert can_fill(given_column, field) == expected


@given(st.data(), st.sampled_from(list(COLUMNS)), st.sampled_from(FIELDS))
def test_no_value_goes_out_in_a_field_that_its_column_cannot_fill(data, name, field):
    given_column, _, strategy = COLUMNS[name]
    if not can_fill(given_column, field):
        assert not _goes_out(data.draw(strategy), field)


BOUNDED = [
    ("int", Annotated[int, Meta(ge=5)]),
    ("int", Annotated[int, Meta(multiple_of=7)] | None),
    ("float", Annotated[float, Meta(gt=1.0)]),
    ("str", Annotated[str, Meta(min_length=3, max_length=4)]),
    ("str", Annotated[str, Meta(pattern="^x")]),
    ("str", Literal["a", "b"]),
    ("str", Size),
    ("int", Level),
    ("bytes", Annotated[bytes, Meta(min_length=1)]),
    ("list", tuple[int, int]),
    ("dict", msgspec.defstruct("Needs", [("b", int)])),
    ("words", Literal["yes"]),
]


@pytest.mark.parametrize(("name", "field"), BOUNDED, ids=str)
def test_bounds_are_a_matter_of_each_row(name, field):
    assert can_fill(COLUMNS[name][0], field)


def test_none_of_the_members_is_none_at_all():
    assert not can_fill(COLUMNS["words"][0], Literal["maybe"])
    assert not can_fill(COLUMNS["enum"][0], Colour)
    assert not can_fill(COLUMNS["words"][0], Annotated[str, Meta(max_length=1)])


class Rank(enum.Enum):
    LOW = 1


def test_members_that_stand_for_numbers_are_numbers():
    ranks = column(Rank, Rank)
    assert all(can_fill(ranks, field) for field in (Rank, Rank | None, int, Any))
    assert not any(can_fill(ranks, field) for field in (str, Size, Literal[5]))
