"""The tables of a database by what a change of their rows may do, or notice, besides."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.sql.description import TableEffects

_EFFECTS = {
    # A view's change is that of its tables; a change of a table may be that of a partition.
    "postgresql": sa.text("""
        WITH RECURSIVE found (id, kind, column_name) AS (
            (
                SELECT oid, 'reaching', CAST(NULL AS name) FROM pg_class AS class WHERE relkind = 'v'
                    OR EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = class.oid AND NOT tgisinternal
                        AND tgname NOT IN ('diptych_capture', 'diptych_capture_truncate'))
                    OR EXISTS (SELECT 1 FROM pg_rewrite WHERE ev_class = class.oid AND rulename <> '_RETURN')
                    OR EXISTS (SELECT 1 FROM pg_constraint WHERE confrelid = class.oid
                        AND (confupdtype NOT IN ('a', 'r') OR confdeltype NOT IN ('a', 'r')))
              UNION ALL
                SELECT confrelid, 'referred', NULL FROM pg_constraint WHERE contype = 'f'
              UNION ALL
                SELECT indrelid, 'comparing', NULL FROM pg_index
                WHERE indisexclusion OR indisunique AND (indpred IS NOT NULL OR indexprs IS NOT NULL)
                    -- Checked at the commit, when the command sees more than at its last change.
                    OR indisunique AND NOT indimmediate
              UNION ALL
                SELECT indrelid, 'unique', attname FROM pg_index
                    CROSS JOIN generate_series(0, indnkeyatts - 1) AS place
                    JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[place]
                WHERE indisunique
            )
          UNION
            SELECT inhparent, kind, column_name FROM pg_inherits JOIN found ON inhrelid = id
        )
        SELECT nspname, relname, pg_table_is_visible(class.oid) AS is_visible, kind, column_name
        FROM found JOIN pg_class AS class ON class.oid = id JOIN pg_namespace AS space ON space.oid = relnamespace
        WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
    """),
    # A command is alone there from its first statement: it notices nothing that is later.
    "sqlite": sa.text("""
        SELECT tbl_name, 'reaching' FROM sqlite_master WHERE type = 'trigger' AND name NOT GLOB 'diptych_capture_*'
        UNION
        SELECT reference."table", 'reaching'
        FROM sqlite_master AS child, pragma_foreign_key_list(child.name) AS reference
        WHERE child.type = 'table'
            AND NOT (on_update IN ('NO ACTION', 'RESTRICT') AND on_delete IN ('NO ACTION', 'RESTRICT'))
    """),
}


async def table_effects(connection: AsyncConnection) -> TableEffects:
    """Returns the effects of changes, by the names of tables in mappings."""
    rows = (await connection.execute(_EFFECTS[connection.dialect.name])).all()
    effects = TableEffects(set(), set(), set(), {})
    if connection.dialect.name == "sqlite":
        effects.reaching.update(row[0] for row in rows)
        return effects
    for row in rows:
        names = [f"{row.nspname}.{row.relname}", *([row.relname] if row.is_visible else [])]
        for name in names:
            if row.kind == "unique":
                effects.unique.setdefault(name, set()).add(row.column_name)
            else:
                getattr(effects, row.kind).add(name)
    return effects
