"""Conversions between the columns of SQL and the fence's types: fence rows, log entries, parameters."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy.engine import RowMapping

from diptych.fence.contract import Entry, FenceId, FenceRow
from diptych.log.snapshot import Snapshot
from diptych.redis import RedisIdentity
from diptych.sql.database import Values

entries_from_json = msgspec.json.Decoder(list[Entry]).decode
"""Decodes the text of ``LogStatements.entries_as_text``."""


def entry_of(row: Values) -> Entry:
    """Returns the log entry in a row of ``LogStatements.entries``."""
    keys = row["old_key"], row["key"]
    return Entry(row["position"], row["number"], row["table_name"], row["kind"], *keys)


def fence_row_of(row: Values | RowMapping) -> FenceRow:
    """Returns the fence row in a row of ``FenceStatements.rows``."""
    return FenceRow(
        id=FenceId(row["read_model"], row["declaration"]),
        tables=frozenset(msgspec.json.decode(row["tables"])),
        incarnation=RedisIdentity(row["run_id"], row["replication_id"]),
        generation=row["generation"],
        ready=row["ready"],
        lease_until=row["lease_until"],
        building_until=row["building_until"],
        cursor=None if row["cursor"] is None else Snapshot.parse(row["cursor"]),
        passes_started=row["passes_started"],
        passes_completed=row["passes_completed"],
        history=row["history"],
        now=row["now"],
    )


def new_row(fence: FenceId, tables: Collection[str]) -> dict[str, Any]:
    """Returns the columns of a fence row with no generation and a lease in the past."""
    zeros = ("lease_until", "building_until", "cursor_stamp", "passes_started", "passes_completed")
    return {
        "read_model": fence.read_model,
        "declaration": fence.fingerprint,
        "tables": tables_as_json(tables),
        **dict.fromkeys(("run_id", "replication_id", "generation", "database"), ""),
        "ready": False,
        **dict.fromkeys(zeros, 0),
        "cursor": None,
    }


def key_values(row: FenceRow) -> dict[str, Any]:
    """Returns the parameters for the names of a row and of its generation."""
    return {
        "p_read_model": row.id.read_model,
        "p_declaration": row.id.fingerprint,
        "p_generation": row.generation,
    }


def incarnation_values(row: FenceRow) -> dict[str, Any]:
    """Returns the parameters of the row's incarnation."""
    return {"p_run_id": row.incarnation.run_id, "p_replication_id": row.incarnation.replication_id}


def tables_as_json(tables: Collection[str]) -> str:
    """Returns the column ``tables``."""
    return msgspec.json.encode(sorted(set(tables))).decode()
