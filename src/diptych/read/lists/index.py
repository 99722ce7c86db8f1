"""The entries and the page cursors of a list, the same for both routes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from diptych.errors import Fault, InvalidMessage
from diptych.read.declaration import ListOrder
from diptych.read.lists.ordering import SortCodec, sorted_as
from diptych.read.set_aside import Misfit, reason_of
from diptych.sql.description import Entity, Row


class ListIndex:
    """A list of a read model: its order and columns, its name in Redis, its list entries and page cursors."""

    def __init__(self, order: ListOrder, key: Sequence[str], entity: Entity) -> None:
        self.order = order
        self.name = ",".join(order.columns)
        # The read model's key comes last, so that no two rows are equal in the order.
        self.columns = (*order.columns, *(name for name in key if name not in order.columns))
        self._columns = [entity.columns[name] for name in self.columns]
        types = [sorted_as(column) or str for column in self._columns]
        self._codec, self._codecs = SortCodec(types), [SortCodec([kind]) for kind in types]
        self._texts: list[Mapping[Any, str]] = [column.texts or {} for column in self._columns]
        self._values = [{text: value for value, text in texts.items()} for texts in self._texts]

    def sort_key(self, row: Row) -> bytes:
        """Returns the row's place in the list as sortable bytes; empty for a row whose values can't be ordered."""
        values = [row[name] for name in self.columns]
        try:
            return self._codec.encode(
                [texts.get(value, value) for texts, value in zip(self._texts, values, strict=True)]
            )
        except Exception:
            return b""

    def entry(self, sort_key: bytes, key: bytes) -> bytes:
        """Returns the list entry, a member of the list's sorted set: place, key, and the key's length in 4 bytes.

        Empty for a row without a place.
        """
        return sort_key and sort_key + key + len(key).to_bytes(4, "big")

    def misfit(self, row: Row) -> Misfit:
        """Returns the misfit of a row without a place in the list."""
        for name, texts, codec in zip(self.columns, self._texts, self._codecs, strict=True):
            try:
                codec.encode([texts.get(row[name], row[name])])
            except Exception:
                return Misfit(name, reason_of(row[name], "can't be ordered"))
        return Misfit(self.name, "can't be ordered")

    def sort_key_of(self, entry: bytes) -> bytes:
        """Returns the place in a list entry."""
        return entry[: -4 - int.from_bytes(entry[-4:], "big")]

    def cursor(self, sort_key: bytes) -> str:
        """Returns the page cursor of a place: an opaque text, safe in a URL."""
        return base64.urlsafe_b64encode(sort_key).rstrip(b"=").decode()

    def place(self, cursor: str) -> tuple[bytes, tuple[Any, ...]]:
        """Returns the place in a page cursor and its values. Raises ``InvalidMessage`` for any other text."""
        try:
            sort_key = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
            decoded = zip(self._columns, self._values, self._codec.decode(sort_key), strict=True)
            return sort_key, tuple(column.fit(values.get(value, value)) for column, values, value in decoded)
        except (ValueError, binascii.Error):
            raise InvalidMessage(
                "page", [Fault("after", "is not a cursor that this list has given")]
            ) from None
