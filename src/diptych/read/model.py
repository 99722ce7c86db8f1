"""Read models: declared once over a mapped class; and what their queries return."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import msgspec

if TYPE_CHECKING:
    from diptych.read.reader import Reader

E = TypeVar("E")
D = TypeVar("D")

DEFAULT_LIMIT = 50
MAX_LIMIT = 500


class ListOrder(msgspec.Struct, frozen=True):
    """The order of a list: attribute names and the classes they are of, the first counts most. Made by ``by``.

    What was given in place of an attribute has its text as name, and no class.
    """

    columns: tuple[str, ...]
    models: tuple[type | None, ...]

    def __str__(self) -> str:
        return f"by({', '.join(self.columns)})"


def by(*columns: Any) -> ListOrder:
    """The order of a list, as mapped attributes: ``by(Book.author, Book.title)``.

    It is ascending: text by code point, points in time with a zone by the instant, enums by the text that the
    database stores, which is the name unless the column says otherwise. Rows that are equal in all of them are
    ordered by the read model's key. What is no mapped attribute is refused when the application starts, where the
    read model's name is known.
    """
    classes = tuple(getattr(column, "class_", None) for column in columns)
    names = (str(c) if owner is None else str(c.key) for c, owner in zip(columns, classes, strict=True))
    return ListOrder(tuple(names), classes)


class Join(msgspec.Struct, frozen=True):
    """A field of a document that another row gives, as mapped attributes. Made by ``join``."""

    value: Any
    local: Any
    remote: Any


def join(value: Any, local: Any, remote: Any) -> Join:
    """A field from another row, as mapped attributes: ``join(Author.name, Book.author_id, Author.id)``.

    The field is the ``value`` of the row whose ``remote`` equals this row's ``local``, None if there is none.
    ``remote`` has to be unique; an index on ``local`` keeps changes of the other row cheap.
    """
    return Join(value, local, remote)


class ReadModel(Generic[E]):
    """Documents made from the rows of one mapped class, answered as bytes.

    Declared as a subclass; handlers get an instance through their constructor::

        class BookReadModel(ReadModel[Book]):
            key = Book.title                      # address of a document: not null, unique
            document = BookDocument               # a msgspec struct; its fields are columns of Book
            lists = (by(Book.title),)             # the orders it can be paged in

    Fields may come from other rows, and a ``revision`` says that documents mean something else than before though
    they are declared alike (the read model is then built anew)::

            joined = {"author_name": join(Author.name, Book.author_id, Author.id)}
            revision = 2
    """

    key: ClassVar[Any]
    document: ClassVar[type[msgspec.Struct]]
    lists: ClassVar[tuple[ListOrder, ...]] = ()
    joined: ClassVar[Mapping[str, Join]] = MappingProxyType({})
    revision: ClassVar[int] = 1

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def get(self, key: Any) -> Coroutine[Any, Any, Document[Any]]:
        """The document with this key; falsy if there is none.

        Raises ``UnreadableRowError`` if there is a row that does not fit the document, ``DatabaseUnavailableError``
        if SQL has to answer and is away, ``RedisUnavailableError`` if Redis is away and critical.
        """
        return self._reader.get(key)

    def page(
        self, order: ListOrder | None = None, *, limit: int = DEFAULT_LIMIT, after: str | None = None
    ) -> Coroutine[Any, Any, Page[Any]]:
        """At most ``limit`` (1 to 500) documents in this order (the first of ``lists``, if not given).

        ``after`` is the cursor that the page before gave as ``next``. Rows that do not fit their documents hold their
        places and are left out (``Page.set_aside``); a page may be empty and yet have a next one. Raises
        ``InvalidMessage`` for a faulty limit or cursor, ``DatabaseUnavailableError`` and ``RedisUnavailableError``.
        """
        return self._reader.page(order, limit, after)


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
