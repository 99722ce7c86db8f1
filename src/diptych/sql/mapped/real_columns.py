"""The real columns of a table in the database, which need not be those of the mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection


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
    return {
        name: RealColumn(
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
