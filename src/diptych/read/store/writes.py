"""The documents that a change writes into a generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from diptych.log.change import Change
from diptych.log.snapshot import Snapshot
from diptych.read.compiled import CompiledReadModel
from diptych.sql.description import Row

MAX_DOCUMENTS = 1000
MAX_BYTES = 1_000_000
STAMP_BYTES = 8
"""Bytes of the log position before each stored document."""


class Write(NamedTuple):
    """A document to be written: its key, stamp, transaction, body (None: deleted) and entry in each list.

    ``purge_at`` is the floor at which it may go if it is a tombstone; None if that is not known. ``is_second``: it is
    of the same change as the write before it, and belongs into the same script.
    """

    key: bytes
    stamp: int
    transaction: int
    body: bytes | None
    entries: tuple[bytes, ...]
    purge_at: int | None = None
    is_second: bool = False


class Writes:
    """Makes the writes of one read model."""

    def __init__(self, compiled: CompiledReadModel) -> None:
        self._compiled = compiled

    def writes_of(self, change: Change, purge_at: int | None = None) -> list[Write]:
        """What a change does to this read model: the old address is given up before the new one is taken."""
        writes: list[Write] = []
        before, after = change.before, change.after
        old = None if before is None else self._compiled.key_of(before)
        new = None if after is None else self._compiled.key_of(after)
        if before is not None and old is not None and old != new:
            writes.append(self.tombstone(old, change.position, change.transaction, purge_at))
        if after is not None:
            written = self.write_of(after, change.position, change.transaction)
            writes.append(written._replace(is_second=bool(writes)))
        return writes

    def write_of(self, row: Row, stamp: int, transaction: int) -> Write:
        """The document of a row, or what stands in its place if the row does not fit: its change is in either way.

        Stamp 0 gives way to everything that is stored already.
        """
        key, places = self._compiled.key_of(row), self._compiled.places(row)
        indexes = zip(self._compiled.lists, places, strict=True)
        entries = tuple(index.entry(place, key) for index, place in indexes)
        body = self._compiled.body(row, places)
        self._compiled.notices.met(key, body)
        return Write(key, stamp, transaction, body, entries)

    def tombstone(self, key: bytes, stamp: int, transaction: int, purge_at: int | None) -> Write:
        """The end of a document."""
        return Write(key, stamp, transaction, None, (b"",) * len(self._compiled.lists), purge_at=purge_at)

    def joined_write(self, row: Row, snapshot: Snapshot) -> Write:
        """The joined document of a row that this snapshot saw."""
        return self.write_of(row, snapshot.stamp, _of(snapshot))

    def joined_tombstone(self, key: bytes, snapshot: Snapshot) -> Write:
        """The end of a joined document that this snapshot did not see."""
        return self.tombstone(key, snapshot.stamp, _of(snapshot), snapshot.xmax)


def _of(snapshot: Snapshot) -> int:
    """The transaction number that stands for a joined document.

    It is refused once the floor has reached the snapshot's ``xmax``: a pass with a later snapshot has been here then,
    and the tombstone that would refuse an older document may be gone.
    """
    return snapshot.xmax - 1


def batches(writes: Sequence[Write]) -> list[list[Write]]:
    """Parts that one script may take: Redis answers nobody else while it runs."""
    batches: list[list[Write]] = []
    size = 0
    for write in writes:
        length = len(write.key) + len(write.body or b"") + sum(map(len, write.entries))
        is_full = bool(batches) and (len(batches[-1]) >= MAX_DOCUMENTS or size + length > MAX_BYTES)
        if not batches or (is_full and not write.is_second):
            batches.append([])
            size = 0
        batches[-1].append(write)
        size += length
    return batches
