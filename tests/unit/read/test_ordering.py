"""Sort keys: bytes in the order of the values, and back; and the bytes of each layout, which stay as they are."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.read import fingerprint
from diptych.read.addresses import key_bytes
from diptych.read.declaration import ListOrder
from diptych.read.lists.index import ListIndex
from diptych.read.lists.ordering import SORTABLE, Instant, SortCodec, decode, encode
from diptych.sql.description import Column, Entity, Sorting

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = {
    str: TEXT | st.sampled_from(["", "\x00", "\x00\xff", "a\x00b", "a", "aa", "é", "\U0001f600"]),
    int: st.integers(-(2**63), 2**63 - 1),
    datetime.date: st.dates(),
    datetime.datetime: st.datetimes(),
    Instant: st.datetimes(
        datetime.datetime(2, 1, 1),
        datetime.datetime(9999, 1, 1),
        timezones=st.timezones(),
        allow_imaginary=False,
    ),
    uuid.UUID: st.uuids(),
    bool: st.booleans(),
    float: st.floats(allow_nan=False) | st.sampled_from([0.0, -0.0, 1.5, -1.5]),
    decimal.Decimal: st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30)
    | st.sampled_from(
        [decimal.Decimal(text) for text in ("0", "-0.00", "1", "1.0", "10", "-1.2", "-1.23", "1E-9")]
    ),
    datetime.time: st.times(),
    datetime.timedelta: st.timedeltas(datetime.timedelta(days=-(10**5)), datetime.timedelta(days=10**5)),
}


class Sorted(NamedTuple):
    """A column of a list."""

    kind: type
    descending: bool
    nullable: bool
    nulls_first: bool

    def codec(self) -> SortCodec:
        return SortCodec(
            self.kind, descending=self.descending, nullable=self.nullable, nulls_first=self.nulls_first
        )

    def values(self) -> st.SearchStrategy[Any]:
        return VALUES[self.kind] | st.none() if self.nullable else VALUES[self.kind]

    def is_before(self, one: Any, other: Any) -> bool:
        if one is None or other is None:
            return one is not other and (one is None) == self.nulls_first
        first, second = (other, one) if self.descending else (one, other)
        return bool(_order(first) < _order(second))


COLUMNS = st.lists(
    st.builds(Sorted, st.sampled_from(SORTABLE), st.booleans(), st.booleans(), st.booleans()),
    min_size=1,
    max_size=3,
)


def _order(value: Any) -> Any:
    """Returns the value as SQL orders it: text by code point, a UUID by its bytes, an instant by time."""
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(
            datetime.UTC
        )  # Python compares the wall clock of one zone, twofold hours as equal
    return value.bytes if isinstance(value, uuid.UUID) else value


@given(st.data(), COLUMNS)
def test_bytes_sort_as_the_tuples_do(data, columns):
    tuples = st.tuples(*(column.values() for column in columns))
    one, other = data.draw(tuples), data.draw(tuples)
    codecs = [column.codec() for column in columns]
    pairs = list(zip(columns, one, other, strict=True))
    differing = next(((c, a, b) for c, a, b in pairs if _order(a) != _order(b)), None)
    is_before = differing is not None and differing[0].is_before(*differing[1:])
    assert (encode(codecs, one) < encode(codecs, other)) == is_before
    assert (encode(codecs, one) == encode(codecs, other)) == (differing is None)


@given(st.data(), COLUMNS)
def test_a_tuple_comes_back(data, columns):
    values = data.draw(st.tuples(*(column.values() for column in columns)))
    codecs = [column.codec() for column in columns]
    found = decode(codecs, encode(codecs, values))
    assert [_order(value) for value in found] == [_order(value) for value in values]


@given(st.data(), COLUMNS)
def test_no_sort_key_is_the_beginning_of_another(data, columns):
    """A page begins behind everything that begins with its place."""
    tuples = st.tuples(*(column.values() for column in columns))
    codecs = [column.codec() for column in columns]
    one, other = (encode(codecs, data.draw(tuples)) for _ in range(2))
    assert one == other or not other.startswith(one)


def test_text_ends_where_it_ends_whatever_comes_next():
    """A first byte of 0xff behind a text must not be taken for a part of it."""
    values = ("a", uuid.UUID(int=2**128 - 1), "", 2**63 - 1)
    codecs = [SortCodec(kind) for kind in (str, uuid.UUID, str, int)]
    assert decode(codecs, encode(codecs, values)) == values
    assert encode(codecs, values) < encode(codecs, ("a\x00", uuid.UUID(int=0), "", 0))


@given(st.binary(max_size=40), COLUMNS)
def test_other_bytes_are_refused(data, columns):
    """A cursor comes from outside: whatever it holds, it decodes to what encodes to it, or is refused."""
    codecs = [column.codec() for column in columns]
    try:
        values = decode(codecs, data)
    except ValueError:
        return
    assert encode(codecs, values) == data


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (datetime.datetime, datetime.datetime.now(datetime.UTC)),
        (datetime.time, datetime.time(1, tzinfo=datetime.UTC)),
        (float, float("nan")),
        (decimal.Decimal, decimal.Decimal("NaN")),
        (decimal.Decimal, decimal.Decimal("Infinity")),
        (int, None),
    ],
)
def test_a_value_without_a_place_is_refused(kind, value):
    with pytest.raises((ValueError, TypeError)):
        SortCodec(kind).encode(value)


# The bytes in Redis and in clients' hands


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


MOMENT = datetime.datetime(2024, 11, 3, 6, 30, 0, 1)
NEPAL = datetime.timezone(datetime.timedelta(hours=5, minutes=45))
ROW: dict[str, Any] = {
    "text": "a\x00é",
    "none": "",
    "negative": -2,
    "whole": 2**62,
    "day": datetime.date(2024, 11, 3),
    "moment": MOMENT,
    "instant": MOMENT.replace(tzinfo=datetime.UTC).astimezone(NEPAL),
    "code": uuid.UUID("00112233-4455-6677-8899-aabbccddeeff"),
    "size": Size.LARGE,
    "is_there": True,
    "ratio": -0.375,
    "price": decimal.Decimal("-1250.40"),
    "hour": datetime.time(6, 30, 0, 1),
    "span": datetime.timedelta(days=-2, microseconds=1),
    "lacking": None,
    "id": 7,
    "title": "Dune",
}
"""One value of every sortable type at least: of some types, values whose bytes have something of their own."""


def _column(name: str) -> Column:
    texts = {size: size.name for size in Size} if name == "size" else None
    is_zoned = name == "instant"
    kind, nullable = (int, True) if name == "lacking" else (type(ROW[name]), False)
    return Column(name, kind, nullable, False, True, True, lambda value: value, zoned=is_zoned, texts=texts)


ENTITY = Entity(object, "Thing", "things", ("id",), {name: _column(name) for name in ROW})


def _list(key: str, *columns: str) -> ListIndex:
    sorted_by = tuple(
        Sorting(name.lstrip("-"), object, name.startswith("-"), nulls_first=name.startswith("-"))
        for name in columns
    )
    return ListIndex(ListOrder(sorted_by, ",".join(columns)), (key,), ENTITY)


def _bytes(index: ListIndex, key: str) -> tuple[str, str, str]:
    """Sort key and list entry of the row in hexadecimal digits, and the page cursor behind it."""
    place = index.sort_key(ROW)
    return place.hex(), index.entry(place, key_bytes(ROW[key])).hex(), index.cursor(place)


LISTS = {name: _list("id", name) for name in ROW if name not in ("id", "title")}
LISTS |= {
    "id": _list("id", "id"),
    "size,day,text": _list("id", "size", "day", "text"),
    "title": _list("title", "title"),
    "-lacking,-text,-price": _list("id", "-lacking", "-text", "-price"),
    "none,code,title": _list("title", "none", "code"),
}
KEYS = {name: index.columns[-1] for name, index in LISTS.items()}

LAYOUTS: dict[int, dict[str, tuple[str, str, str]]] = {
    3: {
        "text": (
            "6100ffc3a900018000000000000007",
            "6100ffc3a9000180000000000000073700000001",
            "YQD_w6kAAYAAAAAAAAAH",
        ),
        "none": (
            "00018000000000000007",
            "000180000000000000073700000001",
            "AAGAAAAAAAAABw",
        ),
        "negative": (
            "7ffffffffffffffe8000000000000007",
            "7ffffffffffffffe80000000000000073700000001",
            "f_________6AAAAAAAAABw",
        ),
        "whole": (
            "c0000000000000008000000000000007",
            "c00000000000000080000000000000073700000001",
            "wAAAAAAAAACAAAAAAAAABw",
        ),
        "day": (
            "000b47798000000000000007",
            "000b477980000000000000073700000001",
            "AAtHeYAAAAAAAAAH",
        ),
        "moment": (
            "00e2e5fb4b54aa018000000000000007",
            "00e2e5fb4b54aa0180000000000000073700000001",
            "AOLl-0tUqgGAAAAAAAAABw",
        ),
        "instant": (
            "00e2e5fb4b54aa018000000000000007",
            "00e2e5fb4b54aa0180000000000000073700000001",
            "AOLl-0tUqgGAAAAAAAAABw",
        ),
        "code": (
            "00112233445566778899aabbccddeeff8000000000000007",
            "00112233445566778899aabbccddeeff80000000000000073700000001",
            "ABEiM0RVZneImaq7zN3u_4AAAAAAAAAH",
        ),
        "size": (
            "4c4152474500018000000000000007",
            "4c41524745000180000000000000073700000001",
            "TEFSR0UAAYAAAAAAAAAH",
        ),
        "id": (
            "8000000000000007",
            "80000000000000073700000001",
            "gAAAAAAAAAc",
        ),
        "size,day,text": (
            "4c415247450001000b47796100ffc3a900018000000000000007",
            "4c415247450001000b47796100ffc3a9000180000000000000073700000001",
            "TEFSR0UAAQALR3lhAP_DqQABgAAAAAAAAAc",
        ),
        "title": (
            "44756e650001",
            "44756e65000144756e6500000004",
            "RHVuZQAB",
        ),
        "is_there": (
            "018000000000000007",
            "0180000000000000073700000001",
            "AYAAAAAAAAAH",
        ),
        "ratio": (
            "4027ffffffffffff8000000000000007",
            "4027ffffffffffff80000000000000073700000001",
            "QCf_______-AAAAAAAAABw",
        ),
        "price": (
            "007ffffffbcecdcacfcbff8000000000000007",
            "007ffffffbcecdcacfcbff80000000000000073700000001",
            "AH____vOzcrPy_-AAAAAAAAABw",
        ),
        "hour": (
            "0572bfaa018000000000000007",
            "0572bfaa0180000000000000073700000001",
            "BXK_qgGAAAAAAAAABw",
        ),
        "span": (
            "7fffffd7c45140018000000000000007",
            "7fffffd7c451400180000000000000073700000001",
            "f___18RRQAGAAAAAAAAABw",
        ),
        "lacking": (
            "028000000000000007",
            "0280000000000000073700000001",
            "AoAAAAAAAAAH",
        ),
        "-lacking,-text,-price": (
            "009eff003c56fffeff800000043132353034008000000000000007",
            "009eff003c56fffeff8000000431323530340080000000000000073700000001",
            "AJ7_ADxW__7_gAAABDEyNTA0AIAAAAAAAAAH",
        ),
        "none,code,title": (
            "000100112233445566778899aabbccddeeff44756e650001",
            "000100112233445566778899aabbccddeeff44756e65000144756e6500000004",
            "AAEAESIzRFVmd4iZqrvM3e7_RHVuZQAB",
        ),
    },
}
"""Sort key, list entry and page cursor of ``ROW`` in each list, by the layout's number."""


@pytest.mark.parametrize("name", LISTS)
def test_the_bytes_of_lists_are_those_of_the_layout(name: str):
    """Other bytes under the same number would be taken for the old ones: cursors by clients, entries by a process
    of another version. Raise ``_LAYOUT`` with the bytes, and hold the new ones here.
    """
    assert _bytes(LISTS[name], KEYS[name]) == LAYOUTS[fingerprint._LAYOUT][name]


def test_every_sortable_type_is_in_the_layout():
    held = {Instant if column.zoned else column.type for column in ENTITY.columns.values()}
    assert held >= set(SORTABLE)
    assert set(LAYOUTS[fingerprint._LAYOUT]) == set(LISTS)
