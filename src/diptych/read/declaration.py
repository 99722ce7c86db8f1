"""The declaration of a read model: its key and other addresses, its document, its lists and its joined fields."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import msgspec

from diptych.sql.description import Entity


class ListOrder(msgspec.Struct, frozen=True):
    """The order of a list: names of attributes with their classes, the first counts most. Made by ``by``.

    An argument of ``by`` that is no attribute has its text as name, and None as class.
    """

    columns: tuple[str, ...]
    models: tuple[type | None, ...]

    def __str__(self) -> str:
        return f"by({', '.join(self.columns)})"


def by(*columns: Any) -> ListOrder:
    """Returns the order of a list by mapped attributes, for ``lists`` of a read model and for ``ReadModel.page``.

    The order is ascending: text by code point, points in time with a zone by the instant, enums by the text that the
    database stores, which is the name unless the column says otherwise. Rows that are equal in all attributes are in
    the order of the read model's key. Arguments that are no mapped attributes are refused when the application
    starts, where the read model's name is known.

    >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    >>> from diptych import by
    >>> class Base(DeclarativeBase):
    ...     pass
    >>> class Book(Base):
    ...     __tablename__ = "books"
    ...     id: Mapped[int] = mapped_column(primary_key=True)
    ...     author: Mapped[str]
    ...     title: Mapped[str]
    >>> print(by(Book.author, Book.title))
    by(author, title)
    """
    classes = tuple(getattr(column, "class_", None) for column in columns)
    names = (str(c) if owner is None else str(c.key) for c, owner in zip(columns, classes, strict=True))
    return ListOrder(tuple(names), classes)


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


class Declaration:
    """The class attributes of a read model; ``ReadModel`` documents each."""

    key: ClassVar[Any]
    document: ClassVar[type[msgspec.Struct]]
    also: ClassVar[tuple[Any, ...]] = ()
    lists: ClassVar[tuple[ListOrder, ...]] = ()
    joined: ClassVar[Mapping[str, Join]] = MappingProxyType({})
    revision: ClassVar[int] = 1
