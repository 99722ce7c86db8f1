"""How the database compares a column's values: byte for byte, as Redis does, or otherwise."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from diptych.sql.real_columns import RealColumn
from diptych.sql.values import is_library_type, python_type_of

_BYTEWISE = {
    *("string", "text", "unicode", "unicode_text", "VARCHAR", "NVARCHAR", "TEXT", "CLOB", "enum"),
    *("integer", "INTEGER", "big_integer", "BIGINT", "small_integer", "SMALLINT"),
    *("date", "DATE", "datetime", "DATETIME", "TIMESTAMP", "uuid", "UUID"),
}
"""The types, by SQLAlchemy's names, whose equal values are the same bytes; others may have equal ones that differ."""

_PADDED = {"CHAR", "NCHAR"}
"""PostgreSQL compares them without their trailing blanks; to SQLite they are text."""

_CODE_POINT_ORDER = {"C", "POSIX", "ucs_basic", "C.UTF-8", "BINARY"}

_STORED = {
    "postgresql": (
        (sa.Enum, {"text", "varchar", "enum"}),
        (sa.Uuid, {"uuid", "text", "varchar", "bpchar"}),  # as 32 digits, so without blanks at the end
        (sa.String, {"text", "varchar"}),
        (sa.Integer, {"int2", "int4", "int8"}),
        (sa.Date, {"date"}),
        (sa.DateTime, {"timestamp", "timestamptz"}),
    ),
    "sqlite": (
        (sa.String | sa.Uuid, {"TEXT", "BLOB"}),
        (sa.Integer, {"INTEGER", "NUMERIC", "BLOB"}),
        (sa.Date | sa.DateTime, {"TEXT", "NUMERIC", "BLOB"}),
    ),
}
"""As what the database may have columns that are mapped to these types: on SQLite, of which affinity."""


def difference(column: sa.Column[Any], dialect: sa.Dialect, real: RealColumn | None) -> str:
    """What of the column has other bytes be equal too; empty if nothing does. ``real`` is what the database has."""
    there = column.type.dialect_impl(dialect)
    names = {column.type.__visit_name__, there.__visit_name__}
    admitted = _BYTEWISE if dialect.name == "postgresql" else _BYTEWISE | _PADDED
    is_known = names <= admitted and is_library_type(column.type) and is_library_type(there)
    if not is_known or python_type_of(there) != python_type_of(column.type):
        return f"of the type {type(column.type).__name__}"
    collation = _collation(column, dialect)
    if dialect.name == "sqlite" and collation not in (None, "BINARY"):
        return f"of the collation {collation}"
    return "" if real is None else _real_difference(there, dialect, real)


def _real_difference(there: sa.types.TypeEngine[Any], dialect: sa.Dialect, real: RealColumn) -> str:
    stored = next(stored for kind, stored in _STORED[dialect.name] if isinstance(there, kind))
    if real.kind not in stored:
        return f"of the type {real.type_name} in the database"
    if real.timezone is not None and real.timezone != bool(getattr(there, "timezone", False)):
        return f"of the type {real.type_name} in the database, {'with' if real.timezone else 'without'} a time zone"
    return real.loose_collation and f"of {real.loose_collation} in the database"


def has_code_point_order(column: sa.Column[Any], dialect: sa.Dialect, real: RealColumn | None = None) -> bool:
    """Whether the database orders this column by code point without being told."""
    collation = _collation(column, dialect) if real is None else real.collation
    return collation in _CODE_POINT_ORDER if collation or dialect.name == "postgresql" else True


def _collation(column: sa.Column[Any], dialect: sa.Dialect) -> str | None:
    return getattr(column.type.dialect_impl(dialect), "collation", None)
