"""Captured tables: tables whose changes triggers write to the change log, by any writer."""

from __future__ import annotations

import datetime
import hashlib
import uuid
from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from diptych.log.table import METADATA
from diptych.sql.columns import python_type_of
from diptych.sql.entity import MappedEntity

PREFIX = "diptych_capture"
"""Beginning of the names of triggers and functions."""

TOUCHED = "touched"
"""``kind`` of an entry that tells no more than that the row at these addresses may have changed."""

CAPTURE = sa.Table(
    "diptych_capture",
    METADATA,
    # The table is made and upgraded by the migrations; here are the columns that statements name.
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("columns", sa.Text, nullable=False),  # JSON: the columns that entries name
    sa.Column("fingerprint", sa.Text, nullable=False),  # when last known to be right
)


class CapturedColumn(NamedTuple):
    """A column named by entries: its attribute, its name in the table, and whether its values are dates."""

    attribute: str
    name: str
    is_date: bool = False


class CapturedTable(NamedTuple):
    """A table to be captured. ``name`` is as in the log, with the schema if the mapping names one.

    ``columns`` are all columns that identify a row or link it to others: the primary key, unique columns and foreign
    keys. ``mapped`` are the names of all columns that the mapping has.
    """

    entity: str
    name: str
    schema: str | None
    table: str
    columns: Sequence[CapturedColumn]
    mapped: Sequence[str] = ()

    @property
    def object_name(self) -> str:
        """The name for a function of this table: at most 63 bytes, and different for different tables."""
        plain = f"{PREFIX}_{self.name.replace('.', '_')}"
        if len(plain.encode()) <= 63 and "." not in self.name and self.name.isascii():
            return plain
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:16]
        return f"{PREFIX}_{digest}"


_CAPTURED_TYPES = (str, int, datetime.date, uuid.UUID)
"""Types of the columns that entries of triggers name: those of keys and of joins."""


def captured_table(entity: MappedEntity) -> CapturedTable:
    """Returns the captured part of an entity's table."""
    kinds = {name: python_type_of(entity.columns[name].type) for name in entity.entry_columns}
    columns = [
        CapturedColumn(name, str(entity.columns[name].name), kind is datetime.date)
        for name, kind in kinds.items()
        if kind in _CAPTURED_TYPES
    ]
    mapped = [str(column.name) for column in entity.columns.values()]
    return CapturedTable(
        entity.name, entity.full_name, entity.table.schema, entity.table.name, columns, mapped
    )


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
