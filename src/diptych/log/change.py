"""Changes, as the change log has them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from diptych.log.snapshot import Snapshot
from diptych.sql.description import Entity


class Change(msgspec.Struct):
    """One change of one row: its columns before (None: created) and after (None: deleted).

    ``position`` is that of its row in the change log, ``transaction`` the number of the transaction that made it
    (SQLite: the position), ``snapshot`` the one that this transaction reads in (SQLite: None, it sees all that is
    before its position). They are set when the row is written. A change read back from the log has, of the row
    before, the columns by which the row is known: the primary key and all that is unique.
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
        """The row after the change; of a deleted one, its last state."""
        return self.after if self.after is not None else self.before or {}


class CommandContext(msgspec.Struct, frozen=True):
    """Who and what a command belongs to, as written to the change log."""

    command_id: str
    correlation_id: str | None = None
    actor: str | None = None


class LogPart(NamedTuple):
    """Some of the changes that a snapshot holds, in the order of their positions; ``more`` if there are others.

    ``last`` is the position of the last change that was read, ``skipped`` the number of those that were left out.
    """

    snapshot: Snapshot
    changes: list[Change]
    more: bool
    last: int = 0
    skipped: int = 0
