"""The change log: changes of rows as recorded, and snapshots, the transactions seen by a statement."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Self

import msgspec

from diptych.sql.description import Entity


class Snapshot(NamedTuple):
    """The transactions seen by a statement, as PostgreSQL's ``pg_snapshot``: all below ``xmax`` but the ``running``.

    All below ``xmin`` were over. On SQLite, where writers never run at the same time, transactions are numbered by
    log position, ``xmin`` and ``xmax`` are the highest position plus one, and none is running.
    """

    xmin: int
    xmax: int
    running: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Returns the snapshot written as ``xmin:xmax:running,…``, PostgreSQL's format."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), tuple(int(number) for number in running.split(",") if number))

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.running))}"

    def sees(self, transaction: int) -> bool:
        """Returns whether the snapshot shows a transaction of this number, if committed at all."""
        return transaction < self.xmax and transaction not in self.running

    def seen_since(self, earlier: Snapshot, most: int) -> list[int] | None:
        """Returns the numbers of transactions seen since the ``earlier`` snapshot; None if more than ``most``."""
        if self.xmax - earlier.xmax + len(earlier.running) > most:
            return None
        running = set(self.running)
        return [n for n in (*earlier.running, *range(earlier.xmax, self.xmax)) if n not in running]

    @property
    def stamp(self) -> int:
        """Number ordering snapshots: a later snapshot has a greater ``xmax``, or fewer transactions running."""
        return self.xmax << 16 | 0xFFFF - min(len(self.running), 0xFFFF)


IMAGE_FORMAT = 1
"""``version`` of entries with ``image``, ``key`` and ``old_key`` as JSON, which ``ORMService`` writes."""

KEY_FORMAT = 2
"""``version`` of entries with keys alone: those of triggers, and of entities whose images are not logged."""

GAP = "gap"
"""``kind`` of an entry that names a table and no row: earlier changes of the table may be in no entry.

Every generation that was made from the table ended in the transaction of the entry.
"""

NOTHING = Snapshot(0, 0)
"""The snapshot that saw no transaction at all."""

EVERYTHING = Snapshot(2**63 - 1, 2**63 - 1)
"""The snapshot that saw every possible transaction: no change is later."""


class Change(msgspec.Struct):
    """A change of a row: its columns before (None: created) and after (None: deleted).

    ``position`` is that of its row in the change log, ``transaction`` the number of its transaction (SQLite: the
    position), ``snapshot`` the snapshot of this transaction (SQLite: None, everything before the position is seen).
    All three are set when the log's row is written. A change read back from the log has, of the row before, only the
    columns that entries name: the primary key, all that take part in anything unique, and foreign keys. Without an
    image (``has_image``) that is all there is of the row after the change too, and the row has to be read again at
    each of its addresses.
    """

    entity: Entity
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    position: int = 0
    transaction: int = 0
    snapshot: str | None = None
    has_image: bool = True

    @property
    def kind(self) -> Literal["created", "updated", "deleted"]:
        if self.before is None:
            return "created"
        return "updated" if self.after is not None else "deleted"

    @property
    def moves(self) -> bool:
        """True if the row gets a new key, or a new value in any other unique column."""
        before, after = self.before, self.after
        if before is None or after is None:
            return False
        return any(before[name] != after[name] for name in self.entity.identifying)

    @property
    def image(self) -> dict[str, Any]:
        """The row after the change; for a deleted row, its last state."""
        return self.after if self.after is not None else self.before or {}


class Entry(NamedTuple):
    """A committed change in the log, as seen by the end of a command.

    ``old_key`` and ``key`` are the columns that entries name, of the row before and after the change, as the log's
    JSON. ``key`` is empty in an entry that was not read from the log. ``version`` is the format of the entry.
    """

    position: int
    transaction: int
    table: str | None
    kind: str
    old_key: str | None
    key: str
    version: int = IMAGE_FORMAT

    @property
    def is_captured(self) -> bool:
        """True if a trigger has written the entry, most likely: the log has nothing of the row after the change."""
        return self.version == KEY_FORMAT


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
