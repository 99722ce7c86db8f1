"""Changes of rows, as recorded in the change log."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from diptych.log.snapshot import Snapshot
from diptych.sql.description import Entity


class Change(msgspec.Struct):
    """A change of a row: its columns before (None: created) and after (None: deleted).

    ``position`` is that of its row in the change log, ``transaction`` the number of its transaction (SQLite: the
    position), ``snapshot`` the snapshot of this transaction (SQLite: None, everything before the position is seen).
    All three are set when the log's row is written. A change read back from the log has, of the row before, only the
    columns that identify the row: the primary key and all that take part in anything unique.
    """

    entity: Entity
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    position: int = 0
    transaction: int = 0
    snapshot: str | None = None

    @property
    def kind(self) -> Literal["created", "updated", "deleted"]:
        if self.before is None:
            return "created"
        return "updated" if self.after is not None else "deleted"

    @property
    def image(self) -> dict[str, Any]:
        """The row after the change; for a deleted row, its last state."""
        return self.after if self.after is not None else self.before or {}


class CommandContext(msgspec.Struct, frozen=True):
    """Command, request and actor of a change, as written to the change log."""

    command_id: str
    correlation_id: str | None = None
    actor: str | None = None


class LogPart(NamedTuple):
    """A part of the changes in a snapshot, in the order of their positions; ``more`` if the snapshot has further
    ones.

    ``last`` is the position of the last change read, ``skipped`` the number of changes left out of the part.
    """

    snapshot: Snapshot
    changes: list[Change]
    more: bool
    last: int = 0
    skipped: int = 0
