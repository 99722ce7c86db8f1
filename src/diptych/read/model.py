"""Read models: declared once over a mapped class, asked by the handlers of queries."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from diptych.read.answers import Document, Page
from diptych.read.declaration import Declaration, ListOrder
from diptych.read.reader import Reader

E = TypeVar("E")

DEFAULT_LIMIT = 50


class ReadModel(Declaration, Generic[E]):
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
