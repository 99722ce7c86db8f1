"""Triggers of captured tables: made, checked by their fingerprint, made anew where something has changed them.

A fingerprint tells whether changes may have been made that no trigger has logged: a trigger was disabled or dropped,
perhaps for a moment, the table was replaced, a partition was attached. It is of the database's catalogue alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.log.capture import postgres, sqlite
from diptych.log.capture.table import CAPTURE, PREFIX, CapturedTable, quoted
from diptych.log.table import LOG

_TABLES = sa.bindparam("p_captured", expanding=True, type_=sa.Text)

_FINGERPRINTS = {
    # Descendants are partitions, and tables that inherit: triggers of the parent do not fire for these.
    "postgresql": sa.text("""
        WITH RECURSIVE descendant (table_name, id) AS (
            SELECT table_name, CAST(to_regclass(relation) AS oid) FROM unnest(
                CAST(:names AS text[]), CAST(:relations AS text[])) AS given (table_name, relation)
          UNION ALL
            SELECT table_name, inhrelid FROM descendant JOIN pg_inherits ON inhparent = id
        )
        SELECT table_name, string_agg(concat_ws('.', class.oid, class.relfilenode, (
            SELECT string_agg(
                concat_ws('.', tg.oid, tg.xmin, tg.tgenabled, function.oid, function.xmin), '+' ORDER BY tg.oid)
            FROM pg_trigger AS tg JOIN pg_proc AS function ON function.oid = tg.tgfoid
            WHERE tg.tgrelid = class.oid AND tg.tgname IN ('diptych_capture', 'diptych_capture_truncate')
        )), ' ' ORDER BY class.oid) AS fingerprint
        FROM descendant JOIN pg_class AS class ON class.oid = id GROUP BY table_name
    """),
    # ANALYZE and VACUUM change the number too, and a needless build follows: a trigger that was dropped for a moment
    # leaves no other trace.
    "sqlite": sa.text("""
        SELECT value AS table_name, CAST(schema_version AS TEXT) AS fingerprint
        FROM json_each(:names), pragma_schema_version
    """),
}


def relation_of(captured: CapturedTable) -> str:
    """Returns the name of the table as PostgreSQL's ``to_regclass`` takes it."""
    table = quoted(captured.table)
    return table if captured.schema is None else f"{quoted(captured.schema)}.{table}"


async def fingerprints(connection: AsyncConnection, tables: Sequence[CapturedTable]) -> dict[str, str]:
    """Returns the present fingerprint of each table that exists, by its name."""
    found = await connection.execute(*fingerprint_select(connection.dialect.name, tables))
    return {row.table_name: row.fingerprint for row in found}


def fingerprint_select(
    database: str, tables: Sequence[CapturedTable]
) -> tuple[sa.TextClause, dict[str, Any]]:
    """Returns the select of names and fingerprints of these tables, and its parameters."""
    names = [captured.name for captured in tables]
    values: dict[str, Any] = {"names": names, "relations": [relation_of(captured) for captured in tables]}
    if database == "sqlite":
        values = {"names": msgspec.json.encode(names).decode()}
    return _FINGERPRINTS[database], values


async def broken(connection: AsyncConnection, tables: Sequence[CapturedTable]) -> list[CapturedTable]:
    """Returns the tables whose triggers are not known to have logged every change."""
    present, stored = await fingerprints(connection, tables), await _stored(connection, tables)
    return [
        captured
        for captured in tables
        if stored.get(captured.name) != (columns_text(captured), present.get(captured.name, ""))
    ]


async def _stored(
    connection: AsyncConnection, tables: Collection[CapturedTable]
) -> dict[str, tuple[str, str]]:
    select = sa.select(CAPTURE.c.table_name, CAPTURE.c.columns, CAPTURE.c.fingerprint)
    found = await connection.execute(
        select.where(CAPTURE.c.table_name.in_(_TABLES)),
        {"p_captured": [captured.name for captured in tables]},
    )
    return {name: (columns, fingerprint) for name, columns, fingerprint in found}


def columns_text(captured: CapturedTable) -> str:
    """Returns what ``diptych_capture`` holds of the columns that entries of a table name."""
    return msgspec.json.encode([(column.attribute, column.name) for column in captured.columns]).decode()


async def mend(
    connection: AsyncConnection, tables: Sequence[CapturedTable], token: str, *, hints: bool = True
) -> list[CapturedTable]:
    """Makes the triggers of these tables where they are not known to be right. Returns the tables.

    To be called in a transaction with the lock of the schema. Of each table returned, changes may have been missed
    until now: the caller ends, in this transaction, what was made from them.
    """
    was_right = await _right_before(connection) if connection.dialect.name == "sqlite" else []
    found = await broken(connection, tables)
    for captured in found:
        for statement in await install_statements(connection, captured, token, hints=hints):
            await connection.exec_driver_sql(statement)
    if found:
        present = await fingerprints(connection, tables)
        names = {captured.name for captured in found}
        await connection.execute(
            sa.delete(CAPTURE).where(CAPTURE.c.table_name.in_(_TABLES)), {"p_captured": names}
        )
        await connection.execute(
            sa.insert(CAPTURE),
            [
                {
                    "table_name": captured.name,
                    "columns": columns_text(captured),
                    "fingerprint": present.get(captured.name, ""),
                }
                for captured in found
            ],
        )
        # The statements above have changed the number that stands for the triggers of every table.
        await _keep_right(connection, [name for name in was_right if name not in names])
    return found


async def install_statements(
    connection: AsyncConnection, captured: CapturedTable, token: str, *, hints: bool = True
) -> Sequence[str]:
    """Returns the statements that make the triggers of a table."""
    if connection.dialect.name == "postgresql":
        return postgres.install(captured, await log_schema(connection), token, hints=hints)
    made = sqlite.triggers(captured, await _unique_in_sqlite(connection, captured.table))
    return [*(f"DROP TRIGGER IF EXISTS {quoted(name)}" for name in made), *made.values()]


async def log_schema(connection: AsyncConnection) -> str:
    """Returns the schema of diptych's tables on PostgreSQL, or in which they will be made."""
    found = await connection.execute(
        sa.text(
            "SELECT coalesce((SELECT nspname FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace "
            "WHERE pg_class.oid = to_regclass(:log)), current_schema(), 'public')"
        ),
        {"log": LOG.name},
    )
    return str(found.scalar_one())


async def _unique_in_sqlite(connection: AsyncConnection, table: str) -> list[list[str]]:
    """Returns the sets of columns that are unique in an SQLite table, the primary key first."""
    indexes = sa.text("""
        SELECT i.name, c.seqno, c.name FROM pragma_index_list(:table) AS i, pragma_index_info(i.name) AS c
        WHERE i."unique" ORDER BY i.origin <> 'pk', i.name, c.seqno
    """)
    found: dict[str, list[str | None]] = {}
    for index, _, column in await connection.execute(indexes, {"table": table}):
        found.setdefault(index, []).append(column)
    keys = sa.text("SELECT name FROM pragma_table_info(:table) WHERE pk ORDER BY pk")
    primary = list(await connection.scalars(keys, {"table": table}))
    # An index of an expression names no column.
    sets = [primary, *(columns for columns in found.values() if None not in columns)]
    return [list(columns) for columns in dict.fromkeys(tuple(c or "" for c in each) for each in sets if each)]


async def _right_before(connection: AsyncConnection) -> list[str]:
    version = sa.text(
        "SELECT table_name FROM diptych_capture, pragma_schema_version "
        "WHERE fingerprint = CAST(schema_version AS TEXT)"
    )
    return list(await connection.scalars(version))


async def _keep_right(connection: AsyncConnection, names: Collection[str]) -> None:
    version = sa.text("SELECT CAST(schema_version AS TEXT) FROM pragma_schema_version").columns(
        sa.column("v", sa.Text)
    )
    update = sa.update(CAPTURE).where(CAPTURE.c.table_name.in_(_TABLES))
    if names:
        await connection.execute(
            update.values(fingerprint=version.scalar_subquery()), {"p_captured": list(names)}
        )


async def remove_statements(connection: AsyncConnection) -> Sequence[str]:
    """Returns the statements that take the triggers and functions of every table away."""
    if connection.dialect.name == "sqlite":
        triggers = sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name GLOB :names")
        names = await connection.scalars(triggers, {"names": f"{PREFIX}_*"})
        return [f"DROP TRIGGER IF EXISTS {quoted(name)}" for name in names]
    functions = sa.text(
        "SELECT CAST(p.oid AS regprocedure)::text FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = pronamespace "
        "WHERE nspname = :schema AND prorettype = 'trigger'::regtype AND starts_with(proname, :names) ORDER BY 1"
    )
    values = {"schema": await log_schema(connection), "names": f"{PREFIX}_"}
    return [f"DROP FUNCTION IF EXISTS {name} CASCADE" for name in await connection.scalars(functions, values)]


_EFFECTS = {
    "postgresql": sa.text("""
        SELECT nspname, relname, pg_table_is_visible(class.oid) AS is_visible
        FROM pg_class AS class JOIN pg_namespace AS space ON space.oid = relnamespace
        WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND (
            EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = class.oid AND NOT tgisinternal
                AND tgname NOT IN ('diptych_capture', 'diptych_capture_truncate'))
            OR EXISTS (SELECT 1 FROM pg_rewrite WHERE ev_class = class.oid AND rulename <> '_RETURN')
            OR EXISTS (SELECT 1 FROM pg_constraint WHERE confrelid = class.oid
                AND (confupdtype NOT IN ('a', 'r') OR confdeltype NOT IN ('a', 'r'))))
    """),
    "sqlite": sa.text("""
        SELECT tbl_name FROM sqlite_master WHERE type = 'trigger' AND name NOT GLOB 'diptych_capture_*'
        UNION SELECT reference."table" FROM sqlite_master AS child, pragma_foreign_key_list(child.name) AS reference
        WHERE child.type = 'table'
            AND NOT (on_update IN ('NO ACTION', 'RESTRICT') AND on_delete IN ('NO ACTION', 'RESTRICT'))
    """),
}


async def tables_with_effects(connection: AsyncConnection) -> frozenset[str]:
    """Returns the tables of which a change may change further rows, by their names in mappings."""
    found = (await connection.execute(_EFFECTS[connection.dialect.name])).all()
    if connection.dialect.name == "sqlite":
        return frozenset(row[0] for row in found)
    named = {f"{row.nspname}.{row.relname}" for row in found}
    return frozenset(named | {row.relname for row in found if row.is_visible})
