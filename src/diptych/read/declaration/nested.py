"""The declaration of nested fields: documents of other rows, their number, sums of their columns, computed values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from diptych.sql.comparison import sorting_by
from diptych.sql.conditions.parse import condition_of
from diptych.sql.conditions.tree import Condition
from diptych.sql.description import Sorting

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Nested(msgspec.Struct, frozen=True):
    """A field made from the rows of a relationship. Made by ``one``, ``many``, ``count`` and the other functions.

    ``kind`` is the name of the function. ``order``, ``limit`` and ``where`` choose the rows, ``column`` is a mapped
    attribute of theirs. ``nested`` are the fields of the rows' own documents that are no columns.
    """

    kind: str
    relationship: Any
    column: Any = None
    order: tuple[Sorting, ...] = ()
    limit: int | None = None
    where: Condition | None = None
    places: int | None = None
    nested: Mapping[str, Any] = _NOTHING
    depth: int | None = None


class Computed(msgspec.Struct, frozen=True):
    """A field computed from own columns of the row. Made by ``computed``."""

    function: Callable[..., Any]
    columns: tuple[Any, ...]


def one(
    relationship: Any,
    column: Any = None,
    *,
    order: Any = None,
    where: Any = None,
    nested: Mapping[str, Nested | Computed] = _NOTHING,
    depth: int | None = None,
) -> Nested:
    """Declares a field with the document of the row that a relationship leads to; None if there is none.

    The field's type is a struct, whose fields are columns of the related class, or ``nested``, as of a read model;
    with a ``column`` the field has the value of that column alone. Of a collection it is the first row in the
    ``order``, which has to be given then: ``one(Chat.messages, order=Message.id.desc())``. ``where`` is a condition
    on the row, as of a read model. ``depth``, of a relationship to the class itself, is the number of rows on the
    way: the field is in its own struct once more, and None below that depth.

    >>> from msgspec import Struct
    >>> from sqlalchemy import ForeignKey
    >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
    >>> from diptych import ReadModel, one
    >>> class Base(DeclarativeBase):
    ...     pass
    >>> class Publisher(Base):
    ...     __tablename__ = "publishers"
    ...     id: Mapped[int] = mapped_column(primary_key=True)
    ...     name: Mapped[str]
    >>> class Book(Base):
    ...     __tablename__ = "books"
    ...     id: Mapped[int] = mapped_column(primary_key=True)
    ...     title: Mapped[str]
    ...     publisher_id: Mapped[int | None] = mapped_column(ForeignKey(Publisher.id), index=True)
    ...     publisher: Mapped[Publisher | None] = relationship()
    >>> class PublisherDocument(Struct):
    ...     name: str
    >>> class BookDocument(Struct):
    ...     title: str
    ...     publisher: PublisherDocument | None
    >>> class BookReadModel(ReadModel[Book]):
    ...     key = Book.id
    ...     document = BookDocument
    ...     nested = {"publisher": one(Book.publisher)}
    """
    condition = None if where is None else condition_of(where)
    return Nested("one", relationship, column, _order(order), 1, condition, None, nested, depth)


def many(
    relationship: Any,
    column: Any = None,
    *,
    order: Any = None,
    limit: int | None = None,
    where: Any = None,
    nested: Mapping[str, Nested | Computed] = _NOTHING,
    depth: int | None = None,
) -> Nested:
    """Declares a field with the documents of the rows of a collection, at most ``limit`` of them.

    The field's type is a list of a struct, whose fields are columns of the related class, or ``nested``, as of a read
    model; with a ``column`` it is a list of the values of that column. The rows are in the ``order`` of a column, or
    of a tuple of columns, as in ``by``, and equal ones in the order of their primary key. ``where`` is their
    condition, as of a read model. ``depth`` is as in ``one``: the lists below that depth are empty. A row that is
    linked several times is there once.

    >>> import asyncio
    >>> from msgspec import Struct
    >>> from sqlalchemy import ForeignKey
    >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
    >>> from diptych import ConfigService, Diptych, Document, Query, ReadModel, average, count, many
    >>> class Base(DeclarativeBase):
    ...     pass
    >>> class Book(Base):
    ...     __tablename__ = "books"
    ...     id: Mapped[int] = mapped_column(primary_key=True)
    ...     title: Mapped[str]
    ...     reviews: Mapped[list["Review"]] = relationship()
    >>> class Review(Base):
    ...     __tablename__ = "reviews"
    ...     id: Mapped[int] = mapped_column(primary_key=True)
    ...     book_id: Mapped[int] = mapped_column(ForeignKey(Book.id), index=True)
    ...     stars: Mapped[int]
    ...     text: Mapped[str]
    >>> class ReviewDocument(Struct):
    ...     stars: int
    ...     text: str
    >>> class BookDocument(Struct):
    ...     title: str
    ...     reviews: list[ReviewDocument]
    ...     review_count: int
    ...     rating: float | None
    >>> class BookReadModel(ReadModel[Book]):
    ...     key = Book.id
    ...     document = BookDocument
    ...     nested = {
    ...         "reviews": many(Book.reviews, order=Review.id.desc(), limit=1),
    ...         "review_count": count(Book.reviews),
    ...         "rating": average(Book.reviews, Review.stars, places=2),
    ...     }
    >>> class GetBook(Query[Document[BookDocument]]):
    ...     id: int
    >>> class BookQueries:
    ...     def __init__(self, books: BookReadModel) -> None:
    ...         self.books = books
    ...     async def get(self, query: GetBook) -> Document[BookDocument]:
    ...         return await self.books.get(query.id)
    >>> async def main() -> None:
    ...     config = ConfigService(database_url="sqlite:///reviewed.db")
    ...     app = Diptych(config, models=Base, handlers=[BookQueries], read_models=[BookReadModel])
    ...     async with app:
    ...         async with app.orm.session() as session:
    ...             reviews = [Review(stars=5, text="Great"), Review(stars=4, text="Long")]
    ...             session.add(Book(id=1, title="Dune", reviews=reviews))
    ...         print((await app.ask(GetBook(1))).body)
    >>> asyncio.run(main())
    b'{"title":"Dune","reviews":[{"stars":4,"text":"Long"}],"review_count":2,"rating":4.5}'
    """
    condition = None if where is None else condition_of(where)
    return Nested("many", relationship, column, _order(order), limit, condition, None, nested, depth)


def count(relationship: Any, *, where: Any = None) -> Nested:
    """Declares a field with the number of rows of a collection, of those that fulfil ``where`` if it is given.

    >>> from diptych import count
    >>> count("Book.reviews").kind
    'count'
    """
    return Nested("count", relationship, where=None if where is None else condition_of(where))


def total(relationship: Any, column: Any, *, where: Any = None) -> Nested:
    """Declares a field with the sum of a column over the rows of a collection; 0 without rows.

    The column has whole numbers or is ``Numeric``: sums of floats would depend on the order of the rows. Nulls don't
    count. The sum is exact, and is written as the field declares it: ``int``, ``Decimal`` as text with the decimal
    places of the column, or ``float`` as a number. A total of whole numbers that needs more than 64 bits has no place
    in a list: its row is set aside if a list is in the order of it. ``where`` is a condition on the rows.

    >>> from diptych import total
    >>> total("Book.stock", "quantity").kind
    'total'
    """
    return Nested("total", relationship, column, where=None if where is None else condition_of(where))


def average(relationship: Any, column: Any, *, places: int, where: Any = None) -> Nested:
    """Declares a field with the average of a column over the rows of a collection; None without rows.

    It is made from the exact sum and number, and rounded half up, away from zero, to this number of decimal
    ``places``. It is written as the field declares it: ``Decimal`` as text, ``float`` as a number. The column and
    ``where`` are as in ``total``.

    >>> from diptych import average
    >>> average("Book.reviews", "stars", places=2).places
    2
    """
    condition = None if where is None else condition_of(where)
    return Nested("average", relationship, column, where=condition, places=places)


def minimum(relationship: Any, column: Any, *, where: Any = None) -> Nested:
    """Declares a field with the least value of a column over the rows of a collection; None without one.

    Values are in the order of lists (see ``by``); nulls don't count. ``where`` is a condition on the rows.

    >>> from diptych import minimum
    >>> minimum("Book.offers", "price").kind
    'minimum'
    """
    return Nested("minimum", relationship, column, where=None if where is None else condition_of(where))


def maximum(relationship: Any, column: Any, *, where: Any = None) -> Nested:
    """Declares a field with the greatest value of a column over the rows of a collection; see ``minimum``.

    >>> from diptych import maximum
    >>> maximum("Book.offers", "price").kind
    'maximum'
    """
    return Nested("maximum", relationship, column, where=None if where is None else condition_of(where))


def computed(function: Callable[..., Any], *columns: Any) -> Computed:
    """Declares a field with the value of a pure function of own columns of the row.

    The function gets their values in this order, and returns what fits the field. It is called for each document, by
    every process: the same values have to give the same result. A changed function needs another ``revision`` of the
    read model, or documents in Redis stay as the former one made them. A row for which it raises an error is set
    aside.

    >>> from msgspec import Struct
    >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    >>> from diptych import ReadModel, computed
    >>> class Base(DeclarativeBase):
    ...     pass
    >>> class Book(Base):
    ...     __tablename__ = "books"
    ...     id: Mapped[int] = mapped_column(primary_key=True)
    ...     title: Mapped[str]
    ...     year: Mapped[int]
    >>> def label_of(title: str, year: int) -> str:
    ...     return f"{title} ({year})"
    >>> class BookDocument(Struct):
    ...     title: str
    ...     label: str
    >>> class BookReadModel(ReadModel[Book]):
    ...     key = Book.id
    ...     document = BookDocument
    ...     nested = {"label": computed(label_of, Book.title, Book.year)}
    """
    return Computed(function, columns)


def _order(given: Any) -> tuple[Sorting, ...]:
    """Returns the sorting of one column or of several; ``each`` has its own place, in ``by``."""
    if given is None:
        return ()
    is_one = isinstance(given, Sorting) or not isinstance(given, tuple | list)
    several: Sequence[Any] = (given,) if is_one else given
    return tuple(sorting_by(column) for column in several)
