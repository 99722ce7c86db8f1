"""A key in Redis leads back to the value of its address, and to no other key."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest

from diptych.read.addresses import Address, CompositeKey, Key, SecondAddress, located_at
from diptych.sql.description import Column

VALUES = [
    (int, 5),
    (int, -(2**63)),
    (str, ""),
    (str, 'ä"\n\x00'),
    (datetime.date, datetime.date(2020, 1, 2)),
    (uuid.UUID, uuid.UUID(int=5)),
]


def column(name: str, kind: type) -> Column:
    return Column(name, kind, False, True, True, True, lambda value: value)


def addresses(kind: type) -> list[Address]:
    one, other = column("one", kind), column("other", kind)
    return [Key(one), SecondAddress(other), SecondAddress(column("third", kind))]


@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_the_key_of_a_value_leads_back_to_it(kind: type, value: Any):
    own = addresses(kind)
    for address in own:
        located = located_at(own, address.encoded(value))
        assert located == (address, value)
    composite = CompositeKey("Model", [column("one", kind), column("number", int)])
    assert composite.decoded(composite.encoded((value, 3))) == (value, 3)


@pytest.mark.parametrize("kind", [int, datetime.date, uuid.UUID])
@pytest.mark.parametrize("key", [b"", b"007", b" 5", b"x", b"\xfe\xff", b"2020-1-2", b"{" + b"0" * 32 + b"}"])
def test_a_key_that_no_value_has_leads_nowhere(kind: type, key: bytes):
    assert located_at(addresses(kind), key) is None


@pytest.mark.parametrize(
    "key", [b"", b"5", b"[5]", b'[ "a",5]', b'["a",5,6]', b'[5,"a"]', b'{"a":5}', b'["a",null]']
)
def test_a_composite_key_is_written_in_one_way(key: bytes):
    assert located_at([CompositeKey("Model", [column("one", str), column("two", int)])], key) is None


def test_a_key_of_an_unknown_second_address_leads_nowhere():
    assert located_at(addresses(int), b"\xffsomething:5") is None
    assert located_at(addresses(int), b"\xff") is None
