"""Descriptions of mapped classes for the other rooms, without SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

Row = Mapping[str, Any]
"""A row, or the requested part of a row: values in the types of Python by attribute name."""


class Unreadable:
    """Stand-in, in a row, for a value that its column's type or the driver fails to load; ``reason`` tells why.

    It fits no field of a document, no key and no order: to msgspec it is an instance of an unknown class.
    """

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __str__(self) -> str:
        return f"<{self.reason}>"


class Column(msgspec.Struct, frozen=True):
    """A mapped column as the other rooms see it.

    ``bytewise``: two values are equal only if their bytes are; if not, ``compared`` names the property of the column
    that makes other values equal. ``misordered`` names the property by which the database sorts values differently
    than Redis their sort keys; empty if there is none. ``logged``: the change log's image gives back exactly the
    value of a select. ``zoned``: its points in time have a zone. ``texts``, of an enum: every value with the text
    stored for it. ``in_table`` is its name in the table.

    ``fit`` returns a value in the form that the column holds, and raises ``ValueError`` for a value that can't be in
    the column. If the column ``has_one_form``, every value of its type is in that form already.
    """

    name: str
    type: type | None
    nullable: bool
    unique: bool
    bytewise: bool
    logged: bool
    fit: Callable[[Any], Any]
    compared: str = ""
    misordered: str = ""
    has_one_form: bool = True
    zoned: bool = False
    texts: Mapping[Any, str] | None = None
    in_table: str = ""


class Entity(msgspec.Struct, frozen=True):
    """A mapped class as the other rooms see it: its columns by attribute name, in the order of the table.

    ``identifying`` are the columns that identify a row: the primary key, and all that take part in anything unique;
    ``in_entries`` these and foreign keys, which each entry of the log names. ``unique`` are the sets of identifying
    columns of which no two rows have the same values, null aside: by the catalogue, once it is known.
    """

    model: type
    name: str
    table: str
    primary_key: tuple[str, ...]
    columns: dict[str, Column]
    identifying: tuple[str, ...] = ()
    in_entries: tuple[str, ...] = ()
    unique: frozenset[frozenset[str]] = frozenset()


class TableEffects(NamedTuple):
    """Tables, by their names in mappings, where a change may do or notice more than its row.

    A change of the ``reaching`` may change further rows, by triggers, rules or foreign keys. A change of the
    ``comparing`` notices other commands' changes of any kind, later than its snapshot: what is compared is a part of
    the rows, or an expression, or it is compared at the commit; or a foreign key refers to a partitioned table.
    ``referring`` has the tables, by their names with schema and without, whose foreign keys refer to a table;
    ``unique`` the columns that take part in its unique indexes.
    """

    reaching: set[str]
    comparing: set[str]
    referring: dict[str, set[str]]
    unique: dict[str, set[str]]


class ElementColumn(NamedTuple):
    """The attribute ``name`` of the class ``model``, of which the elements of a collection are.

    What is no mapped attribute has its text as name, and None as class.
    """

    name: str
    model: type | None


class Sorting(NamedTuple):
    """Sorting by the attribute ``name`` of the class ``model``.

    What is no mapped attribute has its text as name, and None as class. Nulls come last in ascending order and first
    in descending order, as in PostgreSQL, where the attribute does not say otherwise. With an ``element`` the
    attribute is a collection, of whose elements that column has the values.
    """

    name: str
    model: type | None
    descending: bool = False
    nulls_first: bool = False
    element: ElementColumn | None = None

    def __str__(self) -> str:
        if self.element is not None:
            return f"each({self.name}, {self.element.name})"
        direction = ".desc()" if self.descending else ""
        nulls = (".nulls_last()", ".nulls_first()")[self.nulls_first]
        return self.name + direction + (nulls if self.nulls_first != self.descending else "")
