"""Triggers of captured tables: made, checked by their fingerprint, made anew where something has changed them.

A fingerprint tells whether changes may have been made that no trigger has logged: a trigger was disabled or dropped,
perhaps for a moment, the table was replaced, a partition was attached. It is of the database's catalogue alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import SchemaError
from diptych.log.capture import postgres, sqlite
from diptych.log.capture.sqlite import UniqueColumn
from diptych.log.capture.table import CAPTURE, PREFIX, CapturedTable, quoted
from diptych.log.table import LOG

_TABLES = sa.bindparam("p_captured", expanding=True, type_=sa.Text)

_FINGERPRINTS = {
    # Descendants are partitions, and tables that inherit: triggers of the parent do not fire for these.
    "postgresql": sa.text("""
        WITH RECURSIVE given (table_name, id, columns) AS (
            SELECT name, CAST(to_regclass(relation) AS oid), CAST(columns AS json) FROM unnest(
                CAST(:names AS text[]), CAST(:relations AS text[]), CAST(:columns AS text[])
            ) AS captured (name, relation, columns)
        ), descendant (table_name, id) AS (
            SELECT table_name, id FROM given
          UNION ALL
            SELECT table_name, inhrelid FROM descendant JOIN pg_inherits ON inhparent = id
        )
        SELECT table_name, (
            SELECT string_agg(attnum::text, '+' ORDER BY attname) FROM given JOIN pg_attribute ON attrelid = given.id
            WHERE given.table_name = descendant.table_name AND attnum > 0 AND NOT attisdropped
                AND attname IN (SELECT json_array_elements_text(columns))
        ) || ' ' || string_agg(concat_ws('.', class.oid, class.relfilenode, (
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
    names = [captured.name for captured in tables]
    values: dict[str, Any] = {
        "names": names,
        "relations": [relation_of(captured) for captured in tables],
        "columns": [
            msgspec.json.encode([column.name for column in captured.columns]).decode() for captured in tables
        ],
    }
    if connection.dialect.name == "sqlite":
        values = {"names": msgspec.json.encode(names).decode()}
    found = await connection.execute(_FINGERPRINTS[connection.dialect.name], values)
    return {row.table_name: row.fingerprint for row in found}


async def broken(connection: AsyncConnection, tables: Sequence[CapturedTable]) -> list[CapturedTable]:
    """Returns the tables whose triggers are not known to have logged every change."""
    present, stored = await fingerprints(connection, tables), await _stored(connection, tables)
    return [captured for captured in tables if stored.get(captured.name) != _state(captured, present)]


def _state(captured: CapturedTable, present: Mapping[str, str]) -> tuple[str, str]:
    return _columns(captured), present.get(captured.name, "")


async def _stored(
    connection: AsyncConnection, tables: Collection[CapturedTable]
) -> dict[str, tuple[str, str]]:
    select = sa.select(CAPTURE.c.table_name, CAPTURE.c.columns, CAPTURE.c.fingerprint)
    found = await connection.execute(
        select.where(CAPTURE.c.table_name.in_(_TABLES)),
        {"p_captured": [captured.name for captured in tables]},
    )
    return {name: (columns, fingerprint) for name, columns, fingerprint in found}


def _columns(captured: CapturedTable) -> str:
    return msgspec.json.encode([(column.attribute, column.name) for column in captured.columns]).decode()


async def mend(
    connection: AsyncConnection, tables: Sequence[CapturedTable], token: str, *, hints: bool = True
) -> list[CapturedTable]:
    """Makes the triggers of these tables where they are not known to be right. Returns the tables.

    To be called in a transaction with the lock of the schema. Of each table returned, changes may have been missed
    until now: the caller ends, in this transaction, what was made from them.
    """
    was_right = await _right_before(connection) if connection.dialect.name == "sqlite" else []
    present, stored = await fingerprints(connection, tables), await _stored(connection, tables)
    found = [captured for captured in tables if stored.get(captured.name) != _state(captured, present)]
    for captured in found:
        if not _has_triggers(stored.get(captured.name), _state(captured, present)):
            for statement in await _statements(connection, captured, token, hints=hints):
                await connection.exec_driver_sql(statement)
    others = [captured for captured in tables if captured not in found]
    if connection.dialect.name == "postgresql":
        await _set_hints(connection, others, hints=hints)
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
                    "columns": _columns(captured),
                    "fingerprint": present.get(captured.name, ""),
                }
                for captured in found
            ],
        )
        # The statements above have changed the number that stands for the triggers of every table.
        await _keep_right(connection, [name for name in was_right if name not in names])
    return found


def _has_triggers(stored: tuple[str, str] | None, present: tuple[str, str]) -> bool:
    """Returns whether PostgreSQL's triggers are as they were made, though files or partitions may have changed.

    So after TRUNCATE: the role of the application, which may do that, need not be allowed to make triggers.
    """
    if stored is None or stored[0] != present[0] or not present[1] or "." not in present[1]:
        return False
    before, now = (_triggers_in(fingerprint) for fingerprint in (stored[1], present[1]))
    return now.items() <= before.items()


def _triggers_in(fingerprint: str) -> Mapping[str, str]:
    """Returns what a fingerprint of PostgreSQL tells of triggers, by the tables' numbers; and of the columns."""
    columns, *tables = fingerprint.split(" ")
    parts = (table.split(".", 2) for table in tables)
    return {"columns": columns, **{table: "".join(triggers) for table, _, *triggers in parts}}


async def _statements(
    connection: AsyncConnection, captured: CapturedTable, token: str, *, hints: bool
) -> Sequence[str]:
    if connection.dialect.name == "postgresql":
        there = await _columns_there(connection, captured)
        # A column that a migration has dropped is in no entry: the trigger must not fail for lack of it.
        captured = captured._replace(columns=[column for column in captured.columns if column.name in there])
        return postgres.install(captured, await log_schema(connection), token, hints=hints)
    made = sqlite.triggers(captured, await _unique_in_sqlite(connection, captured.table))
    existing = sa.text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name GLOB :names")
    rows = await connection.execute(existing, {"names": f"{PREFIX}_*"})
    if {row.name: row.sql for row in rows if row.name in made} == made:
        return []
    return [*(f"DROP TRIGGER IF EXISTS {quoted(name)}" for name in made), *made.values()]


async def _set_hints(connection: AsyncConnection, tables: Sequence[CapturedTable], *, hints: bool) -> None:
    """Makes the functions of these tables anew that have hints and are not to, or the other way round.

    Nothing is missed by that, and no generation ends.
    """
    for captured in tables:
        found = await connection.execute(
            _HAS_HINTS, {"relation": relation_of(captured), "name": postgres.ROW_TRIGGER}
        )
        if found.scalar_one() is not hints:
            for statement in postgres.functions(captured, await log_schema(connection), hints=hints):
                await connection.exec_driver_sql(statement)
            present = await fingerprints(connection, [captured])
            update = sa.update(CAPTURE).where(CAPTURE.c.table_name == captured.name)
            await connection.execute(update.values(fingerprint=present[captured.name]))


_HAS_HINTS = sa.text("""
    SELECT prosrc LIKE '%pg_notify(%' FROM pg_trigger JOIN pg_proc AS function ON function.oid = tgfoid
    WHERE tgrelid = to_regclass(:relation) AND tgname = :name
""")

_COLUMNS_THERE = sa.text("""
    SELECT attname, EXISTS (SELECT 1 FROM pg_inherits WHERE inhparent = class.oid) AND relkind <> 'p' AS has_heirs
    FROM pg_class AS class JOIN pg_attribute ON attrelid = class.oid
    WHERE class.oid = to_regclass(:relation) AND attnum > 0 AND NOT attisdropped
""")


async def _columns_there(connection: AsyncConnection, captured: CapturedTable) -> set[str]:
    """Returns the names of the table's columns. Raises ``SchemaError`` if other tables inherit from the table."""
    rows = (await connection.execute(_COLUMNS_THERE, {"relation": relation_of(captured)})).all()
    if any(row.has_heirs for row in rows):
        raise SchemaError(
            f"other tables inherit from {captured.name}: a query of it shows their rows too, whose changes its "
            "triggers can't log. Make them partitions, or map the read model to a table of its own"
        )
    return {row.attname for row in rows}


async def log_schema(connection: AsyncConnection) -> str:
    """Returns the schema of diptych's tables on PostgreSQL."""
    found = await connection.execute(
        sa.text(
            "SELECT nspname FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace WHERE pg_class.oid = "
            "to_regclass(:log)"
        ),
        {"log": LOG.name},
    )
    return str(found.scalar_one())


async def _unique_in_sqlite(connection: AsyncConnection, table: str) -> list[list[UniqueColumn]]:
    """Returns the sets of columns that are unique in an SQLite table, the primary key first."""
    indexes = sa.text("""
        SELECT i.name, c.name AS column_name, c.coll, s.sql
        FROM pragma_index_list(:table) AS i, pragma_index_xinfo(i.name) AS c LEFT JOIN sqlite_master AS s
            ON s.type = 'index' AND s.name = i.name
        WHERE i."unique" AND c."key" ORDER BY i.origin <> 'pk', i.name, c.seqno
    """)
    columns = list(
        await connection.scalars(sa.text("SELECT name FROM pragma_table_xinfo(:table)"), {"table": table})
    )
    found: dict[tuple[str, str | None], list[tuple[str | None, str]]] = {}
    for index, name, collation, statement in await connection.execute(indexes, {"table": table}):
        found.setdefault((index, statement), []).append((name, collation))
    keys = sa.text("SELECT name FROM pragma_table_info(:table) WHERE pk ORDER BY pk")
    primary = [(name, "BINARY") for name in await connection.scalars(keys, {"table": table})]
    sets = [sqlite.unique_columns(primary, None, columns)]
    sets += [sqlite.unique_columns(rows, statement, columns) for (_, statement), rows in found.items()]
    return [list(each) for each in dict.fromkeys(map(tuple, sets)) if each]


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


async def remove(connection: AsyncConnection) -> None:
    """Takes the triggers of every table away. To be called in a transaction with the lock of the schema."""
    if connection.dialect.name == "sqlite":
        names = await connection.scalars(
            sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name GLOB :names"),
            {"names": f"{PREFIX}_*"},
        )
        statements = [f"DROP TRIGGER {quoted(name)}" for name in names]
    else:
        functions = sa.text(
            "SELECT p.oid::regprocedure::text FROM pg_proc AS p JOIN pg_trigger ON tgfoid = p.oid "
            "WHERE tgname IN (:row, :truncate) GROUP BY p.oid"
        )
        found = await connection.scalars(
            functions, {"row": postgres.ROW_TRIGGER, "truncate": postgres.TRUNCATE_TRIGGER}
        )
        statements = [f"DROP FUNCTION {name} CASCADE" for name in found]
    for statement in statements:
        await connection.exec_driver_sql(statement)
    await connection.execute(sa.delete(CAPTURE))


_EFFECTS = {
    "postgresql": sa.text("""
        SELECT nspname, relname, pg_table_is_visible(class.oid) AS is_visible
        FROM pg_class AS class JOIN pg_namespace AS space ON space.oid = relnamespace
        WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND (
            EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = class.oid AND NOT tgisinternal
                AND tgname NOT IN ('diptych_capture', 'diptych_capture_truncate'))
            OR EXISTS (SELECT 1 FROM pg_rewrite WHERE ev_class = class.oid AND rulename <> '_RETURN')
            OR EXISTS (SELECT 1 FROM pg_constraint WHERE confrelid = class.oid
                AND (confupdtype NOT IN ('a', 'r') OR confdeltype NOT IN ('a', 'r')))
            -- Checked at the commit, when the command sees more than at its last change.
            OR EXISTS (SELECT 1 FROM pg_constraint WHERE conrelid = class.oid AND condeferrable AND contype <> 'f'))
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
