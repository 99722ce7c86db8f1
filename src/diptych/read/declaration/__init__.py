"""The declaration of a read model: its key and other addresses, its document, its lists and its joined fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import msgspec

from diptych.sql.comparison import sorting_by
from diptych.sql.conditions.parse import condition_of
from diptych.sql.conditions.tree import Condition
from diptych.sql.description import ElementColumn, Entity, Sorting

if TYPE_CHECKING:
    from diptych.read.declaration.nested import Computed, Nested


class ListOrder(msgspec.Struct, frozen=True):
    """The order of a list: the sorting that counts most first, and the list's name. Made by ``by``.

    ``where`` is the condition of the rows in the list, None for all.
    """

    sorted_by: tuple[Sorting, ...]
    name: str
    where: Condition | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the attributes."""
        return tuple(sorting.name for sorting in self.sorted_by)

    def selects_as(self, other: ListOrder) -> bool:
        """Returns whether both are the same rows in the same order, whatever their names."""
        return self.sorted_by == other.sorted_by and self.where == other.where

    def __str__(self) -> str:
        given = [] if self.name == _name_of(self.sorted_by) else [f"name={self.name!r}"]
        given += [] if self.where is None else [f"where={self.where}"]
        return f"by({', '.join([*map(str, self.sorted_by), *given])})"


def by(*columns: Any, name: str | None = None, where: Any = None) -> ListOrder:
    """Returns the order of a list by mapped attributes, for ``lists`` of a read model and for ``ReadModel.page``.

    An attribute sorts in ascending order, or says otherwise: ``Book.price.desc()``, ``Book.price.nulls_first()``.
    Nulls come last in ascending order and first in descending order. Text is sorted by code point, points in time
    with a zone by the instant, enums by the text that the database stores, which is the name unless the column says
    otherwise. An attribute of another class has to be in ``joined``; filters call it like the field with its value.
    Rows that are equal in all attributes are in the order of the read model's key. ``name`` is the list's name, by
    default the names of its columns: ``author,title``. ``where`` is the condition of the rows in the list, as of a
    read model: see ``ReadModel``. What can't be served is refused when the application starts, where the read model's
    name is known.

    >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    >>> from diptych import by
    >>> class Base(DeclarativeBase):
    ...     pass
    >>> class Book(Base):
    ...     __tablename__ = "books"
    ...     id: Mapped[int] = mapped_column(primary_key=True)
    ...     author: Mapped[str]
    ...     title: Mapped[str]
    ...     price: Mapped[int | None]
    >>> print(by(Book.author, Book.title))
    by(author, title)
    >>> print(by(Book.author, Book.price.desc().nulls_last(), name="dearest"))
    by(author, price.desc().nulls_last(), name='dearest')
    >>> print(by(Book.price, where=Book.price > 0))
    by(price, where=price > 0)
    """
    sorted_by = tuple(map(_sorting, columns))
    condition = None if where is None else condition_of(where)
    return ListOrder(sorted_by, _name_of(sorted_by) if name is None else name, condition)


def _sorting(column: Any) -> Sorting:
    if isinstance(column, FieldOrder):
        first = column.descending if column.first is None else column.first
        return Sorting(column.name, DocumentField, column.descending, first)
    return column if isinstance(column, Sorting) else sorting_by(column)


def _name_of(sorted_by: Sequence[Sorting]) -> str:
    return ",".join(sorting.name for sorting in sorted_by)


class DocumentField:
    """Stands for the document of a read model where a ``Sorting`` has the class of an attribute."""


class FieldOrder(msgspec.Struct, frozen=True):
    """An order by a field of the document. Made by ``field``."""

    name: str
    descending: bool = False
    first: bool | None = None

    def asc(self) -> FieldOrder:
        """Returns the ascending order."""
        return msgspec.structs.replace(self, descending=False)

    def desc(self) -> FieldOrder:
        """Returns the descending order."""
        return msgspec.structs.replace(self, descending=True)

    def nulls_first(self) -> FieldOrder:
        """Returns the order with nulls in front."""
        return msgspec.structs.replace(self, first=True)

    def nulls_last(self) -> FieldOrder:
        """Returns the order with nulls at the end."""
        return msgspec.structs.replace(self, first=False)

    def __str__(self) -> str:
        return f"field({self.name!r})"


def field(name: str) -> FieldOrder:
    """Returns the order by a nested field of the document, for ``by``: a number, or a value of one row.

    It is directed as a column is: ``field("rating").desc().nulls_last()``; filters call it by its name. Redis has the
    order ready; the SQL of such a list computes the field for all rows that a page selects, and ``diptych check``
    names it.

    >>> from diptych import by, field
    >>> print(by(field("rating").desc().nulls_last(), name="best"))
    by(rating.desc().nulls_last(), name='best')
    """
    return FieldOrder(str(name))


def each(relationship: Any, column: Any) -> Sorting:
    """Declares, for ``by``, that a row has one entry in the list for each element of a collection.

    ``relationship`` is a collection of the read model's class, one to many or many to many; ``column`` is a column of
    its elements. A page has to name one value of it, by the relationship's name: ``where={"tags": "sf"}`` selects
    the rows with an element that has this value, each once. None selects those with an element whose value is null.
    Changes of elements, and of the rows that link them, are noticed, whoever makes them. What can't be served is
    refused when the application starts.

    >>> import asyncio
    >>> from msgspec import Struct
    >>> from sqlalchemy import Column, ForeignKey, Table
    >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
    >>> from diptych import ConfigService, Diptych, Page, Query, ReadModel, by, each
    >>> class Base(DeclarativeBase):
    ...     pass
    >>> class Tag(Base):
    ...     __tablename__ = "tags"
    ...     id: Mapped[int] = mapped_column(primary_key=True)
    ...     name: Mapped[str] = mapped_column(unique=True)
    >>> book_tags = Table(
    ...     "book_tags",
    ...     Base.metadata,
    ...     Column("book_id", ForeignKey("books.id"), primary_key=True),
    ...     Column("tag_id", ForeignKey("tags.id"), primary_key=True),
    ... )
    >>> class Book(Base):
    ...     __tablename__ = "books"
    ...     id: Mapped[int] = mapped_column(primary_key=True)
    ...     title: Mapped[str]
    ...     tags: Mapped[list[Tag]] = relationship(secondary=book_tags)
    >>> class BookDocument(Struct):
    ...     title: str
    >>> class BookReadModel(ReadModel[Book]):
    ...     key = Book.id
    ...     document = BookDocument
    ...     lists = (by(each(Book.tags, Tag.name), Book.title, name="tagged"),)
    >>> class ListTagged(Query[Page[BookDocument]]):
    ...     tag: str
    >>> class BookQueries:
    ...     def __init__(self, books: BookReadModel) -> None:
    ...         self.books = books
    ...     async def tagged(self, query: ListTagged) -> Page[BookDocument]:
    ...         return await self.books.page("tagged", where={"tags": query.tag}, count=True)
    >>> async def main() -> None:
    ...     config = ConfigService(database_url="sqlite:///tagged.db")
    ...     app = Diptych(config, models=Base, handlers=[BookQueries], read_models=[BookReadModel])
    ...     async with app:
    ...         async with app.orm.session() as session:
    ...             session.add(Book(title="Dune", tags=[Tag(name="sf"), Tag(name="desert")]))
    ...         print((await app.ask(ListTagged("sf"))).body)
    >>> asyncio.run(main())
    b'{"items":[{"title":"Dune"}],"next":null,"total":1}'
    """
    # Nulls first: elsewhere SQLite would need a rank beside the value, and nothing is sorted by what is one value.
    element = ElementColumn(*_attribute(column))
    return Sorting(*_attribute(relationship), nulls_first=True, element=element)


def _attribute(given: Any) -> tuple[str, type | None]:
    if hasattr(given, "key") and hasattr(given, "class_"):
        return str(given.key), given.class_
    return str(given), None


class Join(msgspec.Struct, frozen=True):
    """A document's field with a value of a joined row, as mapped attributes. Made by ``join``."""

    value: Any
    local: Any
    remote: Any


def join(value: Any, local: Any, remote: Any) -> Join:
    """Declares a document's field from a joined row, for ``joined`` of a read model.

    The field is the ``value`` of the row whose ``remote`` equals this row's ``local``, None if there is no such row.
    ``remote`` has to be unique; an index on ``local`` keeps changes of the joined row cheap.

    >>> from msgspec import Struct
    >>> from sqlalchemy import ForeignKey
    >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    >>> from diptych import ReadModel, join
    >>> class Base(DeclarativeBase):
    ...     pass
    >>> class Author(Base):
    ...     __tablename__ = "authors"
    ...     id: Mapped[int] = mapped_column(primary_key=True)
    ...     name: Mapped[str]
    >>> class Book(Base):
    ...     __tablename__ = "books"
    ...     id: Mapped[int] = mapped_column(primary_key=True)
    ...     title: Mapped[str]
    ...     author_id: Mapped[int] = mapped_column(ForeignKey(Author.id), index=True)
    >>> class BookDocument(Struct):
    ...     title: str
    ...     author_name: str | None
    >>> class BookReadModel(ReadModel[Book]):
    ...     key = Book.id
    ...     document = BookDocument
    ...     joined = {"author_name": join(Author.name, Book.author_id, Author.id)}
    """
    return Join(value, local, remote)


class JoinedField(NamedTuple):
    """A compiled ``Join``: ``field`` has the ``value`` of the row of ``entity`` whose ``remote`` equals ``local``."""

    field: str
    local: str
    entity: Entity
    remote: str
    value: str


class Association(NamedTuple):
    """The rows that link many to many: ``near`` equals a column of the row, ``far`` one of the element."""

    entity: Entity
    near: str
    far: str


class Collection(NamedTuple):
    """A compiled ``each``: the elements of the relationship ``name`` are rows of ``entity``, and have a ``value``.

    The ``remote`` of an element equals the ``local`` of its row, or both equal columns of an ``association``.
    """

    name: str
    local: str
    entity: Entity
    remote: str
    value: str
    association: Association | None = None

    @property
    def field(self) -> str:
        """The name of the elements' values in a row. No column, and no field of a document, is called like this."""
        return f"{self.name}.{self.value}"


class Declaration:
    """The class attributes of a read model; ``ReadModel`` documents each."""

    key: ClassVar[Any]
    document: ClassVar[type[msgspec.Struct]]
    also: ClassVar[tuple[Any, ...]] = ()
    lists: ClassVar[tuple[ListOrder, ...]] = ()
    joined: ClassVar[Mapping[str, Join]] = MappingProxyType({})
    nested: ClassVar[Mapping[str, Nested | Computed]] = MappingProxyType({})
    where: ClassVar[Any] = None
    revision: ClassVar[int] = 1
