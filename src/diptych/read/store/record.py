"""The record of a document's list entries: what the scripts pack with ``cmsgpack`` into the hash ``entries``.

It is an array with an item for each list: an entry, empty in a list without a place for the row, or an array of
entries in a list with an ``each``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diptych.read.lists.index import ListIndex, unpacked

Entries = tuple[frozenset[bytes], ...]
"""The entries of a document, of each list."""

_SHORT_TEXT, _SHORT_ARRAY = 0xA0, 0x90
_TEXTS = ((0xD9, 1), (0xDA, 2), (0xDB, 4))
"""First bytes of longer texts, with the number of bytes of the length that follows."""
_ARRAYS = ((0xDC, 2), (0xDD, 4))


def entries_of(written: Sequence[bytes], lists: Sequence[ListIndex]) -> Entries:
    """Returns the entries of a write, by lists."""
    pairs = zip(written, lists, strict=True)
    return tuple(
        frozenset(unpacked(each) if index.collection is not None else [each] if each else [])
        for each, index in pairs
    )


def recorded_in(record: bytes | None, lists: Sequence[ListIndex]) -> Entries | None:
    """Returns the entries in a record; None without a record, or for one that no script has written.

    >>> recorded_in(bytes([0x90]), [])
    ()
    """
    if record is None:
        return None
    try:
        found, end = _read(record, 0)
    except (IndexError, ValueError):
        return None
    if end != len(record) or not isinstance(found, list) or len(found) != len(lists):
        return None
    entries = []
    for each, index in zip(found, lists, strict=True):
        several = each if isinstance(each, list) else [each] if each else []
        is_fit = isinstance(each, list) == (index.collection is not None)
        if not is_fit or not all(isinstance(entry, bytes) for entry in several):
            return None
        entries.append(frozenset(several))
    return tuple(entries)


def record_of(written: Sequence[bytes], lists: Sequence[ListIndex]) -> bytes:
    """Returns the record of a write, with several entries of a list in their order."""
    items = [
        _text(each)
        if index.collection is None
        else _head(len(several := unpacked(each)), _SHORT_ARRAY, 16, _ARRAYS) + b"".join(map(_text, several))
        for each, index in zip(written, lists, strict=True)
    ]
    return _head(len(items), _SHORT_ARRAY, 16, _ARRAYS) + b"".join(items)


def _text(text: bytes) -> bytes:
    return _head(len(text), _SHORT_TEXT, 32, _TEXTS) + text


def _head(length: int, short: int, limit: int, longer: Sequence[tuple[int, int]]) -> bytes:
    if length < limit:
        return bytes([short | length])
    first, size = next((first, size) for first, size in longer if length < 256**size)
    return bytes([first]) + length.to_bytes(size, "big")


def _read(packed: bytes, at: int) -> tuple[Any, int]:
    """Returns the value at this place, and the place behind it."""
    first = packed[at]
    for short, limit, longer in ((_SHORT_TEXT, 32, _TEXTS), (_SHORT_ARRAY, 16, _ARRAYS)):
        sizes = dict(longer)
        if short <= first < short + limit:
            length, start = first - short, at + 1
        elif first in sizes:
            start = at + 1 + sizes[first]
            length = int.from_bytes(packed[at + 1 : start], "big")
        else:
            continue
        if short == _SHORT_TEXT:
            if start + length > len(packed):
                raise ValueError("the record ends too early")
            return packed[start : start + length], start + length
        return _read_items(packed, start, length)
    raise ValueError("neither a text nor an array")


def _read_items(packed: bytes, at: int, count: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    for _ in range(count):
        item, at = _read(packed, at)
        items.append(item)
    return items, at
