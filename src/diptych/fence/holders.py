"""The sessions that hold tables on which triggers are to be made, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.log.capture.fingerprint import relation_of
from diptych.log.capture.install import broken
from diptych.log.capture.table import CapturedTable

# A lock on a partition is in the way as well. Prepared transactions have no process, and of a session of another role
# no more than its application's name may be known.
_HELD = sa.text("""
    WITH RECURSIVE wanted (name, id) AS (
        SELECT name, CAST(to_regclass(relation) AS oid)
        FROM unnest(CAST(:names AS text[]), CAST(:relations AS text[])) AS captured (name, relation)
      UNION
        SELECT name, inhrelid FROM wanted JOIN pg_inherits ON inhparent = id
    )
    SELECT name, held.pid,
        concat_ws(', ', nullif(application_name, ''), nullif(backend_type, 'client backend'), state) AS what,
        bool_or(mode = 'ShareUpdateExclusiveLock') AS may_yield,
        (SELECT CAST(setting AS int) FROM pg_settings WHERE pg_settings.name = 'deadlock_timeout') AS deadlock_ms
    FROM wanted JOIN pg_locks AS held ON relation = id LEFT JOIN pg_stat_activity AS session ON session.pid = held.pid
    WHERE granted AND held.pid IS DISTINCT FROM pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    GROUP BY name, held.pid, application_name, backend_type, state ORDER BY name, held.pid
""")


class Holders(NamedTuple):
    """The ``tables`` that lack triggers and are locked, and the ``sessions`` that hold the locks, in words.

    ``yield_ms`` is the time, in milliseconds, after which PostgreSQL has autovacuum make room for who waits; None if
    none of them may be autovacuum.
    """

    tables: Sequence[str]
    sessions: Sequence[str]
    yield_ms: int | None


async def holders(connection: AsyncConnection, tables: Sequence[CapturedTable]) -> Holders:
    """Returns who holds those of the tables whose triggers have to be made."""
    wrong = await broken(connection, tables)
    values = {"names": [each.name for each in wrong], "relations": list(map(relation_of, wrong))}
    rows = (await connection.execute(_HELD, values)).all()
    sessions = [
        "a prepared transaction" if row.pid is None else f"pid {row.pid} ({row.what or 'of another role'})"
        for row in rows
    ]
    yield_ms = next((row.deadlock_ms for row in rows if row.may_yield), None)
    return Holders(sorted({row.name for row in rows}), list(dict.fromkeys(sessions)), yield_ms)
