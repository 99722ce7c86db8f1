"""One read model's declaration, checked and compiled: how a row becomes a document, a key and list entries.

Both routes to an answer, Redis and SQL, use this one projection, so they can't drift apart.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

import msgspec

from diptych.errors import Fault, InvalidMessage, WiringError
from diptych.ports import Entity, Row
from diptych.read.model import MAX_LIMIT, ListOrder, ReadModel
from diptych.read.ordering import SORTABLE, SortCodec

_KEY_TYPES = (str, int, datetime.date, uuid.UUID)
_BYTEWISE = "give its column no case-insensitive collation, and no CHAR type"
_encode = msgspec.json.Encoder().encode


class ListIndex:
    """One order of a read model's lists: its name in Redis, its columns, its entries and cursors."""

    def __init__(self, order: ListOrder, key: str, entity: Entity) -> None:
        self.order = order
        self.name = ",".join(order.columns)
        # The key comes last, so that no two rows are equal in the order.
        self.columns = order.columns if key in order.columns else (*order.columns, key)
        self._columns = [entity.columns[name] for name in self.columns]
        self._codec = SortCodec([column.type or str for column in self._columns])

    def sort_key(self, row: Row) -> bytes:
        """The row's place in the list, as bytes that sort."""
        return self._codec.encode([row[name] for name in self.columns])

    def entry(self, row: Row, key: bytes) -> bytes:
        """The member of the list's sorted set: place, key, and the key's length to find where it begins."""
        return self.sort_key(row) + key + len(key).to_bytes(4, "big")

    def sort_key_of(self, entry: bytes) -> bytes:
        """The place in an entry."""
        return entry[: -4 - int.from_bytes(entry[-4:], "big")]

    def cursor(self, sort_key: bytes) -> str:
        """The place as an opaque text that is safe in a URL."""
        return base64.urlsafe_b64encode(sort_key).rstrip(b"=").decode()

    def place(self, cursor: str) -> tuple[bytes, tuple[Any, ...]]:
        """The sort key of a cursor, and the values in it. Raises ``InvalidMessage`` for what is no cursor."""
        try:
            sort_key = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
            values = self._codec.decode(sort_key)
        except (ValueError, binascii.Error):
            values = ()
        if not values or not all(column.holds(v) for column, v in zip(self._columns, values, strict=True)):
            raise InvalidMessage("page", [Fault("after", "is not a cursor that this list has given")])
        return sort_key, values


class Projection:
    """The compiled declaration. Raises ``WiringError`` that lists every fault of the declaration."""

    def __init__(self, model: type[ReadModel[Any]], entity: Entity) -> None:
        _check(model, entity)
        self.name = model.__name__
        self.model = model
        self.entity = entity
        self.document = model.document
        self.key: str = model.key.key
        self.fields = tuple(field.name for field in msgspec.structs.fields(model.document))
        self.lists = tuple(ListIndex(order, self.key, entity) for order in model.lists)
        ordered = (name for index in self.lists for name in index.columns)
        self.columns = tuple(dict.fromkeys((*self.fields, self.key, *ordered)))
        self._key_type = entity.columns[self.key].type

    def body(self, row: Row) -> bytes:
        """The document of a row as JSON bytes."""
        return _encode(msgspec.convert({name: row[name] for name in self.fields}, self.document))

    def key_of(self, row: Row) -> bytes:
        """The address of a row's document in Redis."""
        return key_bytes(row[self.key])

    def looked_for(self, key: Any) -> Any:
        """A key given by a caller, in the key column's type. Raises ``InvalidMessage`` for another type."""
        if type(key) is self._key_type:
            return key
        try:
            return msgspec.convert(key, self._key_type, strict=False)
        except msgspec.ValidationError:
            expected = getattr(self._key_type, "__name__", "value")
            raise InvalidMessage(self.name, [Fault(self.key, f"must be a {expected}")]) from None

    def list_by(self, order: ListOrder | None) -> ListIndex:
        """The declared list of this order, or the first. Raises ``WiringError`` for one that is not declared."""
        for index in self.lists:
            if order is None or index.order == order:
                return index
        raise WiringError([f"{self.name} has no list {order or ''}: add it to `lists` of {self.name}"])


def key_bytes(value: Any) -> bytes:
    """A key as it stands in Redis: readable, and different for different values of its type."""
    return str(value).encode("utf-8", "surrogatepass")


def check_limit(limit: Any) -> None:
    """Raises ``InvalidMessage`` unless the limit of a page is 1 to 500."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidMessage("page", [Fault("limit", f"must be a whole number from 1 to {MAX_LIMIT}")])


def page_body(bodies: Sequence[bytes], cursor: str | None) -> bytes:
    """The JSON of a page, put together from documents that are JSON already. A cursor needs no escaping."""
    end = b'"%s"}' % cursor.encode() if cursor is not None else b"null}"
    return b'{"items":[' + b",".join(bodies) + b'],"next":' + end


def _check(model: type[ReadModel[Any]], entity: Entity) -> None:
    problems = [*_check_names(model, entity)]
    if not problems:
        problems += _check_key(model, entity.columns)
        problems += _check_lists(model, entity.columns)
        problems += _check_nulls(model, entity.columns)
    if problems:
        raise WiringError([f"{model.__name__}: {problem}" for problem in problems])


def _check_names(model: type[ReadModel[Any]], entity: Entity) -> list[str]:
    problems = []
    for name in ("key", "document"):
        if not hasattr(model, name):
            problems.append(f"declares no `{name}`: see the reference of ReadModel")
    if problems:
        return problems
    document: Any = model.document
    if not (isinstance(document, type) and issubclass(document, msgspec.Struct)):
        return ["`document` must be a msgspec.Struct: its fields are what goes out"]
    fields = [field.name for field in msgspec.structs.fields(model.document)]
    listed = [name for order in model.lists for name in order.columns]
    for name in dict.fromkeys((model.key.key, *fields, *listed)):
        if name not in entity.columns:
            known = ", ".join(entity.columns)
            problems.append(f"{name!r} is not a mapped column of {entity.name}; its columns are: {known}")
    return problems


def _check_nulls(model: type[ReadModel[Any]], columns: Mapping[str, Any]) -> list[str]:
    problems = []
    hints = get_type_hints(model.document, include_extras=True)
    for name in (field.name for field in msgspec.structs.fields(model.document)):
        try:
            msgspec.convert(None, hints[name])
        except msgspec.ValidationError:
            if columns[name].nullable:
                problems.append(
                    f"the column {name!r} may be null, but the document's field may not: write `… | None`"
                )
    return problems


def _check_key(model: type[ReadModel[Any]], columns: Mapping[str, Any]) -> list[str]:
    # A key that two rows may share, or that is equal for different bytes, would let one document's changes
    # overtake another's: positions are in commit order for one row only.
    column = columns[model.key.key]
    rules = {
        "must be NOT NULL": not column.nullable,
        "must be unique by itself (unique=True or the primary key, not deferrable)": column.unique,
        f"must be compared byte for byte: {_BYTEWISE}": column.bytewise,
        f"must be of one of the types {_names(_KEY_TYPES)}": column.type in _KEY_TYPES,
    }
    return [f"the key {column.name!r} {rule}" for rule, holds in rules.items() if not holds]


def _check_lists(model: type[ReadModel[Any]], columns: Mapping[str, Any]) -> list[str]:
    problems = []
    for order in model.lists:
        for column in (columns[name] for name in order.columns):
            if column.nullable:
                problems.append(
                    f"{order}: {column.name!r} must be NOT NULL, since databases disagree where null sorts"
                )
            if not column.bytewise:
                problems.append(f"{order}: {column.name!r} must be compared byte for byte: {_BYTEWISE}")
            if column.type not in SORTABLE:
                problems.append(f"{order}: {column.name!r} must be of one of the types {_names(SORTABLE)}")
    return problems


def _names(types: Sequence[type]) -> str:
    return ", ".join(kind.__name__ for kind in types)
