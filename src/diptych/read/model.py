"""Read models: declarations over a mapped class, for the handlers of queries."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from diptych.read.answers import Document, Page
from diptych.read.declaration import Declaration, ListOrder
from diptych.read.reader import Reader

E = TypeVar("E")

DEFAULT_LIMIT = 50
"""Number of documents of a page at most, if the caller names none."""


class ReadModel(Declaration, Generic[E]):
    """Documents made from the rows of a mapped class, answered as JSON bytes.

    A subclass declares them; handlers get an instance through their constructor. ``key`` is the unique column by
    which a document is found, ``document`` a msgspec struct whose fields are columns of the class, and ``lists`` are
    the orders of pages. ``joined`` has fields with values of other rows, see ``join``. Another ``revision`` (1 if not
    set) says that documents mean something else than before although they are declared alike: the read model is then
    built anew.

    >>> import asyncio
    >>> from msgspec import Struct
    >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    >>> from diptych import ConfigService, Diptych, Document, Page, Query, ReadModel, by
    >>> class Base(DeclarativeBase):
    ...     pass
    >>> class Book(Base):
    ...     __tablename__ = "books"
    ...     id: Mapped[int] = mapped_column(primary_key=True)
    ...     title: Mapped[str] = mapped_column(unique=True)
    >>> class BookDocument(Struct):
    ...     id: int
    ...     title: str
    >>> class BookReadModel(ReadModel[Book]):
    ...     key = Book.title
    ...     document = BookDocument
    ...     lists = (by(Book.title),)
    >>> class GetBook(Query[Document[BookDocument]]):
    ...     title: str
    >>> class ListBooks(Query[Page[BookDocument]]):
    ...     after: str | None = None
    >>> class BookQueries:
    ...     def __init__(self, books: BookReadModel) -> None:
    ...         self.books = books
    ...     async def get(self, query: GetBook) -> Document[BookDocument]:
    ...         return await self.books.get(query.title)
    ...     async def list(self, query: ListBooks) -> Page[BookDocument]:
    ...         return await self.books.page(by(Book.title), limit=20, after=query.after)
    >>> async def main() -> None:
    ...     config = ConfigService(database_url="sqlite:///books.db")
    ...     app = Diptych(config, models=Base, handlers=[BookQueries], read_models=[BookReadModel])
    ...     async with app:
    ...         await app.orm.create(Book, title="Dune")
    ...         print((await app.ask(GetBook("Dune"))).body)
    ...         print((await app.ask(ListBooks())).decode())
    >>> asyncio.run(main())
    b'{"id":1,"title":"Dune"}'
    PageOf(items=[BookDocument(id=1, title='Dune')], next=None)
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def get(self, key: Any) -> Coroutine[Any, Any, Document[Any]]:
        """Returns the document with this key; falsy if there is no such row.

        Raises ``UnreadableRowError`` for a row that does not fit the document, ``DatabaseUnavailableError`` if SQL
        has to answer and is away, ``RedisUnavailableError`` if Redis is away and critical.
        """
        return self._reader.get(key)

    def page(
        self, order: ListOrder | None = None, *, limit: int = DEFAULT_LIMIT, after: str | None = None
    ) -> Coroutine[Any, Any, Page[Any]]:
        """Returns at most ``limit`` (1 to 500) documents in this order (None: the first of ``lists``).

        ``after`` is the page cursor ``next`` of the page before. Rows that do not fit their documents hold their
        places and are left out (``Page.set_aside``); a page may be empty and yet have a next one. Raises
        ``InvalidMessage`` for a faulty limit or cursor, ``DatabaseUnavailableError`` and ``RedisUnavailableError``.
        """
        return self._reader.page(order, limit, after)
