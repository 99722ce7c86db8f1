"""Captured tables: tables whose changes triggers write to the change log, by any writer."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from diptych.log.row_id import kind_of
from diptych.log.table import METADATA
from diptych.sql.columns import KEY_TYPES, python_type_of
from diptych.sql.entity import MappedEntity

PREFIX = "diptych_capture"
"""Beginning of the names of triggers and functions."""

FORMAT = 4
"""Number of what triggers write: those of an earlier number, of a version before this one, are made anew."""

TOUCHED = "touched"
"""``kind`` of an entry that tells no more than that the row at these addresses may have changed."""

CAPTURE = sa.Table(
    "diptych_capture",
    METADATA,
    # The table is made and upgraded by the migrations; here are the columns that statements name.
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("columns", sa.Text, nullable=False),  # JSON: the columns that entries name
    sa.Column("fingerprint", sa.Text, nullable=False),  # when last known to be right
    sa.Column(
        "format", sa.Integer, nullable=False
    ),  # `FORMAT` of the version of diptych that made the triggers
)


class CapturedColumn(NamedTuple):
    """A column named by entries: its attribute, its name in the table, and whether its values are dates."""

    attribute: str
    name: str
    is_date: bool = False


_MOST_IN_FUNCTION = 50
"""Number of columns that a function takes, with their names, as arguments: PostgreSQL's have 100, SQLite's 127."""


def in_groups(columns: Sequence[CapturedColumn]) -> Sequence[Sequence[CapturedColumn]]:
    """Returns the columns in groups, at least one, that a function takes with their names."""
    starts = range(0, max(len(columns), 1), _MOST_IN_FUNCTION)
    return [columns[start : start + _MOST_IN_FUNCTION] for start in starts]


class CapturedTable(NamedTuple):
    """A table to be captured. ``name`` is as in the log, with the schema if the mapping names one.

    ``columns`` are all columns that identify a row or link it to others: the primary key, unique columns and foreign
    keys. ``mapped`` are the names of all columns that the mapping has. ``row_id`` are names and types of the columns
    whose values are the ``row_id`` of an entry.
    """

    entity: str
    name: str
    schema: str | None
    table: str
    columns: Sequence[CapturedColumn]
    mapped: Sequence[str] = ()
    row_id: Sequence[tuple[str, type]] = ()

    @property
    def object_name(self) -> str:
        """The name for a function of this table: at most 63 bytes, and different for different tables."""
        plain = f"{PREFIX}_{self.name.replace('.', '_')}"
        if len(plain.encode()) <= 63 and "." not in self.name and self.name.isascii():
            return plain
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:16]
        return f"{PREFIX}_{digest}"


def captured_table(entity: MappedEntity) -> CapturedTable:
    """Returns the captured part of an entity's table."""
    kinds = {name: python_type_of(entity.columns[name].type) for name in entity.entry_columns}
    columns = [
        CapturedColumn(name, str(entity.columns[name].name), kind is datetime.date)
        for name, kind in kinds.items()
        if kind in KEY_TYPES
    ]
    mapped = [str(column.name) for column in entity.columns.values()]
    row_id = [
        (str(column.name), kind_of(column)) for column in map(entity.columns.__getitem__, entity.row_id)
    ]
    table = entity.table
    return CapturedTable(entity.name, entity.full_name, table.schema, table.name, columns, mapped, row_id)


def literal(text: str) -> str:
    """Returns a text as a constant of SQL: DDL takes no parameters."""
    if "\x00" in text:
        raise ValueError("a name must not contain the character U+0000")
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """Returns a name as an identifier of SQL."""
    if "\x00" in name:
        raise ValueError("a name must not contain the character U+0000")
    return '"' + name.replace('"', '""') + '"'
