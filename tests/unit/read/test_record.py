"""The record of list entries is read and written as the scripts in Redis do it."""

from __future__ import annotations

from typing import Any, cast

import pytest
import redis

from diptych.read.lists.index import ListIndex, packed
from diptych.read.store.record import entries_of, record_of, recorded_in


class _List:
    """A list, as far as records are concerned."""

    def __init__(self, collection: object) -> None:
        self.collection = collection


PLAIN, EACH = cast(ListIndex, _List(None)), cast(ListIndex, _List("tags"))
LENGTHS = (1, 31, 32, 255, 256, 65_535, 65_536)


@pytest.mark.parametrize(
    ("lists", "written"),
    [
        ([], ()),
        ([PLAIN], (b"",)),
        *(([PLAIN], (bytes([255]) * length,)) for length in LENGTHS),
        ([PLAIN, EACH], (b"\x00a", packed([]))),
        ([EACH, PLAIN], (packed([b"x", b"\xffy"]), b"")),
        ([EACH], (packed(number.to_bytes(2, "big") for number in range(70_000 // 4)),)),
        ([PLAIN] * 17, tuple(bytes([number]) for number in range(17))),
    ],
)
def test_a_record_is_what_the_script_writes_and_is_read_again(
    valkey, lists: list[ListIndex], written: tuple[bytes, ...]
):
    pack = """
        local lists, at = {}, 1
        for i = 1, #ARGV do
            if KEYS[i] == 'each' then
                lists[i] = {}
                local from = 1
                while from <= #ARGV[i] do
                    lists[i][#lists[i] + 1], from = struct.unpack('>I4c0', ARGV[i], from)
                end
            else
                lists[i] = ARGV[i]
            end
        end
        return cmsgpack.pack(lists)
    """
    kinds = ["plain" if index.collection is None else "each" for index in lists]
    with redis.Redis.from_url(valkey.url) as client:
        made: Any = client.eval(pack, len(kinds), *kinds, *written)
    assert record_of(written, lists) == made
    assert recorded_in(made, lists) == entries_of(written, lists)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"x",
        b"\xa1",
        b"\x91",
        b"\x91\xa5ab",
        b"\x90",
        b"\x92\xa0\xa0",
        b"\x91\x01",
        b"\x91\xa1a!",
        b"\x91\x90",
    ],
)
def test_what_no_script_has_written_is_no_record(record: bytes):
    assert recorded_in(record, [PLAIN]) is None


def test_several_entries_where_a_list_has_one_are_no_record():
    assert recorded_in(b"\x91\xa1a", [EACH]) is None
    assert recorded_in(b"\x91\x91\x90", [EACH]) is None
    assert recorded_in(None, [EACH]) is None
