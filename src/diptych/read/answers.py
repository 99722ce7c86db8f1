"""The answers of a read model to queries."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar, get_args

import msgspec

from diptych.schemas import answer_schema, struct_schema

D = TypeVar("D")


class Served(msgspec.Struct, frozen=True):
    """The store of an answer; ``reason`` tells in a short token why SQL answered, None if Redis did.

    >>> from diptych import Served
    >>> Served("sql", "no-redis").store
    'sql'
    """

    store: Literal["redis", "sql"]
    reason: str | None = None


class PageOf(msgspec.Struct, Generic[D]):
    """A decoded page, with the page cursors of its neighbours.

    ``next`` is the cursor of the following page, None on the last page; ``previous`` that of the page in front, None
    on the first page. ``total`` is the number of all selected rows, None if not asked; rows that are set aside count.

    >>> from diptych import PageOf
    >>> page = PageOf(items=["Dune", "Emma"], next=None)
    >>> len(page.items), page.next is None
    (2, True)
    """

    items: list[D]
    next: str | None
    previous: str | None = None
    total: int | None = None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        return struct_schema(source)


class Document(msgspec.Struct, Generic[D], eq=False, gc=False):
    """The answer to a look-up by key; ``body`` is the stored JSON as sent to clients, None if there is no such row.

    An answer without a row is falsy.

    >>> from msgspec import Struct
    >>> from diptych import Document, Served
    >>> class Book(Struct):
    ...     title: str
    >>> Document(b'{"title":"Dune"}', Served("redis"), Book).decode()
    Book(title='Dune')
    >>> bool(Document(None, Served("redis"), Book))
    False
    """

    body: bytes | None
    served: Served
    document_type: type[D]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        (document,) = get_args(source) or (dict,)
        return answer_schema(cls, document | None)

    def __bool__(self) -> bool:
        return self.body is not None

    def decode(self) -> D | None:
        """Returns the document as its struct; None if there is no such row."""
        return None if self.body is None else msgspec.json.decode(self.body, type=self.document_type)


class Page(msgspec.Struct, Generic[D], eq=False, gc=False):
    """The answer to a query for a page; ``body`` is ``{"items":[…],"next":…}`` in JSON as sent to clients.

    It has ``previous`` on pages after the first, and ``total`` if asked for.

    ``set_aside`` is the number of rows that have places in the page but are left out, since they do not fit their
    documents: the page has fewer items than places by this number. ``get`` of such a row raises
    ``UnreadableRowError``.

    >>> from msgspec import Struct
    >>> from diptych import Page, Served
    >>> class Book(Struct):
    ...     title: str
    >>> page = Page(b'{"items":[{"title":"Dune"}],"next":null}', Served("redis"), Book)
    >>> page.decode().items
    [Book(title='Dune')]
    """

    body: bytes
    served: Served
    document_type: type[D]
    set_aside: int = 0

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        (document,) = get_args(source) or (dict,)
        return answer_schema(cls, PageOf[document])  # type: ignore[valid-type]

    def decode(self) -> PageOf[D]:
        """Returns the page with its documents as structs."""
        return msgspec.json.decode(self.body, type=PageOf[self.document_type])  # type: ignore[name-defined]
