"""Comparison of a column's values by the database: byte for byte, as in Redis, or differently; and uniqueness.

The real columns of a table in the database, and what is unique there, need not be those of the mapping.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import UnaryExpression

from diptych.sql.columns import is_library_type, python_type_of
from diptych.sql.description import Sorting

_BYTEWISE = {
    *("string", "text", "unicode", "unicode_text", "VARCHAR", "NVARCHAR", "TEXT", "CLOB", "enum"),
    *("integer", "INTEGER", "big_integer", "BIGINT", "small_integer", "SMALLINT"),
    *("date", "DATE", "datetime", "DATETIME", "TIMESTAMP", "uuid", "UUID"),
}
"""Types, by SQLAlchemy's names, whose equal values are the same bytes."""

_IN_ORDER = {
    *(
        "boolean",
        "BOOLEAN",
        "float",
        "FLOAT",
        "REAL",
        "double",
        "DOUBLE",
        "double_precision",
        "DOUBLE_PRECISION",
    ),
    *("numeric", "NUMERIC", "DECIMAL", "time", "TIME", "interval", "INTERVAL"),
    "type_decorator",  # SQLAlchemy's own, such as Interval on SQLite
}
"""Further types whose values have one order, by SQLAlchemy's names: equal values may be different bytes."""

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
        (sa.Boolean, {"bool"}),
        (sa.Float, {"float4", "float8"}),
        (sa.Numeric, {"numeric"}),
        (sa.Time, {"time"}),
        (postgresql.INTERVAL, {"interval"}),
    ),
    "sqlite": (
        (sa.String | sa.Uuid, {"TEXT", "BLOB"}),
        (sa.Integer, {"INTEGER", "NUMERIC", "BLOB"}),
        (sa.Date | sa.DateTime | sa.Time | sa.Interval, {"TEXT", "NUMERIC", "BLOB"}),
        (sa.Boolean | sa.Numeric | sa.Float, {"INTEGER", "NUMERIC", "REAL", "BLOB"}),
    ),
}
"""Types of the database, on SQLite affinities, that columns mapped to these types may have."""


def difference(
    column: sa.Column[Any], dialect: sa.Dialect, real: RealColumn | None, *, in_order: bool = False
) -> str:
    """Returns the property of the column that makes different bytes equal; empty if there is none.

    With ``in_order`` the property that gives its values another order than Python's. ``real`` is the column in the
    database, if known.
    """
    there = column.type.dialect_impl(dialect)
    names = {column.type.__visit_name__, there.__visit_name__}
    admitted = _BYTEWISE if dialect.name == "postgresql" else _BYTEWISE | _PADDED
    admitted = admitted | _IN_ORDER if in_order else admitted
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


def in_code_points(
    column: sa.Column[Any], dialect: sa.Dialect, real: RealColumn | None
) -> sa.ColumnElement[Any]:
    """Returns the column in code point order, with a collation only where the database would order differently."""
    collation = _collation(column, dialect) if real is None else real.collation
    is_postgresql = dialect.name == "postgresql"
    is_in_order = collation in _CODE_POINT_ORDER if collation or is_postgresql else True
    if is_in_order or not isinstance(column.type, sa.String):
        return column
    return enum_as_text(column, dialect).collate("C" if is_postgresql else "BINARY")


_DIRECTIONS = {operators.asc_op: False, operators.desc_op: True}
_NULLS = {operators.nulls_first_op: True, operators.nulls_last_op: False}


def sorting_by(column: Any) -> Sorting:
    """Returns the sorting that an argument of ``by`` asks for."""
    descending, nulls_first = False, None
    while isinstance(column, UnaryExpression) and column.modifier in {**_DIRECTIONS, **_NULLS}:
        descending = _DIRECTIONS.get(column.modifier, descending)
        nulls_first = _NULLS.get(column.modifier, nulls_first)
        column = column.element
    first = descending if nulls_first is None else nulls_first
    annotations = getattr(column, "_annotations", {})
    if hasattr(column, "class_"):
        return Sorting(str(column.key), column.class_, descending, first)
    if "parententity" in annotations and "proxy_key" in annotations:
        return Sorting(annotations["proxy_key"], annotations["parententity"].class_, descending, first)
    return Sorting(str(column), None, descending, first)


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


def code_point_text(length: int | None = None) -> sa.String:
    """Returns a column type for text, compared and ordered by code point on every database: case and accents count.

    ``length`` is the greatest length, in code points; unlimited without it. SQLite compares text like this by itself,
    PostgreSQL with the collation "C", whatever the locale of the database. Text columns that are the key of a read
    model, or in one of its lists, need such a type.

    >>> from diptych import code_point_text
    >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    >>> class Base(DeclarativeBase):
    ...     pass
    >>> class Book(Base):
    ...     __tablename__ = "books"
    ...     id: Mapped[int] = mapped_column(primary_key=True)
    ...     title: Mapped[str] = mapped_column(code_point_text(200), unique=True)
    >>> Book.__table__.columns["title"].type
    String(length=200)
    """
    plain = sa.String(length) if length else sa.Text()
    return plain.with_variant(sa.String(length, collation="C"), "postgresql")


class RealColumn(NamedTuple):
    """A column as the database has it.

    ``kind`` is its type: on PostgreSQL the name of a built-in type (for a domain, of the type below it), ``enum``, or
    empty for any other type; on SQLite the affinity. ``loose_collation`` names the collation, if different texts are
    equal in it.
    """

    type_name: str
    kind: str
    collation: str | None = None
    loose_collation: str = ""
    timezone: bool | None = None


async def real_columns(connection: AsyncConnection, table: sa.Table) -> Mapping[str, RealColumn]:
    """Returns the columns of this table by name; none if there is no such table."""
    if connection.dialect.name == "postgresql":
        return await _of_postgresql(connection, table)
    return await _of_sqlite(connection, table)


# A domain has the collation of its column, and the equality of the type below it.
_POSTGRESQL = sa.text("""
    WITH RECURSIVE found (name, type_name, collation_id, type_id) AS (
        SELECT attname, format_type(atttypid, atttypmod), attcollation, atttypid FROM pg_attribute
        WHERE attrelid = to_regclass(:table_name) AND attnum > 0 AND NOT attisdropped
      UNION ALL
        SELECT name, type_name, collation_id, typbasetype FROM found JOIN pg_type ON oid = type_id
        WHERE typtype = 'd'
    )
    SELECT name, type_name, collname AS collation, coalesce(collisdeterministic, true) AS is_deterministic,
        CASE WHEN typtype = 'e' THEN 'enum'
            WHEN typnamespace = 'pg_catalog'::regnamespace THEN typname ELSE '' END AS kind
    FROM found JOIN pg_type ON pg_type.oid = type_id LEFT JOIN pg_collation ON pg_collation.oid = collation_id
    WHERE typtype <> 'd'
""")


async def _of_postgresql(connection: AsyncConnection, table: sa.Table) -> Mapping[str, RealColumn]:
    name = connection.dialect.identifier_preparer.format_table(table)
    found = await connection.execute(_POSTGRESQL, {"table_name": name})
    return {
        row.name: RealColumn(
            row.type_name,
            row.kind,
            row.collation,
            "" if row.is_deterministic else f"the nondeterministic collation {row.collation}",
            {"timestamp": False, "timestamptz": True}.get(row.kind),
        )
        for row in found
    }


# https://www.sqlite.org/datatype3.html#determination_of_column_affinity, in the order in which its rules count
_AFFINITIES = {
    "INT": "INTEGER",
    **dict.fromkeys(("CHAR", "CLOB", "TEXT"), "TEXT"),
    "BLOB": "BLOB",
    **dict.fromkeys(("REAL", "FLOA", "DOUB"), "REAL"),
}


async def _of_sqlite(connection: AsyncConnection, table: sa.Table) -> Mapping[str, RealColumn]:
    schema = table.schema or "main"
    columns = sa.func.pragma_table_xinfo(table.name, schema).table_valued("name", "type")
    found = await connection.execute(sa.select(columns.c.name, columns.c.type))
    mapped = {str(column.name).lower(): str(column.name) for column in table.columns}
    return {
        mapped.get(name.lower(), name): RealColumn(
            declared or "(none)",
            _affinity(declared.upper()),
            loose_collation=await _loose_collation(connection, table, name),
        )
        for name, declared in found.all()
    }


def _affinity(declared: str) -> str:
    if not declared:
        return "BLOB"
    return next((affinity for part, affinity in _AFFINITIES.items() if part in declared), "NUMERIC")


async def _loose_collation(connection: AsyncConnection, table: sa.Table, name: str) -> str:
    """Finds out a column's collation: SQLite does not tell, but applies the collation in comparisons."""
    column = sa.table(table.name, sa.column(name), schema=table.schema).c[name].label("value")
    nothing = sa.select(column).where(sa.false())
    given = sa.union_all(nothing, sa.select(sa.literal("a"))).subquery()
    try:
        result = await connection.execute(sa.select(given.c.value == "A", given.c.value == "a "))
    except DBAPIError as error:
        return f"a collation that it does not know ({error.orig})"
    ignores_case, ignores_blanks = result.one()
    if ignores_case:
        return "a collation that ignores case"
    return "a collation that ignores trailing blanks" if ignores_blanks else ""


_UNIQUE = {
    # Not what is checked at the end of a statement (deferrable), nor an index that is still being made.
    "postgresql": sa.text("""
        SELECT indexrelid AS name, CAST(attname AS text) AS column_name
        FROM pg_index CROSS JOIN generate_series(0, indnkeyatts - 1) AS place
            JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[place]
        WHERE indrelid = to_regclass(:table_name) AND indisunique AND indimmediate AND indisvalid
            AND indpred IS NULL AND indexprs IS NULL
    """),
    "sqlite": sa.text("""
        SELECT i.name, c.name AS column_name
        FROM pragma_index_list(:table_name, :schema) AS i, pragma_index_info(i.name, :schema) AS c
        WHERE i."unique" AND NOT i.partial
      UNION ALL SELECT NULL, name FROM pragma_table_info(:table_name, :schema) WHERE pk
    """),
}


async def unique_sets(
    connection: AsyncConnection, table: sa.Table, attributes: Mapping[str, str]
) -> frozenset[frozenset[str]]:
    """Returns the sets of attributes, given by their columns, of which no two rows ever have the same values.

    Null aside. Indexes that are partial, or on an expression, don't count, nor what is deferrable.
    """
    database = connection.dialect.name
    if database == "postgresql":
        values = {"table_name": connection.dialect.identifier_preparer.format_table(table)}
    else:
        values = {"table_name": table.name, "schema": table.schema or "main"}
        attributes = {column.lower(): name for column, name in attributes.items()}  # as SQLite compares names
    found: dict[str | None, set[str | None]] = {}
    for index, column in await connection.execute(_UNIQUE[database], values):
        name = column if column is None or database == "postgresql" else column.lower()
        found.setdefault(index, set()).add(attributes.get(name))
    return frozenset(frozenset(map(str, names)) for names in found.values() if None not in names)


# The first and the last day of Python's calendar, and moment without a zone, are two values each to PostgreSQL.
# asyncpg gives an infinite date as Python's first or last day, and sends these days as infinite dates; other drivers
# send the days themselves. A row may have either, and Python knows no difference: nor may a condition, or an order,
# of SQL.

_ENDS = (datetime.date.min, datetime.date.max, datetime.datetime.min, datetime.datetime.max)


def has_ends(column_type: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> bool:
    """Returns whether a column of this type may have two values for one of Python's.

    A point in time with a zone is sent as it is, and an infinite one is given without a zone, which is no value of
    its column.
    """
    there = column_type.dialect_impl(dialect)
    is_zoned = bool(getattr(there, "timezone", False))
    return dialect.name == "postgresql" and isinstance(there, sa.Date | sa.DateTime) and not is_zoned


def is_end(value: Any) -> bool:
    """Returns whether a value is the first or the last day, or moment."""
    return isinstance(value, datetime.date) and any(
        type(end) is type(value) and end == value for end in _ENDS
    )


def equal(
    column: sa.ColumnElement[Any], value: sa.ColumnElement[Any], dialect: sa.Dialect
) -> sa.ColumnElement[bool]:
    """Returns the condition that a column has this value, in either form."""
    if not has_ends(column.type, dialect):
        return column == value
    return column.in_([finite(value, column.type), infinite(value, column.type)])


def one_of(
    columns: Sequence[sa.ColumnElement[Any]], values: Sequence[Sequence[Any]], dialect: sa.Dialect
) -> sa.ColumnElement[bool]:
    """Returns the condition that columns have one of these tuples of values, in either form."""
    may_have_two = any(has_ends(column.type, dialect) for column in columns)
    with_ends = [given for given in values if any(map(is_end, given))] if may_have_two else []
    conditions = [
        sa.and_(*(equal(column, sa.literal(value, column.type), dialect) for column, value in each))
        for each in (zip(columns, given, strict=True) for given in with_ends)
    ]
    others = values if not with_ends else [given for given in values if given not in with_ends]
    if len(columns) == 1:
        return sa.or_(columns[0].in_([value for (value,) in others]), *conditions)
    return sa.or_(sa.tuple_(*columns).in_([tuple(given) for given in others]), *conditions)


def finite(value: sa.ColumnElement[Any], column_type: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    """Returns the value, with the first and the last one in the place of infinite ones."""
    return _replaced(value, column_type, dict(zip(_INFINITE, _ends_of(column_type), strict=True)))


def infinite(value: sa.ColumnElement[Any], column_type: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    """Returns the value, with infinite ones in the place of the first and the last one."""
    return _replaced(value, column_type, dict(zip(_ends_of(column_type), _INFINITE, strict=True)))


_INFINITE = ("-infinity", "infinity")


def _ends_of(column_type: sa.types.TypeEngine[Any]) -> tuple[str, str]:
    if isinstance(column_type, sa.DateTime):
        return "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"
    return "0001-01-01", "9999-12-31"


def _replaced(
    value: sa.ColumnElement[Any], column_type: sa.types.TypeEngine[Any], texts: dict[str, str]
) -> sa.ColumnElement[Any]:
    def constant(text: str) -> sa.ColumnElement[Any]:
        return sa.cast(sa.literal_column(f"'{text}'", sa.Text), column_type)

    pairs = [(value == constant(text), constant(other)) for text, other in texts.items()]
    return sa.case(*pairs, else_=value)
