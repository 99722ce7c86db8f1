"""The primary key of an entry's row as text: in Python, and as SQL of each database, which make the same text.

Of one column it is the value itself, of several a JSON array of the values, without spaces.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from diptych.sql.columns import is_uuid_text, python_type_of

_json = msgspec.json.Encoder(enc_hook=str).encode


class KeyPart(NamedTuple):
    """A column of a primary key: its value in SQL, and the type of what it holds."""

    value: str
    kind: type


def kind_of(column: sa.Column[Any]) -> type:
    """Returns the type of what a column of a primary key holds: of UUIDs given as text too, UUID."""
    kind: type = uuid.UUID if is_uuid_text(column.type) else python_type_of(column.type)
    return kind


def row_id(names: Sequence[str], row: Mapping[str, Any]) -> str | None:
    """Returns the text of a row's primary key, of the columns ``names``; None without columns, or for null.

    >>> row_id(["title"], {"title": "Dune"}), row_id(["order_id", "number"], {"order_id": 7, "number": 2})
    ('Dune', '[7,2]')
    """
    if len(names) == 1:
        value = row[names[0]]
        return None if value is None else str(value)
    return _json([row[name] for name in names]).decode() if names else None


def in_postgresql(parts: Sequence[KeyPart]) -> str:
    """Returns the expression of PostgreSQL for the text of a primary key."""
    if len(parts) > 1:
        each = (f"coalesce(to_json({_postgresql_value(part)})::text, 'null')" for part in parts)
        together = " || ',' || ".join(each)
        return f"'[' || {together} || ']'"
    if not parts:
        return "NULL"
    [part] = parts
    if part.kind is str:
        # A cast to text would strip the blanks of a CHAR.
        return f"CASE WHEN {part.value} IS NOT NULL THEN concat({part.value}) END"
    if part.kind is datetime.date:
        # A cast to text would depend on the session's DateStyle.
        return as_driver_gives(part.value)
    return f"{part.value}::text"


def _postgresql_value(part: KeyPart) -> str:
    return as_driver_gives(part.value) if part.kind is datetime.date else part.value


def as_driver_gives(date: str) -> str:
    """Returns the expression of PostgreSQL for a date as the driver gives it, as text: infinity is Python's last day.

    Nothing in it fails for a column that was altered to another type.
    """
    first, last = "'0001-01-01'", "'9999-12-31'"
    other = f"to_json({date}) #>> '{{}}'"
    return f"CASE {date}::text WHEN '-infinity' THEN {first} WHEN 'infinity' THEN {last} ELSE {other} END"


def in_sqlite(parts: Sequence[KeyPart]) -> str:
    """Returns the expression of SQLite for the text of a primary key."""
    if len(parts) == 1:
        return f"CAST({_sqlite_value(parts[0])} AS TEXT)"
    return f"json_array({', '.join(map(_sqlite_value, parts))})" if parts else "NULL"


def _sqlite_value(part: KeyPart) -> str:
    if part.kind is not uuid.UUID:
        return part.value
    # SQLite keeps a UUID as 32 digits.
    at = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
    digits = " || '-' || ".join(f"substr({part.value}, {first}, {length})" for first, length in at)
    return f"CASE length({part.value}) WHEN 32 THEN lower({digits}) ELSE {part.value} END"
