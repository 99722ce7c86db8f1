"""Addresses of documents: a read model's key, and further unique columns by which a document is found."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from diptych.read.set_aside import KEYLESS
from diptych.sql.description import Column, Row

_encode = msgspec.json.Encoder().encode


def key_bytes(value: Any) -> bytes:
    """Returns a value as bytes for Redis: readable, and different for different values of a type."""
    return str(value).encode("utf-8", "surrogatepass")


class Address(abc.ABC):
    """Columns, by their ``names``, of which no two rows have the same values.

    A value of an address is its column's value, or a tuple of the values of several columns.
    """

    names: tuple[str, ...]

    @abc.abstractmethod
    def fit(self, value: Any) -> Any:
        """Returns a caller's value in the form of the columns. Raises ``ValueError`` for one that no row can have."""

    @abc.abstractmethod
    def encoded(self, value: Any) -> bytes:
        """Returns the key in Redis of the document at this value."""

    @abc.abstractmethod
    def of(self, row: Row) -> bytes:
        """Returns the key in Redis of a row's document; ``KEYLESS`` for a row without this address."""

    @abc.abstractmethod
    def value_of(self, row: Row) -> Any:
        """Returns a row's value of this address."""

    @abc.abstractmethod
    def decoded(self, where: bytes) -> Any:
        """Returns the value at this key in Redis. Raises ``ValueError`` for a key that no row can have."""


class Located(NamedTuple):
    """A value of an address."""

    address: Address
    value: Any


class Key(Address):
    """The key of a read model, of a single column.

    Rows whose key can't be read, or is null though it must not be, share ``KEYLESS``, for which nobody can ask.
    """

    def __init__(self, column: Column) -> None:
        self.names = (column.name,)
        self._name = column.name
        self._column = column
        self._type = column.type
        self._as_it_is = column.type if column.has_one_form else None

    def fit(self, value: Any) -> Any:
        return value if type(value) is self._as_it_is else self._column.fit(value)

    encoded = staticmethod(key_bytes)

    def of(self, row: Row) -> bytes:
        value = row[self._name]
        return self.encoded(value) if self._type is None or isinstance(value, self._type) else KEYLESS

    def value_of(self, row: Row) -> Any:
        return row[self._name]

    def decoded(self, where: bytes) -> Any:
        text = self._text_in(where).decode("utf-8", "surrogatepass")
        return _checked(self, where, lambda: _converted(text, self._type, strict=False))

    def _text_in(self, where: bytes) -> bytes:
        return where


class CompositeKey(Address):
    """The key of a read model, of several columns. ``model`` is the read model's name."""

    def __init__(self, model: str, columns: Sequence[Column]) -> None:
        self.names = tuple(column.name for column in columns)
        self._model = model
        self._columns = columns

    def fit(self, value: Any) -> Any:
        if not isinstance(value, tuple) or len(value) != len(self._columns):
            raise TypeError(
                f"the key of {self._model} is of {len(self.names)} columns: "
                f"get(({', '.join(self.names)})), a tuple of their values"
            )
        return tuple(column.fit(part) for column, part in zip(self._columns, value, strict=True))

    def encoded(self, value: Any) -> bytes:
        # JSON tells where each value begins, whatever is in a text: no two tuples have the same.
        return _encode(value)

    def of(self, row: Row) -> bytes:
        value = self.value_of(row)
        for column, part in zip(self._columns, value, strict=True):
            if column.type is not None and not isinstance(part, column.type):
                return KEYLESS
        return self.encoded(value)

    def value_of(self, row: Row) -> Any:
        return tuple(row[name] for name in self.names)

    def decoded(self, where: bytes) -> Any:
        def parts() -> tuple[Any, ...]:
            found = zip(msgspec.json.decode(where, type=list[Any]), self._columns, strict=True)
            return tuple(_converted(part, column.type, strict=True) for part, column in found)

        return _checked(self, where, parts)


class SecondAddress(Key):
    """A unique column beside the key. A row with null, or an unreadable value, in it has no such address.

    What is stored there is a copy of the document, and not the key: a copy is made from a row with this very value,
    whatever becomes of the row's other addresses meanwhile.
    """

    def __init__(self, column: Column) -> None:
        super().__init__(column)
        # Keys are UTF-8, which has no such byte.
        self._prefix = KEYLESS + key_bytes(column.name) + b":"

    def encoded(self, value: Any) -> bytes:
        return self._prefix + key_bytes(value)

    def _text_in(self, where: bytes) -> bytes:
        if not where.startswith(self._prefix):
            raise ValueError("is a key of another address")
        return where[len(self._prefix) :]


def is_second(where: bytes) -> bool:
    """Returns whether a key in Redis is that of a second address."""
    return where.startswith(KEYLESS) and where != KEYLESS


def located_at(addresses: Sequence[Address], where: bytes) -> Located | None:
    """Returns the value at a key in Redis, of that of the addresses which it is of; None if no row can be there."""
    for address in addresses[1:] if is_second(where) else addresses[:1]:
        try:
            return Located(address, address.decoded(where))
        except ValueError:
            continue
    return None


def _converted(part: Any, kind: type | None, *, strict: bool) -> Any:
    return part if kind is None else msgspec.convert(part, kind, strict=strict)


def _checked(address: Address, where: bytes, decode: Callable[[], Any]) -> Any:
    """Returns what ``decode`` makes of a key, if that is the key of this value and of no other."""
    try:
        value = decode()
        if address.encoded(value) == where:
            return value
    except (msgspec.MsgspecError, ValueError, TypeError):
        pass
    raise ValueError("is a key that no row can have")
