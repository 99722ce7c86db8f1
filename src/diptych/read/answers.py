"""What the queries of a read model return."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

import msgspec

D = TypeVar("D")


class Served(msgspec.Struct, frozen=True):
    """Which store gave an answer; ``reason`` says in a short token why it was not Redis."""

    store: Literal["redis", "sql"]
    reason: str | None = None


class PageOf(msgspec.Struct, Generic[D]):
    """A decoded page; ``next`` is the cursor of the page after it, None on the last."""

    items: list[D]
    next: str | None


class Document(msgspec.Struct, Generic[D], eq=False, gc=False):
    """The answer to a look-up: ``body`` holds the stored JSON bytes as they go out, None if there is no such row."""

    body: bytes | None
    served: Served
    document_type: type[D]

    def __bool__(self) -> bool:
        return self.body is not None

    def decode(self) -> D | None:
        """The document as its struct; None if there is no such row."""
        return None if self.body is None else msgspec.json.decode(self.body, type=self.document_type)


class Page(msgspec.Struct, Generic[D], eq=False, gc=False):
    """The answer to a list query: ``body`` holds ``{"items":[…],"next":…}`` in JSON bytes as they go out.

    ``set_aside`` is how many rows have their places in the page but are left out, since they do not fit their
    documents: so many fewer items than places it has. ``get`` of such a row raises ``UnreadableRowError``.
    """

    body: bytes
    served: Served
    document_type: type[D]
    set_aside: int = 0

    def decode(self) -> PageOf[D]:
        """The page with its documents as structs."""
        return msgspec.json.decode(self.body, type=PageOf[self.document_type])  # type: ignore[name-defined]
