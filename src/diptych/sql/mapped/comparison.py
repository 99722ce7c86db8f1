"""Comparison of a column's values by the database: byte for byte, as in Redis, or differently."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from diptych.sql.mapped.column_types import is_library_type, python_type_of
from diptych.sql.mapped.real_columns import RealColumn

_BYTEWISE = {
    *("string", "text", "unicode", "unicode_text", "VARCHAR", "NVARCHAR", "TEXT", "CLOB", "enum"),
    *("integer", "INTEGER", "big_integer", "BIGINT", "small_integer", "SMALLINT"),
    *("date", "DATE", "datetime", "DATETIME", "TIMESTAMP", "uuid", "UUID"),
}
"""Types, by SQLAlchemy's names, whose equal values are the same bytes."""

_PADDED = {"CHAR", "NCHAR"}
"""Types that PostgreSQL compares without trailing blanks; to SQLite they are text."""

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
"""Types of the database, on SQLite affinities, that columns mapped to these types may have."""


def difference(column: sa.Column[Any], dialect: sa.Dialect, real: RealColumn | None) -> str:
    """Returns the property of the column that makes different bytes equal; empty if there is none.

    ``real`` is the column in the database, if known.
    """
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
    """Returns whether the database orders this column by code point by itself."""
    collation = _collation(column, dialect) if real is None else real.collation
    return collation in _CODE_POINT_ORDER if collation or dialect.name == "postgresql" else True


def in_code_points(
    column: sa.Column[Any], dialect: sa.Dialect, real: RealColumn | None = None
) -> sa.ColumnElement[Any]:
    """Returns the column in code point order, with a collation only where the database would order differently."""
    if has_code_point_order(column, dialect, real) or not isinstance(column.type, sa.String):
        return column
    return enum_as_text(column, dialect).collate("C" if dialect.name == "postgresql" else "BINARY")


def enum_as_text(value: sa.ColumnElement[Any], dialect: sa.Dialect) -> sa.ColumnElement[Any]:
    """Returns an enum of PostgreSQL, ordered there by its declaration, as text; any other value unchanged."""
    if isinstance(value.type, sa.Enum) and dialect.name == "postgresql":
        return sa.cast(value, sa.Text)
    return value


def collated_like(
    local: sa.Column[Any], remote: sa.Column[Any], dialect: sa.Dialect
) -> sa.ColumnElement[Any]:
    """Returns ``local`` in the collation of ``remote``, to be compared with ``remote`` by the index of that column.

    PostgreSQL refuses to compare texts of two collations; SQLite takes the collation of the left side.
    """
    ours, theirs = (_collation(column, dialect) for column in (local, remote))
    if dialect.name != "postgresql" or ours == theirs:
        return local
    return local.collate(theirs or "default")


def _collation(column: sa.Column[Any], dialect: sa.Dialect) -> str | None:
    return getattr(column.type.dialect_impl(dialect), "collation", None)
