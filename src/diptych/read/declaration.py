"""The declaration of a read model: its key and other addresses, its document, its lists and its joined fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import msgspec

from diptych.sql.comparison import sorting_by
from diptych.sql.conditions.parse import condition_of
from diptych.sql.conditions.tree import Condition
from diptych.sql.description import Entity, Sorting


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
    sorted_by = tuple(map(sorting_by, columns))
    condition = None if where is None else condition_of(where)
    return ListOrder(sorted_by, _name_of(sorted_by) if name is None else name, condition)


def _name_of(sorted_by: Sequence[Sorting]) -> str:
    return ",".join(sorting.name for sorting in sorted_by)


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
    where: ClassVar[Any] = None
    revision: ClassVar[int] = 1
