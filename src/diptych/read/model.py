"""Read models: declarations over a mapped class, for the handlers of queries."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Generic, TypeVar

from msgspec import UNSET, UnsetType

from diptych.read.addresses import Address
from diptych.read.answers import Document, Page
from diptych.read.declaration import Declaration, ListOrder
from diptych.read.reader import Reader
from diptych.schemas import attach

E = TypeVar("E")

DEFAULT_LIMIT = 50
"""Number of documents of a page at most, if the caller names none."""


class ReadModel(Declaration, Generic[E]):
    """Documents made from the rows of a mapped class, answered as JSON bytes.

    A subclass declares them; handlers get an instance through their constructor. ``key`` is the unique column by
    which a document is found, or a tuple of columns that are unique together. ``also`` has further unique columns
    by which the same documents are found, each for the price of a copy in Redis; of a row with null there is none.
    ``document`` is a msgspec struct whose fields are columns of the class, or of ``joined`` or ``nested``, and
    ``lists`` are the orders of pages. ``joined`` has fields with values of other rows, see ``join``. ``nested`` has
    fields made from the rows along relationships, as documents, values and numbers, or computed from own columns:
    see ``one``, ``many``, ``count``, ``total``, ``average``, ``minimum``, ``maximum`` and ``computed``. ``where``
    is a condition: a row that does not fulfil it has no document, as if it were deleted. Conditions compare columns
    of the class with constants (``Book.stock > 0``, ``Book.archived.is_(False)``, ``between``, ``in_``), joined by
    SQLAlchemy's ``and_``, ``or_`` and ``not_``. Another ``revision`` (1 if not set) says that documents mean
    something else than before although they are declared alike: the read model is then built anew.

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
    PageOf(items=[BookDocument(id=1, title='Dune')], next=None, previous=None, total=None)
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        attach(getattr(cls, "document", None))

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._key = reader.key

    def get(self, key: Any = UNSET, /, **also: Any) -> Coroutine[Any, Any, Document[Any]]:
        """Returns the document with this key, or with this value in a column of ``also``; falsy without such a row.

        The key is a tuple if it is of several columns, ``lines.get((7, 2))``; a column of ``also`` is named:
        ``books.get(isbn="9780441013593")``. A value that the column can't hold is not there. Raises
        ``UnreadableRowError`` for a row that does not fit the document, ``DatabaseUnavailableError`` if SQL has to
        answer and is away, ``RedisUnavailableError`` if Redis is away and critical, ``TypeError`` for a key that is
        no tuple of its columns, and ``WiringError`` for a column that ``also`` does not name.

        >>> import asyncio
        >>> from msgspec import Struct
        >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
        >>> from diptych import ConfigService, Diptych, Document, Query, ReadModel
        >>> class Base(DeclarativeBase):
        ...     pass
        >>> class OrderLine(Base):
        ...     __tablename__ = "order_lines"
        ...     order_id: Mapped[int] = mapped_column(primary_key=True)
        ...     number: Mapped[int] = mapped_column(primary_key=True)
        ...     parcel: Mapped[int | None] = mapped_column(unique=True)
        ...     product: Mapped[str]
        >>> class LineDocument(Struct):
        ...     product: str
        >>> class LineReadModel(ReadModel[OrderLine]):
        ...     key = (OrderLine.order_id, OrderLine.number)
        ...     also = (OrderLine.parcel,)
        ...     document = LineDocument
        >>> class GetLine(Query[Document[LineDocument]]):
        ...     order_id: int
        ...     number: int
        >>> class GetLineIn(Query[Document[LineDocument]]):
        ...     parcel: int
        >>> class LineQueries:
        ...     def __init__(self, lines: LineReadModel) -> None:
        ...         self.lines = lines
        ...     async def get(self, query: GetLine) -> Document[LineDocument]:
        ...         return await self.lines.get((query.order_id, query.number))
        ...     async def get_in(self, query: GetLineIn) -> Document[LineDocument]:
        ...         return await self.lines.get(parcel=query.parcel)
        >>> async def main() -> None:
        ...     config = ConfigService(database_url="sqlite:///orders.db")
        ...     app = Diptych(config, models=Base, handlers=[LineQueries], read_models=[LineReadModel])
        ...     async with app:
        ...         await app.orm.create(OrderLine, order_id=7, number=2, parcel=31, product="Lamp")
        ...         for query in (GetLine(7, 2), GetLineIn(31), GetLineIn(32)):
        ...             print((await app.ask(query)).body)
        >>> asyncio.run(main())
        b'{"product":"Lamp"}'
        b'{"product":"Lamp"}'
        None
        """
        if also or key is UNSET:
            return self._get_by(key, also)
        return self._reader.get(self._key, key)

    def get_many(
        self, keys: Iterable[Any] | UnsetType = UNSET, /, **also: Iterable[Any]
    ) -> Coroutine[Any, Any, list[Document[Any]]]:
        """Returns the documents with these keys, at most 500, in the order of the keys; falsy without such a row.

        From Redis they are one ``MGET``, from SQL one ``SELECT`` (one for each 100 keys of several columns, all of
        the same moment); all of them come from the same store. A key that is there twice is answered twice. Values of
        a column of ``also`` are named: ``books.get_many(isbn=["9780441013593"])``. Otherwise keys are as in ``get``.

        Raises what ``get`` raises: ``UnreadableRowError``, for the first row that does not fit its document, since an
        answer without the row would say that there is no such row; then ``get`` answers each of the others.
        ``InvalidMessage`` for more than 500 keys.

        >>> import asyncio
        >>> from msgspec import Struct
        >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
        >>> from diptych import ConfigService, Diptych, Document, Query, ReadModel
        >>> class Base(DeclarativeBase):
        ...     pass
        >>> class Book(Base):
        ...     __tablename__ = "books"
        ...     id: Mapped[int] = mapped_column(primary_key=True)
        ...     title: Mapped[str]
        >>> class BookDocument(Struct):
        ...     id: int
        ...     title: str
        >>> class BookReadModel(ReadModel[Book]):
        ...     key = Book.id
        ...     document = BookDocument
        >>> class GetBasket(Query[list[Document[BookDocument]]]):
        ...     ids: list[int]
        >>> class BookQueries:
        ...     def __init__(self, books: BookReadModel) -> None:
        ...         self.books = books
        ...     async def get(self, query: GetBasket) -> list[Document[BookDocument]]:
        ...         return await self.books.get_many(query.ids)
        >>> async def main() -> None:
        ...     config = ConfigService(database_url="sqlite:///books.db")
        ...     app = Diptych(config, models=Base, handlers=[BookQueries], read_models=[BookReadModel])
        ...     async with app:
        ...         await app.orm.create_all(Book, [{"id": 1, "title": "Dune"}, {"id": 2, "title": "Emma"}])
        ...         print([document.body for document in await app.ask(GetBasket([2, 7, 1]))])
        >>> asyncio.run(main())
        [b'{"id":2,"title":"Emma"}', None, b'{"id":1,"title":"Dune"}']
        """
        if also or isinstance(keys, UnsetType):
            return self._reader.get_many(*self._second(keys, also))
        return self._reader.get_many(self._key, keys)

    def _get_by(self, key: Any, also: Mapping[str, Any]) -> Coroutine[Any, Any, Document[Any]]:
        return self._reader.get(*self._second(key, also))

    def _second(self, key: Any, also: Mapping[str, Any]) -> tuple[Address, Any]:
        address = self._reader.second_address([*(["the key"] if key is not UNSET else []), *also])
        [value] = also.values()
        return address, value

    def page(
        self,
        order: ListOrder | str | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        limit: int = DEFAULT_LIMIT,
        after: str | None = None,
        before: str | None = None,
        offset: int = 0,
        count: bool = False,
    ) -> Coroutine[Any, Any, Page[Any]]:
        """Returns at most ``limit`` (1 to 500) documents of a list, named by its name or order (None: the first).

        ``where`` selects rows by values of the list's leading columns: None for null, or a list of at most 20 values
        of the last of them. A range of the next column, by ``between`` or ``starts_with``, may follow. The page
        follows the page cursor ``after``, or comes before the cursor ``before``: a page tells the cursor of the page
        behind it, ``next``, and of the page in front, ``previous``. A numbered page skips ``offset`` rows, at most
        10,000. ``count`` asks for the ``total``, the number of all selected rows.

        Rows that do not fit their documents hold their places and are left out (``Page.set_aside``); a page may be
        empty and yet have a next one. Raises ``UnsupportedFilterError`` for a filter that the list can't serve,
        ``InvalidMessage`` for a faulty limit, offset or cursor, ``DatabaseUnavailableError`` and
        ``RedisUnavailableError``.
        """
        return self._reader.page(order, where, limit, after=after, before=before, offset=offset, count=count)
