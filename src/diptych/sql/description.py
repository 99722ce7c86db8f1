"""What the other rooms need to know of a mapped class, without SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

Row = Mapping[str, Any]
"""A row, or the part of one that was asked for: attribute name to value, in the types of Python."""


class Unreadable:
    """Stands in a row for a value that its column's type, or the driver, fails to load; ``reason`` says how.

    It fits no field of a document, no key and no order: to msgspec it is a class of which it knows nothing.
    """

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __str__(self) -> str:
        return f"<{self.reason}>"


class Column(msgspec.Struct, frozen=True):
    """What the rooms need to know of a mapped column. ``bytewise``: equal only if the bytes are; if not, ``compared``
    says what of it has others be equal.

    ``logged`` tells whether the change log's image gives back exactly the value that a select does; ``zoned``,
    whether its points in time have a zone; ``texts``, of an enum, every value with the text that is stored for it.
    ``fit`` gives a value as the column holds it, and raises ``ValueError`` for one that can't be in it at all; what
    is of the column's type is in that form already if the column ``has_one_form``.
    """

    name: str
    type: type | None
    nullable: bool
    unique: bool
    bytewise: bool
    logged: bool
    fit: Callable[[Any], Any]
    compared: str = ""
    has_one_form: bool = True
    zoned: bool = False
    texts: Mapping[Any, str] | None = None


class Entity(msgspec.Struct, frozen=True):
    """A mapped class as the other rooms see it: its columns by attribute name, in the order of the table.

    ``identifying`` are those by which a row is known: the primary key, and all that takes part in anything unique.
    """

    model: type
    name: str
    table: str
    primary_key: tuple[str, ...]
    columns: dict[str, Column]
    identifying: tuple[str, ...] = ()
