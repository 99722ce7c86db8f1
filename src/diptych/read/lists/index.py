"""The entries and the page cursors of a list, the same for both routes."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diptych.errors import Fault, InvalidMessage
from diptych.read.declaration import Collection, ListOrder
from diptych.read.lists.ordering import SortCodec, decode, encode, sorted_as
from diptych.read.set_aside import Misfit, reason_of
from diptych.sql.conditions.tree import Condition, both, fitted, predicate_of
from diptych.sql.description import Entity, Row, Sorting


class ListIndex:
    """A list of a read model: its order and columns, its name in Redis, its list entries and page cursors.

    It has the rows that fulfil the condition ``where``: the list's own and that of the read model, ``shown``. With a
    ``collection``, a row has an entry for each value of its elements. The column number ``each_at`` has that value,
    and is called like the relationship, by ``entity`` too.
    """

    def __init__(
        self,
        order: ListOrder,
        key: Sequence[str],
        entity: Entity,
        shown: Condition | None = None,
        collection: Collection | None = None,
    ) -> None:
        self.order = order
        self.name = order.name
        self.key = tuple(key)
        # The read model's key comes last, so that no two rows are equal in the order.
        tied = (Sorting(name, entity.model) for name in key if name not in order.columns)
        self.sorted_by = (*order.sorted_by, *tied)
        self.columns = tuple(sorting.name for sorting in self.sorted_by)
        self.entity = entity
        self.collection = collection
        self.each_at = None if collection is None else self.columns.index(collection.name)
        self._columns = [entity.columns[name] for name in self.columns]
        self._codecs = [
            SortCodec(
                sorted_as(column) or str,
                descending=sorting.descending,
                nullable=column.nullable,
                nulls_first=sorting.nulls_first,
            )
            for sorting, column in zip(self.sorted_by, self._columns, strict=True)
        ]
        self._texts: list[Mapping[Any, str]] = [column.texts or {} for column in self._columns]
        whole = zip(self.columns, self._texts, self._codecs, strict=True)
        self._own = [each for at, each in enumerate(whole) if at != self.each_at]
        self._own_codecs = [codec for _, _, codec in self._own]
        self.own_columns = tuple(name for name, _, _ in self._own)
        self._values = [{text: value for value, text in texts.items()} for texts in self._texts]
        self.own_where = None if order.where is None else fitted(order.where, entity)
        self.where = both(shown, self.own_where)
        self._has = None if self.where is None else predicate_of(self.where, entity)

    def declared(self) -> list[list[Any]]:
        """Returns the directions of the columns for the fingerprint: none for ascending order without nulls."""
        return [
            [sorting.descending, sorting.nulls_first if column.nullable else None]
            if sorting.descending or column.nullable
            else []
            for sorting, column in zip(self.sorted_by, self._columns, strict=True)
        ]

    def sort_key(self, row: Row) -> bytes | None:
        """Returns the row's place in the list as sortable bytes; None for a row that the list leaves out.

        Empty for a row whose values can't be ordered. The value of an element is not in it.
        """
        if self._has is not None and not self._has(row):
            return None
        values = [row[name] for name in self.own_columns]
        try:
            return encode(
                self._own_codecs,
                [texts.get(value, value) for (_, texts, _), value in zip(self._own, values, strict=True)],
            )
        except Exception:
            return b""

    def encoded(self, values: Sequence[Any], *, at: int = 0) -> bytes:
        """Returns the bytes of values of the columns from number ``at`` on. Raises an error for others."""
        texts = self._texts[at : at + len(values)]
        codecs = self._codecs[at : at + len(values)]
        return encode(codecs, [known.get(value, value) for known, value in zip(texts, values, strict=True)])

    def fit(self, at: int, value: Any) -> Any:
        """Returns a value in the form held by a column. Raises ``ValueError`` for one that can't be there."""
        column = self._columns[at]
        if value is not None:
            return column.fit(value)
        if not column.nullable:
            raise ValueError("is never null")
        return None

    def codec(self, at: int) -> SortCodec | None:
        """Returns the codec of a column, None behind the last one."""
        return self._codecs[at] if at < len(self._codecs) else None

    def is_text(self, at: int) -> bool:
        """Returns True for a column of text."""
        return self._columns[at].type is str and self._columns[at].texts is None

    def entry(self, sort_key: bytes | None, key: bytes) -> bytes:
        """Returns the list entry, a member of the list's sorted set: place, key, and the key's length in 4 bytes.

        Empty for a row without a place.
        """
        return sort_key + key + len(key).to_bytes(4, "big") if sort_key else b""

    def entries(self, row: Row, sort_key: bytes | None, key: bytes) -> bytes:
        """Returns the list entry of a row with this place; with a ``collection``, all of its entries, packed.

        There is one for each value, however many elements have it, and none for a value that can't be ordered.
        """
        if self.collection is None or self.each_at is None or not sort_key:
            return self.entry(sort_key, key)
        at = self.each_at
        before = self.encoded([row[name] for name in self.columns[:at]])
        behind = self.encoded([row[name] for name in self.columns[at + 1 :]], at=at + 1)
        values: dict[bytes, None] = {}
        for value in row[self.collection.field]:
            with contextlib.suppress(Exception):
                values[self.encoded([value], at=at)] = None
        return packed(self.entry(before + value + behind, key) for value in values)

    def misfit(self, row: Row) -> Misfit:
        """Returns the misfit of a row without a place in the list."""
        for name, texts, codec in self._own:
            try:
                codec.encode(texts.get(row[name], row[name]))
            except Exception:
                return Misfit(name, reason_of(row[name], "can't be ordered"))
        return Misfit(self.name, "can't be ordered")

    def sort_key_of(self, entry: bytes) -> bytes:
        """Returns the place in a list entry."""
        return entry[: -4 - int.from_bytes(entry[-4:], "big")]

    def cursor(self, sort_key: bytes) -> str:
        """Returns the page cursor of a place: an opaque text, safe in a URL."""
        return base64.urlsafe_b64encode(sort_key).rstrip(b"=").decode()

    def place(self, cursor: str, name: str = "after", *, at: int = 0) -> tuple[bytes, tuple[Any, ...]]:
        """Returns the place in a page cursor, and its values of the columns from number ``at`` on.

        Raises ``InvalidMessage`` for any other text as the argument ``name``.
        """
        try:
            sort_key = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
            values = decode(self._codecs[at:], sort_key)
            decoded = zip(self._columns[at:], self._values[at:], values, strict=True)
            return sort_key, tuple(
                None if value is None else column.fit(values.get(value, value))
                for column, values, value in decoded
            )
        except (ValueError, binascii.Error):
            raise InvalidMessage("page", [Fault(name, "is not a cursor that this list has given")]) from None


def packed(entries: Iterable[bytes]) -> bytes:
    """Returns several entries of a row in a list, each behind its length in 4 bytes."""
    return b"".join(len(entry).to_bytes(4, "big") + entry for entry in entries)


def unpacked(entries: bytes) -> list[bytes]:
    """Returns entries again that were packed."""
    found, at = [], 0
    while at < len(entries):
        start = at + 4
        at = start + int.from_bytes(entries[at:start], "big")
        found.append(entries[start:at])
    return found
