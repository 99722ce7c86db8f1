"""Sort keys: bytes in the order of the values, and back; and the bytes of each layout, which stay as they are."""

from __future__ import annotations

import datetime
import enum
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.read import fingerprint
from diptych.read.addresses import key_bytes
from diptych.read.declaration import ListOrder
from diptych.read.lists.index import ListIndex
from diptych.read.lists.ordering import SORTABLE, Instant, SortCodec
from diptych.sql.description import Column, Entity

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
}
TYPES = st.lists(st.sampled_from(SORTABLE), min_size=1, max_size=3)


def _order(value: Any) -> Any:
    """Returns the value as SQL orders it: text by code point, a UUID by its bytes, an instant by time."""
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(
            datetime.UTC
        )  # Python compares the wall clock of one zone, twofold hours as equal
    return value.bytes if isinstance(value, uuid.UUID) else value


@given(st.data(), TYPES)
def test_bytes_sort_as_the_tuples_do(data, types):
    tuples = st.tuples(*(VALUES[kind] for kind in types))
    one, other = data.draw(tuples), data.draw(tuples)
    codec = SortCodec(types)
    by_value = [_order(v) for v in one] < [_order(v) for v in other]
    are_equal = [_order(v) for v in one] == [_order(v) for v in other]
    assert (codec.encode(one) < codec.encode(other)) == by_value
    assert (codec.encode(one) == codec.encode(other)) == are_equal


@given(st.data(), TYPES)
def test_a_tuple_comes_back(data, types):
    values = data.draw(st.tuples(*(VALUES[kind] for kind in types)))
    found = SortCodec(types).decode(SortCodec(types).encode(values))
    assert [_order(value) for value in found] == [_order(value) for value in values]


def test_text_ends_where_it_ends_whatever_comes_next():
    """A first byte of 0xff behind a text must not be taken for a part of it."""
    values = ("a", uuid.UUID(int=2**128 - 1), "", 2**63 - 1)
    codec = SortCodec([str, uuid.UUID, str, int])
    assert codec.decode(codec.encode(values)) == values
    assert codec.encode(values) < codec.encode(("a\x00", uuid.UUID(int=0), "", 0))


@given(st.binary(max_size=40), TYPES)
def test_other_bytes_are_refused(data, types):
    """A cursor comes from outside: whatever it holds, it decodes to what encodes to it, or is refused."""
    codec = SortCodec(types)
    try:
        values = codec.decode(data)
    except ValueError:
        return
    assert codec.encode(values) == data


def test_a_time_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        SortCodec([datetime.datetime]).encode([datetime.datetime.now(datetime.UTC)])


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
    "id": 7,
    "title": "Dune",
}
"""One value of every sortable type at least: of some types, values whose bytes have something of their own."""


def _column(name: str) -> Column:
    texts = {size: size.name for size in Size} if name == "size" else None
    is_zoned = name == "instant"
    return Column(
        name, type(ROW[name]), False, False, True, True, lambda value: value, zoned=is_zoned, texts=texts
    )


ENTITY = Entity(object, "Thing", "things", ("id",), {name: _column(name) for name in ROW})


def _list(key: str, *columns: str) -> ListIndex:
    return ListIndex(ListOrder(columns, tuple(object for _ in columns)), (key,), ENTITY)


def _bytes(index: ListIndex, key: str) -> tuple[str, str, str]:
    """Sort key and list entry of the row in hexadecimal digits, and the page cursor behind it."""
    place = index.sort_key(ROW)
    return place.hex(), index.entry(place, key_bytes(ROW[key])).hex(), index.cursor(place)


LISTS = {name: _list("id", name) for name in ROW if name not in ("id", "title")}
LISTS |= {
    "id": _list("id", "id"),
    "size,day,text": _list("id", "size", "day", "text"),
    "title": _list("title", "title"),
    "none,code,title": _list("title", "none", "code"),
}
KEYS = {name: index.columns[-1] for name, index in LISTS.items()}

LAYOUTS: dict[int, dict[str, tuple[str, str, str]]] = {
    2: {
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
            "323032342d31312d30335430363a33303a30302e3030303030318000000000000007",
            "323032342d31312d30335430363a33303a30302e30303030303180000000000000073700000001",
            "MjAyNC0xMS0wM1QwNjozMDowMC4wMDAwMDGAAAAAAAAABw",
        ),
        "instant": (
            "323032342d31312d30335430363a33303a30302e3030303030318000000000000007",
            "323032342d31312d30335430363a33303a30302e30303030303180000000000000073700000001",
            "MjAyNC0xMS0wM1QwNjozMDowMC4wMDAwMDGAAAAAAAAABw",
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
