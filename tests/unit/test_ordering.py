"""Sort keys: bytes in the order of the values, and back."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.read.lists.ordering import SORTABLE, Instant, SortCodec

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
    """How SQL orders it: text by code point, a UUID by its bytes, an instant by when it is."""
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
