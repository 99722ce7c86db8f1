"""What a read model declares: its key, its document, its lists and its joined fields."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import msgspec


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


class Declaration:
    """The class attributes of a read model. What each of them means says ``ReadModel``."""

    key: ClassVar[Any]
    document: ClassVar[type[msgspec.Struct]]
    lists: ClassVar[tuple[ListOrder, ...]] = ()
    joined: ClassVar[Mapping[str, Join]] = MappingProxyType({})
    revision: ClassVar[int] = 1
