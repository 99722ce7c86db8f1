"""The tables of a database by what a change of their rows may do, or notice, besides."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.sql.description import TableEffects

# A view's change is that of its tables; a change of a table may be that of a partition. What is not asked for is not
# read: with thousands of tables this would take seconds, each half lease.
_POSTGRESQL = sa.text("""
    WITH RECURSIVE wanted (name, id) AS (
        SELECT name, CAST(to_regclass(relation) AS oid)
        FROM unnest(CAST(:names AS text[]), CAST(:relations AS text[])) AS given (name, relation)
      UNION
        SELECT name, inhrelid FROM wanted JOIN pg_inherits ON inhparent = id
    ), keys AS MATERIALIZED (
        SELECT conrelid, confrelid, nspname || '.' || class.relname AS full_name,
            CASE WHEN pg_table_is_visible(conrelid) THEN CAST(class.relname AS text) END AS plain_name,
            confupdtype NOT IN ('a', 'r') OR confdeltype NOT IN ('a', 'r') AS is_acting,
            referred.relkind = 'p' AS is_to_partitioned
        FROM pg_constraint JOIN pg_class AS class ON class.oid = conrelid
            JOIN pg_namespace AS space ON space.oid = class.relnamespace
            JOIN pg_class AS referred ON referred.oid = confrelid
        WHERE contype = 'f' AND (conrelid IN (SELECT id FROM wanted) OR confrelid IN (SELECT id FROM wanted))
    ), indexes AS MATERIALIZED (
        SELECT name, indrelid, (CAST(indkey AS int2[]))[0:indnkeyatts - 1] AS numbers, indisunique,
            indisexclusion OR indisunique AND (indpred IS NOT NULL OR indexprs IS NOT NULL)
                -- Checked at the commit, when the command sees more than at its last change.
                OR indisunique AND NOT indimmediate AS is_comparing
        FROM wanted JOIN pg_index ON indrelid = id WHERE indisunique OR indisexclusion
    ), unique_of AS (
        SELECT name, array_agg(DISTINCT CAST(attname AS text)) AS columns
        FROM indexes CROSS JOIN LATERAL unnest(numbers) AS number
            JOIN pg_attribute ON attrelid = indrelid AND attnum = number
        WHERE indisunique GROUP BY name
    ), referring_to AS (
        SELECT name, array_agg(DISTINCT told) AS tables
        FROM wanted JOIN keys ON confrelid = id CROSS JOIN LATERAL (VALUES (full_name), (plain_name)) AS names (told)
        WHERE told IS NOT NULL GROUP BY name
    )
    SELECT name,
        bool_or(relkind = 'v'
            OR EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = id AND NOT tgisinternal
                AND tgname NOT IN ('diptych_capture', 'diptych_capture_truncate'))
            OR EXISTS (SELECT 1 FROM pg_rewrite WHERE ev_class = id AND rulename <> '_RETURN')
            OR id IN (SELECT confrelid FROM keys WHERE is_acting)) AS is_reaching,
        bool_or(name IN (SELECT name FROM indexes WHERE is_comparing)
            -- A row that is referred to is looked for in a new snapshot, where the table is partitioned.
            OR id IN (SELECT conrelid FROM keys WHERE is_to_partitioned)) AS is_comparing,
        min(unique_of.columns) AS unique_columns, min(referring_to.tables) AS referring
    FROM wanted JOIN pg_class AS class ON class.oid = id
        LEFT JOIN unique_of USING (name) LEFT JOIN referring_to USING (name)
    GROUP BY name
""")

# A command is alone there from its first statement: it notices nothing that is later.
_SQLITE = sa.text("""
    SELECT tbl_name FROM sqlite_master WHERE type = 'trigger' AND name NOT GLOB 'diptych_capture_*'
    UNION SELECT reference."table" FROM sqlite_master AS child, pragma_foreign_key_list(child.name) AS reference
    WHERE child.type = 'table'
        AND NOT (on_update IN ('NO ACTION', 'RESTRICT') AND on_delete IN ('NO ACTION', 'RESTRICT'))
""")


async def table_effects(connection: AsyncConnection, tables: Collection[sa.Table]) -> TableEffects:
    """Returns the effects of changes of these tables."""
    effects = TableEffects(set(), set(), {}, {})
    if connection.dialect.name == "sqlite":
        effects.reaching.update(await connection.scalars(_SQLITE))
        return effects
    relation_of = connection.dialect.identifier_preparer.format_table
    values = {
        "names": [str(table.fullname) for table in tables],
        "relations": [relation_of(table) for table in tables],
    }
    for row in await connection.execute(_POSTGRESQL, values):
        effects.reaching.update([row.name] if row.is_reaching else [])
        effects.comparing.update([row.name] if row.is_comparing else [])
        effects.unique[row.name] = set(row.unique_columns or ())
        effects.referring[row.name] = set(row.referring or ())
    return effects
