"""What SQLite's schema tells about how long a change of one row may take, and how it may end."""

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
    """The tables where a change of one row may be many, and whether transactions can be shared.

    They can't where the failure of one command could be that of all: where constraints are checked at the commit
    (``DEFERRED``), or undo the whole transaction (``ON CONFLICT ROLLBACK``, ``RAISE(ROLLBACK, …)``).
    """

    def __init__(self) -> None:
        self.has_shared_ends = True
        self._version: int | None = None
        self._triggered: frozenset[str] = frozenset()
        self._referenced: frozenset[str] = frozenset()

    def look_at(self, connection: sqlite3.Connection) -> None:
        """Reads it if it has changed since the last time."""
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        if version == self._version:
            return
        self._triggered = _names(connection, _TRIGGERED)
        self._referenced = _names(connection, _REFERENCED)
        (self.has_shared_ends,) = map(bool, connection.execute(_SHARED_ENDS).fetchone())
        self._version = version

    def is_quick(self, kind: Literal["insert", "change"], table: str) -> bool:
        """Whether inserting a row, or changing or deleting it, does no more than that.

        Triggers may do anything. For a row that others refer to, these are looked for, perhaps without an index, and
        perhaps changed too.
        """
        name = table.lower()
        if self._version is None or name in self._triggered:
            return False
        return kind == "insert" or name not in self._referenced


def _names(connection: sqlite3.Connection, statement: str) -> frozenset[str]:
    return frozenset(name.lower() for (name,) in connection.execute(statement))
