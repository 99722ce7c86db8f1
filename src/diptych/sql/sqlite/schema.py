"""Facts in SQLite's schema about the duration and the end of a change of a row."""

from __future__ import annotations

import sqlite3
from typing import Literal

_TRIGGERED = "SELECT tbl_name FROM sqlite_master WHERE type = 'trigger'"
_REFERENCED = """
SELECT DISTINCT reference."table" FROM sqlite_master AS child, pragma_foreign_key_list(child.name) AS reference
WHERE child.type = 'table'
"""
_SHARED_ENDS = """
SELECT count(*) FROM sqlite_master WHERE sql LIKE '%DEFERRED%' OR sql LIKE '%ROLLBACK%'
"""


class Schema:
    """The tables where changing a row may change many, and whether commands can share a transaction.

    ``has_shared_ends``: a failure of one command could fail all commands in its transaction, because constraints are
    checked at the commit (``DEFERRED``) or undo the whole transaction (``ON CONFLICT ROLLBACK``, ``RAISE(ROLLBACK,
    …)``). Then transactions are not shared.
    """

    def __init__(self) -> None:
        self.has_shared_ends = True
        self._version: int | None = None
        self._triggered: frozenset[str] = frozenset()
        self._referenced: frozenset[str] = frozenset()

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Reads the schema, unless unchanged since the last call."""
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        if version == self._version:
            return
        self._triggered = _names(connection, _TRIGGERED)
        self._referenced = _names(connection, _REFERENCED)
        (self.has_shared_ends,) = map(bool, connection.execute(_SHARED_ENDS).fetchone())
        self._version = version

    def is_quick(self, kind: Literal["insert", "change"], table: str) -> bool:
        """Returns whether inserting (or changing or deleting) a row does nothing else besides.

        Triggers may do anything. Where rows refer to the changed row by a foreign key, SQLite searches for them,
        perhaps without an index, and may change them too.
        """
        name = table.lower()
        if self._version is None or name in self._triggered:
            return False
        return kind == "insert" or name not in self._referenced


def _names(connection: sqlite3.Connection, statement: str) -> frozenset[str]:
    return frozenset(name.lower() for (name,) in connection.execute(statement))
