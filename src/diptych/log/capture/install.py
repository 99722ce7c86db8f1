"""Triggers of captured tables: made, and made anew after a change of trigger or table."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import SchemaError
from diptych.log.append import gap_entries
from diptych.log.capture import postgres, sqlite
from diptych.log.capture.fingerprint import Look, columns_text, fingerprints, looks, relation_of
from diptych.log.capture.sqlite import UniqueSet
from diptych.log.capture.table import CAPTURE, FORMAT, PREFIX, CapturedTable, quoted
from diptych.log.table import LOG

_TABLES = sa.bindparam("p_captured", expanding=True, type_=sa.Text)


async def broken(connection: AsyncConnection, tables: Sequence[CapturedTable]) -> list[CapturedTable]:
    """Returns the tables whose triggers are not known to have logged every change."""
    return [look.captured for look in await looks(connection, tables) if not look.is_right]


async def mend(
    connection: AsyncConnection, tables: Sequence[CapturedTable], token: str, *, hints: bool = True
) -> list[CapturedTable]:
    """Makes the triggers of these tables, except triggers known to be right. Returns the tables.

    To be called in a transaction with the lock of the schema. Of each table returned, changes may have been missed
    until now: an entry of the log says so, and the caller ends, in this transaction, what was made from them.
    """
    was_right = await _right_before(connection) if connection.dialect.name == "sqlite" else []
    found = await looks(connection, tables)
    wrong = [look for look in found if not look.is_right]
    for look in wrong:
        if not look.has_triggers:
            for statement in await install_statements(connection, look, token, hints=hints):
                await connection.exec_driver_sql(statement)
    if connection.dialect.name == "postgresql":
        await _set_hints(connection, [look for look in found if look.is_right], hints=hints)
    if wrong:
        await _note(connection, wrong)
        if gaps := {look.captured.name: look.captured.entity for look in wrong if look.has_gap}:
            await connection.execute(gap_entries(connection.dialect.name, gaps))
        # The statements above have changed the number that stands for the triggers of every table.
        names = {look.captured.name for look in wrong}
        await _keep_right(connection, [name for name in was_right if name not in names])
    return [look.captured for look in wrong]


async def _note(connection: AsyncConnection, mended: Sequence[Look]) -> None:
    """Notes the triggers of these tables as right at this moment."""
    present = await fingerprints(connection, [look.captured for look in mended])
    names = [look.captured.name for look in mended]
    await connection.execute(
        sa.delete(CAPTURE).where(CAPTURE.c.table_name.in_(_TABLES)), {"p_captured": names}
    )
    rows = [
        {
            "table_name": look.captured.name,
            "columns": columns_text(look.to_be_named.columns),
            "fingerprint": present.get(look.captured.name, ""),
            "format": FORMAT,
        }
        for look in mended
    ]
    await connection.execute(sa.insert(CAPTURE), rows)


async def install_statements(
    connection: AsyncConnection, look: Look, token: str, *, hints: bool = True
) -> Sequence[str]:
    """Returns the statements to make the triggers of a table."""
    captured = look.to_be_named
    if connection.dialect.name == "postgresql":
        await _refuse_heirs(connection, captured)
        schema = await log_schema(connection)
        await _refuse_second_log(connection, captured, schema)
        left = await _left_elsewhere(connection, captured, schema)
        partitions = (await connection.scalars(_PARTITIONS, {"relation": relation_of(captured)})).all()
        return [*left, *postgres.install(captured, schema, token, partitions, hints=hints)]
    made = sqlite.triggers(captured, await _unique_in_sqlite(connection, captured.table))
    existing = sa.text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name GLOB :names")
    rows = await connection.execute(existing, {"names": f"{PREFIX}_*"})
    if {row.name: row.sql for row in rows if row.name in made} == made:
        return []
    return [*(f"DROP TRIGGER IF EXISTS {quoted(name)}" for name in made), *made.values()]


async def _set_hints(connection: AsyncConnection, right: Sequence[Look], *, hints: bool) -> None:
    """Makes the functions of these tables anew where hints are to be added or left out.

    Nothing is missed by that, and no generation ends.
    """
    for captured in (look.to_be_named for look in right):
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

# A foreign table has no such triggers before PostgreSQL 16.
_PARTITIONS = sa.text("""
    SELECT CAST(relid AS text)
    FROM pg_partition_tree(to_regclass(:relation)) JOIN pg_class AS class ON class.oid = relid
    WHERE level > 0 AND relkind IN ('r', 'p') ORDER BY relid
""")

_ELSEWHERE = sa.text("""
    SELECT CAST(CAST(tgrelid AS regclass) AS text) AS relation, tgname
    FROM pg_trigger JOIN pg_proc AS function ON function.oid = tgfoid JOIN pg_namespace AS n ON n.oid = pronamespace
    WHERE nspname = :schema AND proname = ANY(CAST(:functions AS name[])) AND tgparentid = 0
        AND tgrelid IS DISTINCT FROM CAST(to_regclass(:relation) AS oid)
        AND tgrelid NOT IN (SELECT relid FROM pg_partition_tree(to_regclass(:relation)))
""")


async def _left_elsewhere(connection: AsyncConnection, captured: CapturedTable, schema: str) -> Sequence[str]:
    """Returns the statements to take triggers away from the table that formerly had this name, or was a partition.

    The functions are made for the columns of the table that has the name now.
    """
    functions = list(postgres.function_names(captured))
    values = {"schema": schema, "functions": functions, "relation": relation_of(captured)}
    found = await connection.execute(_ELSEWHERE, values)
    return [f"DROP TRIGGER IF EXISTS {quoted(row.tgname)} ON {row.relation}" for row in found]


_HEIRS = sa.text("""
    SELECT relkind <> 'p' AND EXISTS (SELECT 1 FROM pg_inherits WHERE inhparent = class.oid)
    FROM pg_class AS class WHERE class.oid = to_regclass(:relation)
""")


async def _refuse_heirs(connection: AsyncConnection, captured: CapturedTable) -> None:
    """Raises ``SchemaError`` if other tables inherit from the table."""
    if await connection.scalar(_HEIRS, {"relation": relation_of(captured)}):
        raise SchemaError(
            [
                f"other tables inherit from {captured.name}: a query of it shows their rows too, whose changes its "
                "triggers can't log. Make them partitions, or map the read model to a table of its own"
            ]
        )


_OTHER_LOG = sa.text("""
    SELECT nspname FROM pg_trigger JOIN pg_proc AS function ON function.oid = tgfoid
        JOIN pg_namespace AS n ON n.oid = pronamespace
        JOIN pg_class AS log ON log.relnamespace = n.oid AND log.relname = :log
    WHERE tgrelid = to_regclass(:relation) AND tgname = :trigger AND nspname <> :schema
""")


async def _refuse_second_log(connection: AsyncConnection, captured: CapturedTable, schema: str) -> None:
    """Raises ``SchemaError`` if the table's triggers write to the log of another schema.

    Two applications would take the triggers from each other, again and again.
    """
    values = {"relation": relation_of(captured), "trigger": postgres.ROW_TRIGGER, "schema": schema}
    other = await connection.scalar(_OTHER_LOG, {**values, "log": LOG.name})
    if other is not None:
        raise SchemaError(
            [
                f"changes of {captured.name} are captured by another application, into {other}.{LOG.name}, and a "
                f'table has one log: let both have one, with "{other}" as the first schema in the search_path of '
                "this one's role, or run `diptych uninstall` for the other one"
            ]
        )


async def log_schema(connection: AsyncConnection) -> str:
    """Returns the schema of diptych's tables on PostgreSQL, present or to be made."""
    found = await connection.execute(
        sa.text(
            "SELECT coalesce((SELECT nspname FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace "
            "WHERE pg_class.oid = to_regclass(:log)), current_schema(), 'public')"
        ),
        {"log": LOG.name},
    )
    return str(found.scalar_one())


async def _unique_in_sqlite(connection: AsyncConnection, table: str) -> list[UniqueSet]:
    """Returns the unique sets of columns of an SQLite table, the primary key first."""
    indexes = sa.text("""
        SELECT i.name, i.origin, c.name AS column_name, c.coll, s.sql
        FROM pragma_index_list(:table) AS i, pragma_index_xinfo(i.name) AS c LEFT JOIN sqlite_master AS s
            ON s.type = 'index' AND s.name = i.name
        WHERE i."unique" AND c."key" ORDER BY i.origin <> 'pk', i.partial, i.name, c.seqno
    """)
    columns = list(
        await connection.scalars(sa.text("SELECT name FROM pragma_table_xinfo(:table)"), {"table": table})
    )
    found: dict[tuple[str, str, str | None], list[tuple[str | None, str]]] = {}
    for index, origin, name, collation, statement in await connection.execute(indexes, {"table": table}):
        found.setdefault((index, origin, statement), []).append((name, collation))
    sets = [sqlite.unique_set(rows, statement, columns) for (_, _, statement), rows in found.items()]
    if "pk" not in {origin for _, origin, _ in found}:  # an INTEGER PRIMARY KEY has no index
        keys = sa.text("SELECT name FROM pragma_table_info(:table) WHERE pk ORDER BY pk")
        primary = [(name, "BINARY") for name in await connection.scalars(keys, {"table": table})]
        sets = [*([sqlite.unique_set(primary, None, columns)] if primary else []), *sets]
    return list(dict.fromkeys(sets))


async def _right_before(connection: AsyncConnection) -> list[str]:
    """Returns the tables whose triggers are known by the present number of SQLite's schema."""
    version = sa.text(
        "SELECT table_name FROM diptych_capture, pragma_schema_version "
        "WHERE json_extract(fingerprint, '$.triggers') = CAST(schema_version AS TEXT)"
    )
    return list(await connection.scalars(version))


async def _keep_right(connection: AsyncConnection, names: Collection[str]) -> None:
    update = sa.text(
        "UPDATE diptych_capture SET fingerprint = json_set(fingerprint, '$.triggers', "
        "(SELECT CAST(schema_version AS TEXT) FROM pragma_schema_version)) WHERE table_name IN :p_captured"
    ).bindparams(_TABLES)
    if names:
        await connection.execute(update, {"p_captured": list(names)})


async def remove_statements(connection: AsyncConnection) -> Sequence[str]:
    """Returns the statements to take the triggers and functions of every table away."""
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
