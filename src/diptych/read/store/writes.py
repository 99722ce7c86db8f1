"""The documents written into a generation by a change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from diptych.log import Change, Snapshot
from diptych.read.addresses import is_second
from diptych.read.compiled import CompiledReadModel
from diptych.sql.description import Row

MAX_DOCUMENTS = 1000
MAX_BYTES = 1_000_000
"""Limits of one script: Redis answers nobody else while it runs."""

MAX_IN_PASSING = 150
"""Number of documents in a script of passes and builds: no command waits for it, but queries of others do."""


class Write(NamedTuple):
    """A document to be written: its key, stamp, transaction, body (None: deleted) and entry in each list.

    In a list with an ``each`` there are several, which are packed (``ListIndex.entries``).
    ``purge_at`` is the floor at which a tombstone may go, None if not known. ``is_second`` marks a write that belongs
    into the same script as the one before: of the same change, or a copy of the same document. ``is_left_out`` marks
    the tombstone of a row that is there, and that the read model leaves out.
    """

    key: bytes
    stamp: int
    transaction: int
    body: bytes | None
    entries: tuple[bytes, ...]
    purge_at: int | None = None
    is_second: bool = False
    is_left_out: bool = False

    def copied_to(self, key: bytes) -> Write:
        """Returns the write of a copy at a second address."""
        return self._replace(key=key, entries=(), is_second=True)

    @property
    def is_copy(self) -> bool:
        """True at a second address: a copy is in no list, and is not counted among the set-aside documents."""
        return is_second(self.key)


class Writes:
    """The writes of a read model, made from changes and rows."""

    def __init__(self, compiled: CompiledReadModel) -> None:
        self._compiled = compiled

    def writes_of(self, change: Change, purge_at: int | None = None) -> list[Write]:
        """Returns the writes of a change: the old addresses are given up before the new ones are taken."""
        before, after = change.before, change.after
        old = [] if before is None else self._compiled.addresses_of(before)
        new = [] if after is None else self._compiled.addresses_of(after)
        if after is not None and self._compiled.leaves_out(after):
            # ★ At its own addresses too, whatever it was before: the change counts as in where it has been written,
            # and an earlier one that comes late must find something newer there.
            old, new, after = [*old, *new], [], None
        writes = [
            self.tombstone(key, change.position, change.transaction, purge_at)
            for key in dict.fromkeys(old)
            if key not in new
        ]
        if after is not None:
            writes += self.writes_at_all(after, change.position, change.transaction)
        return in_one_script(writes)

    def writes_at_all(self, row: Row, stamp: int, transaction: int) -> list[Write]:
        """Returns the writes of a row's document at all of its addresses, the key first."""
        written = self.write_of(row, stamp, transaction)
        if not self._compiled.also:
            return [written]
        return [written, *(written.copied_to(key) for key in self._compiled.addresses_of(row)[1:])]

    def write_at(self, key: bytes, row: Row, stamp: int, transaction: int, purge_at: int) -> Write:
        """Returns the write of a row's document at one of its addresses, or of a tombstone if the row is left out."""
        if self._compiled.leaves_out(row):
            return self.tombstone(key, stamp, transaction, purge_at)._replace(is_left_out=True)
        written = self.write_of(row, stamp, transaction)
        return written.copied_to(key) if is_second(key) else written

    def write_of(self, row: Row, stamp: int, transaction: int) -> Write:
        """Returns the write of a row's document at its key, or of the mark in its place if the row does not fit.

        Stamp 0 gives way to everything stored already.
        """
        key, places = self._compiled.key.of(row), self._compiled.places(row)
        indexes = zip(self._compiled.lists, places, strict=True)
        entries = tuple(index.entries(row, place, key) for index, place in indexes)
        body = self._compiled.body(row, places)
        self._compiled.notices.met(key, body)
        return Write(key, stamp, transaction, body, entries)

    def tombstone(self, key: bytes, stamp: int, transaction: int, purge_at: int | None) -> Write:
        """Returns the write to delete a document."""
        entries = () if is_second(key) else (b"",) * len(self._compiled.lists)
        return Write(key, stamp, transaction, None, entries, purge_at=purge_at)

    def joined_writes(self, row: Row, snapshot: Snapshot) -> list[Write]:
        """Returns the writes of the joined document of a row in this snapshot, at all of its addresses."""
        if self._compiled.leaves_out(row):
            return [self.joined_tombstone(key, snapshot) for key in self._compiled.addresses_of(row)]
        return self.writes_at_all(row, snapshot.stamp, _transaction_of(snapshot))

    def joined_tombstone(self, key: bytes, snapshot: Snapshot) -> Write:
        """Returns the write to delete a joined document without a row in this snapshot."""
        return self.tombstone(key, snapshot.stamp, _transaction_of(snapshot), snapshot.xmax)


def _transaction_of(snapshot: Snapshot) -> int:
    """Returns the transaction number of a joined document made from this snapshot.

    Redis refuses the document once the floor has reached the snapshot's ``xmax``: a pass with a later snapshot has
    been there then, and the tombstone that would refuse an older document may be gone.
    """
    return snapshot.xmax - 1


def in_one_script(writes: list[Write]) -> list[Write]:
    """Returns the writes of one change, marked as such."""
    return [
        *writes[:1],
        *(write if write.is_second else write._replace(is_second=True) for write in writes[1:]),
    ]


def batches(writes: Sequence[Write], most: int = MAX_DOCUMENTS) -> list[list[Write]]:
    """Divides writes into parts, each small enough for a single script of at most ``most`` documents."""
    batches: list[list[Write]] = []
    size = 0
    for write in writes:
        length = len(write.key) + len(write.body or b"") + sum(map(len, write.entries))
        is_full = bool(batches) and (len(batches[-1]) >= most or size + length > MAX_BYTES)
        if not batches or (is_full and not write.is_second):
            batches.append([])
            size = 0
        batches[-1].append(write)
        size += length
    return batches
