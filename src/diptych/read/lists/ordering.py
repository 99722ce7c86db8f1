"""Sort keys: values as bytes in the order of the values, so Redis and SQL list rows in the same order.

The scheme is that of FoundationDB's tuple layer (https://github.com/apple/foundationdb/blob/main/design/tuple.md),
with a fixed width for integers, and without its type codes, since the types are known. Text sorts by code point.
A change of the bytes needs another ``_LAYOUT`` in ``read/fingerprint.py``.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from diptych.sql.description import Column

_BIAS = 1 << 63
"""Added to integers, so that negative ones sort first."""

_END = b"\x00\x01"
"""The end of a text."""

Decode = Callable[[bytes, int], tuple[Any, int]]


def _text_to_bytes(value: str) -> bytes:
    # The end sorts before any character that could follow, U+0000 as well. The zero has a byte behind it: the next
    # value of the tuple may begin with 0xff, and would turn a bare zero into U+0000.
    return value.encode().replace(b"\x00", b"\x00\xff") + _END


def _text_from_bytes(data: bytes, start: int) -> tuple[str, int]:
    end = data.index(_END, start)
    return data[start:end].replace(b"\x00\xff", b"\x00").decode(), end + len(_END)


def _integer_to_bytes(value: int) -> bytes:
    return (value + _BIAS).to_bytes(8, "big")


def _integer_from_bytes(data: bytes, start: int) -> tuple[int, int]:
    return int.from_bytes(_exactly(data, start, 8), "big") - _BIAS, start + 8


def _date_from_bytes(data: bytes, start: int) -> tuple[datetime.date, int]:
    return datetime.date.fromordinal(int.from_bytes(_exactly(data, start, 4), "big")), start + 4


def _datetime_to_bytes(value: datetime.datetime) -> bytes:
    if value.tzinfo is not None:
        raise ValueError("the column keeps no time zone")
    return value.isoformat(timespec="microseconds").encode()


def _datetime_from_bytes(data: bytes, start: int) -> tuple[datetime.datetime, int]:
    return datetime.datetime.fromisoformat(_exactly(data, start, 26).decode()), start + 26


def _instant_to_bytes(value: datetime.datetime) -> bytes:
    if value.tzinfo is None:
        raise ValueError("the column keeps a time zone")
    return _datetime_to_bytes(value.astimezone(datetime.UTC).replace(tzinfo=None))


def _instant_from_bytes(data: bytes, start: int) -> tuple[datetime.datetime, int]:
    value, end = _datetime_from_bytes(data, start)
    return value.replace(tzinfo=datetime.UTC), end


def _uuid_from_bytes(data: bytes, start: int) -> tuple[uuid.UUID, int]:
    return uuid.UUID(bytes=_exactly(data, start, 16)), start + 16


def _exactly(data: bytes, start: int, length: int) -> bytes:
    if len(data) < start + length:
        raise ValueError("too short")
    return data[start : start + length]


class Instant:
    """The type of points in time with a zone, in the order of time in any zone."""


_CODECS: dict[type, tuple[Callable[[Any], bytes], Decode]] = {
    str: (_text_to_bytes, _text_from_bytes),
    int: (_integer_to_bytes, _integer_from_bytes),
    datetime.date: (lambda value: value.toordinal().to_bytes(4, "big"), _date_from_bytes),
    datetime.datetime: (_datetime_to_bytes, _datetime_from_bytes),
    Instant: (_instant_to_bytes, _instant_from_bytes),
    uuid.UUID: (lambda value: value.bytes, _uuid_from_bytes),
}

SORTABLE = tuple(_CODECS)
"""The types with the same order in Redis and in every database."""

ALWAYS_SORTABLE = (str, int, datetime.date, uuid.UUID)
"""The types of which any value from a database can be ordered. (A point in time may lack its zone.)"""


def sorted_as(column: Column) -> type | None:
    """Returns the sortable type of a column in lists; None if the column can't be ordered."""
    if column.texts is not None:
        return str  # an enum, ordered by its stored text
    if column.type is datetime.datetime and column.zoned:
        return Instant
    return column.type if column.type in _CODECS else None


class SortCodec:
    """A translation of tuples of these types into bytes in the same order, and back."""

    __slots__ = ("_types",)

    def __init__(self, types: Sequence[type]) -> None:
        self._types = tuple(types)

    def encode(self, values: Sequence[Any]) -> bytes:
        return b"".join(_CODECS[kind][0](value) for kind, value in zip(self._types, values, strict=True))

    def decode(self, data: bytes) -> tuple[Any, ...]:
        """Returns the tuple of a sort key. Raises ``ValueError`` for bytes never returned by ``encode``."""
        values, at = [], 0
        for kind in self._types:
            try:
                value, at = _CODECS[kind][1](data, at)
            except (ValueError, OverflowError) as error:
                raise ValueError("not the sort key of such a tuple") from error
            values.append(value)
        if at != len(data) or self.encode(values) != data:
            raise ValueError("not the sort key of such a tuple")
        return tuple(values)
