"""The names of a read model's keys in Redis.

All keys of a read model with one fingerprint carry one hash tag, ``{namespace:ReadModel:fingerprint}``, here ``m``:

- ``m:lease`` is ``<run id>:<replication id>:<generation>:<history>`` with an absolute expiry: a process that reads it
  from the Redis named in it, and has a database with that history, may trust that generation, as it is at that
  moment.
- ``m:keeper`` names the process that has made the last pass, ``host:pid``, for people; it goes with the lease.
- ``m:switching`` exists, for a second at most, while a planned rebuild puts its generation in place of another.
- ``m:generations`` is a set of the generations that may have left keys.
- ``m:<generation>:marker`` exists while the generation may be written: ``b<n>`` after the builder's script number n,
  ``f<floor>`` once the generation is built, ``f<floor>:<pass>`` after a pass. All changes of transactions below the
  floor are in.
- ``m:<generation>:d:<key>`` is a stored document: an 8-byte big-endian stamp, then the document's JSON bytes as they
  go out (``read/stored.py``); a deleted document leaves its stamp alone, a tombstone. The stamp is the change's log
  position; of a joined document, that of the snapshot it was made from (``Snapshot.stamp``).
- ``m:<generation>:d:<0xff><column>:<value>`` is a copy of the document with this value in a column of ``also``, or
  a tombstone, under the same rules.
- ``m:<generation>:i:<list>`` is a sorted set of list entries, all of score 0.
- ``m:<generation>:entries`` is a hash from a row's key to the list entries of its document: one for each list, or an
  array of those in a list with an ``each``.
- ``m:<generation>:recent`` is a sorted set of the positions of commands' changes that are in, the last thousand.
- ``m:<generation>:carried`` is, of joined documents, the last snapshot whose changes commands have brought in, all of
  them, by anybody: its stamp of eight bytes, then its text.
- ``m:<generation>:tombstones`` is a sorted set of tombstones (stamp, then document key), by the floor at which each
  may go.
- ``m:<generation>:aside`` is a sorted set of the documents of set-aside rows (``read/set_aside.py``).
"""

from __future__ import annotations

from diptych.fence.contract import FenceId
from diptych.read.lists.index import ListIndex


class Keys:
    """The names of the keys of a read model with a fingerprint."""

    def __init__(self, fence: FenceId) -> None:
        self.prefix = f"{{{fence.read_model}:{fence.fingerprint}}}".encode()
        self.lease = self.prefix + b":lease"
        self.keeper = self.prefix + b":keeper"
        self.switching = self.prefix + b":switching"
        self.generations = self.prefix + b":generations"

    def of(self, generation: bytes, rest: bytes) -> bytes:
        """Returns a key of this generation; with an empty ``rest``, the prefix of all its keys."""
        return self.prefix + b":" + generation + b":" + rest

    def marker(self, generation: bytes) -> bytes:
        return self.of(generation, b"marker")

    def entries(self, generation: bytes) -> bytes:
        return self.of(generation, b"entries")

    def recent(self, generation: bytes) -> bytes:
        return self.of(generation, b"recent")

    def carried(self, generation: bytes) -> bytes:
        return self.of(generation, b"carried")

    def tombstones(self, generation: bytes) -> bytes:
        return self.of(generation, b"tombstones")

    def set_aside(self, generation: bytes) -> bytes:
        return self.of(generation, b"aside")

    def document(self, generation: bytes, key: bytes) -> bytes:
        return self.of(generation, b"d:" + key)

    def index(self, generation: bytes, index: ListIndex) -> bytes:
        return self.of(generation, b"i:" + index.name.encode())
