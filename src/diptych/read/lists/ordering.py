"""Sort keys: values as bytes in the order of the values, so Redis and SQL list rows in the same order.

The scheme is that of FoundationDB's tuple layer (https://github.com/apple/foundationdb/blob/main/design/tuple.md),
with a fixed width for integers, and without its type codes, since the types are known. Text sorts by code point. The
bytes of a value in descending order are those of the value, each subtracted from 255.
A change of the bytes needs another ``_LAYOUT`` in ``read/fingerprint.py``.
"""

from __future__ import annotations

import datetime
import decimal
import math
import struct
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from diptych.sql.description import Column

_BIAS = 1 << 63
"""Added to integers, so that negative ones sort first."""

_ALL_BITS = (1 << 64) - 1

_END = b"\x00\x01"
"""The end of a text."""

OPPOSITE = bytes(range(255, -1, -1))
"""The table that translates bytes into bytes in the opposite order."""

_NEGATIVE, _ZERO, _POSITIVE = b"\x00", b"\x01", b"\x02"
_DIGIT_0 = ord("0")

_BIAS_OF_EXPONENTS = 1 << 31
_MOST = 150_000
"""Greatest exponent of a decimal number in a page cursor. PostgreSQL has 131,072 digits before the point at most."""

_MICROSECOND = datetime.timedelta(microseconds=1)

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
    return ((value - datetime.datetime.min) // _MICROSECOND).to_bytes(8, "big")


def _datetime_from_bytes(data: bytes, start: int) -> tuple[datetime.datetime, int]:
    since = int.from_bytes(_exactly(data, start, 8), "big")
    return datetime.datetime.min + since * _MICROSECOND, start + 8


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


def _float_to_bytes(value: float) -> bytes:
    if not isinstance(value, float) or math.isnan(value):
        raise ValueError("is no number")
    bits = int.from_bytes(struct.pack(">d", value + 0.0), "big")  # zero has one form
    # The bits of positive numbers are in their order, and those of negative numbers in the opposite order.
    return (bits ^ (_ALL_BITS if bits & _BIAS else _BIAS)).to_bytes(8, "big")


def _float_from_bytes(data: bytes, start: int) -> tuple[float, int]:
    bits = int.from_bytes(_exactly(data, start, 8), "big")
    bits ^= _BIAS if bits & _BIAS else _ALL_BITS
    [value] = struct.unpack(">d", struct.pack(">Q", bits))
    return value, start + 8


def _decimal_to_bytes(value: decimal.Decimal) -> bytes:
    """Returns the sign, the exponent of the first digit, and the digits in hexadecimal notation with an end."""
    if not isinstance(value, decimal.Decimal) or not value.is_finite():
        raise ValueError("is no number")
    sign, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    if not text:
        return _ZERO
    magnitude = (len(text) + int(exponent) + _BIAS_OF_EXPONENTS).to_bytes(4, "big")
    magnitude += text.rstrip("0").encode() + b"\x00"
    return _NEGATIVE + magnitude.translate(OPPOSITE) if sign else _POSITIVE + magnitude


def _decimal_from_bytes(data: bytes, start: int) -> tuple[decimal.Decimal, int]:
    sign, start = _exactly(data, start, 1), start + 1
    if sign == _ZERO:
        return decimal.Decimal(0), start
    if sign == _NEGATIVE:
        data = data.translate(OPPOSITE)
    elif sign != _POSITIVE:
        raise ValueError("no sign of a number")
    exponent = int.from_bytes(_exactly(data, start, 4), "big") - _BIAS_OF_EXPONENTS
    end = data.index(b"\x00", start + 4)
    digits = tuple(digit - _DIGIT_0 for digit in data[start + 4 : end])
    if not digits or not all(0 <= digit <= 9 for digit in digits) or not -_MOST < exponent < _MOST:
        raise ValueError("no digits of a number")
    return decimal.Decimal((int(sign == _NEGATIVE), digits, exponent - len(digits))), end + 1


def _bool_to_bytes(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def _bool_from_bytes(data: bytes, start: int) -> tuple[bool, int]:
    return bool(_exactly(data, start, 1)[0]), start + 1


def _time_to_bytes(value: datetime.time) -> bytes:
    if value.tzinfo is not None:
        raise ValueError("the column keeps no time zone")
    seconds = (value.hour * 60 + value.minute) * 60 + value.second
    return (seconds * 1_000_000 + value.microsecond).to_bytes(5, "big")


def _time_from_bytes(data: bytes, start: int) -> tuple[datetime.time, int]:
    seconds, microsecond = divmod(int.from_bytes(_exactly(data, start, 5), "big"), 1_000_000)
    minutes, second = divmod(seconds, 60)
    return datetime.time(minutes // 60, minutes % 60, second, microsecond), start + 5


def _duration_from_bytes(data: bytes, start: int) -> tuple[datetime.timedelta, int]:
    number, end = _integer_from_bytes(data, start)
    return number * _MICROSECOND, end


class Instant:
    """The type of points in time with a zone, in the order of time in any zone."""


_CODECS: dict[type, tuple[Callable[[Any], bytes], Decode]] = {
    str: (_text_to_bytes, _text_from_bytes),
    int: (_integer_to_bytes, _integer_from_bytes),
    datetime.date: (lambda value: value.toordinal().to_bytes(4, "big"), _date_from_bytes),
    datetime.datetime: (_datetime_to_bytes, _datetime_from_bytes),
    Instant: (_instant_to_bytes, _instant_from_bytes),
    uuid.UUID: (lambda value: value.bytes, _uuid_from_bytes),
    bool: (_bool_to_bytes, _bool_from_bytes),
    float: (_float_to_bytes, _float_from_bytes),
    decimal.Decimal: (_decimal_to_bytes, _decimal_from_bytes),
    datetime.time: (_time_to_bytes, _time_from_bytes),
    datetime.timedelta: (lambda value: _integer_to_bytes(value // _MICROSECOND), _duration_from_bytes),
}

SORTABLE = tuple(_CODECS)
"""The types with the same order in Redis and in every database."""

SORTED_TYPES = tuple(kind for kind in SORTABLE if kind is not Instant)
"""The same types, as columns have them."""

ALWAYS_SORTABLE = (str, int, datetime.date, uuid.UUID, bool)
"""The types of which any value from a database can be ordered. (A point in time may lack its zone.)"""


def sorted_as(column: Column) -> type | None:
    """Returns the sortable type of a column in lists; None if the column can't be ordered."""
    if column.texts is not None:
        return str  # an enum, ordered by its stored text
    if column.type is datetime.datetime and column.zoned:
        return Instant
    if column.type is datetime.time and column.zoned:
        return None  # PostgreSQL orders equal times by their zones
    return column.type if column.type in _CODECS else None


class SortCodec:
    """A translation of values of a type into bytes in their order, and back.

    Of a ``nullable`` column null comes before all values or behind them. The bytes of one value are never the
    beginning of another's.
    """

    __slots__ = ("_decode", "_descending", "_encode", "_null", "present")

    def __init__(
        self, kind: type, *, descending: bool = False, nullable: bool = False, nulls_first: bool = False
    ) -> None:
        self._encode, self._decode = _CODECS[kind]
        self._descending = descending
        self._null = None if not nullable else _NULL_FIRST if nulls_first else _NULL_LAST
        self.present = b"" if self._null is None else _PRESENT
        """The beginning of the bytes of all values but null."""

    def encode(self, value: Any) -> bytes:
        """Returns the bytes. Raises an error for a value of another type."""
        if value is None and self._null is not None:
            return self._null
        data = self._encode(value)
        data = data.translate(OPPOSITE) if self._descending else data
        return self.present + data

    def beginning(self, text: str) -> bytes:
        """Returns the beginning of the bytes of all texts that begin with this one."""
        data = text.encode().replace(b"\x00", b"\x00\xff")
        return self.present + (data.translate(OPPOSITE) if self._descending else data)

    def decode(self, data: bytes, start: int) -> tuple[Any, int]:
        """Returns the value that begins at ``start``, and its end. Raises errors for other bytes."""
        if self._null is not None:
            there, start = _exactly(data, start, 1), start + 1
            if there == self._null:
                return None, start
            if there != _PRESENT:
                raise ValueError("neither null nor a value")
        return self._decode(data.translate(OPPOSITE) if self._descending else data, start)


_NULL_FIRST, _PRESENT, _NULL_LAST = b"\x00", b"\x01", b"\x02"


def successor(beginning: bytes) -> bytes | None:
    """Returns the first bytes behind all that have this beginning; None if nothing is behind."""
    cut = beginning.rstrip(b"\xff")
    return cut[:-1] + bytes([cut[-1] + 1]) if cut else None


def encode(codecs: Sequence[SortCodec], values: Sequence[Any]) -> bytes:
    """Returns the sort key of a tuple."""
    return b"".join(codec.encode(value) for codec, value in zip(codecs, values, strict=True))


def decode(codecs: Sequence[SortCodec], data: bytes) -> tuple[Any, ...]:
    """Returns the tuple of a sort key. Raises ``ValueError`` for bytes never returned by ``encode``."""
    values, at = [], 0
    for codec in codecs:
        try:
            value, at = codec.decode(data, at)
        except (ValueError, OverflowError) as error:
            raise ValueError("not the sort key of such a tuple") from error
        values.append(value)
    if at != len(data) or encode(codecs, values) != data:
        raise ValueError("not the sort key of such a tuple")
    return tuple(values)
