"""The comparison of a whole read model: each row with its documents, and each key in Redis with the rows.

Nothing of it is of one moment, and a write may be under way: what it finds are candidates, which are looked at again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from diptych.aio.tasks import read_ahead
from diptych.fence.fence import Fence
from diptych.hinge.replica import Replica
from diptych.hinge.verify.differences import is_same_body, key_in
from diptych.hinge.verify.stamps import Stamps
from diptych.read.addresses import Address, is_second, located_at
from diptych.read.lists.index import unpacked
from diptych.read.set_aside import KEYLESS, MARK
from diptych.read.store.contents import Contents
from diptych.read.store.record import Entries, entries_of, record_of, recorded_in
from diptych.read.store.writes import Write, batches
from diptych.read.stored import body_of

Candidates = dict[bytes, Entries]
"""Keys in Redis to be looked at again, with the entries of each list that are to be looked for."""


class Comparison:
    """The comparison of a generation with SQL. ``tell`` is called with the number of things compared."""

    def __init__(
        self,
        replica: Replica,
        fence: Fence,
        contents: Contents,
        generation: bytes,
        stamps: Stamps,
        tell: Callable[[int], None],
    ) -> None:
        self._replica = replica
        self._compiled = replica.compiled
        self._lists = replica.compiled.lists
        self._fence = fence
        self._contents = contents
        self._generation = generation
        self._stamps = stamps
        self._tell = tell
        self._none: Entries = tuple(frozenset() for _ in self._lists)
        self.documents = 0

    async def candidates(self) -> AsyncIterator[Candidates]:
        """Yields candidates, some at a time, until everything has been compared."""
        async for rows in read_ahead(self._replica.source.scan(self._replica.batch_size)):
            written = [write for row in rows for write in self._replica.store.writes.writes_at_all(row, 0, 0)]
            for part in batches([write for write in written if write.key != KEYLESS]):
                yield await self._compared(part)
            self.documents += len(rows)
            self._tell(len(rows))
        async for keys in read_ahead(self._contents.documents(self._generation)):
            yield await self._without_a_row(keys)
            self._tell(sum(not is_second(key) for key in keys))
        async for found in self._in_redis():
            yield found

    # From SQL to Redis

    async def _compared(self, writes: Sequence[Write]) -> Candidates:
        """Returns the writes that differ from the stored values."""
        lists, own = self._lists, [write for write in writes if not write.is_copy]
        entries: list[list[bytes]] = [[] for _ in lists]
        owners: list[list[bytes]] = [[] for _ in lists]
        for write in own:
            for at, index in enumerate(lists):
                each = write.entries[at]
                several = unpacked(each) if index.collection is not None else [each] if each else []
                entries[at] += several
                owners[at] += [write.key] * len(several)
        documents, records, scores = await self._contents.compared(self._generation, writes, entries)
        found = {
            write.key
            for write, stored in zip(writes, documents, strict=True)
            if stored is None or not is_same_body(body_of(stored), write.body or b"")
        }
        values = {write.key: stored for write, stored in zip(writes, documents, strict=True)}
        found |= await self._stamps.impossible(values)
        for write, record in zip(own, records, strict=False):
            if not self._is_record_of(record, write):
                found.add(write.key)
        for keys, there in zip(owners, scores, strict=True):
            found.update(key for key, score in zip(keys, there, strict=True) if score != b"0")
        found.update(await self._uncounted([write.key for write in own if (write.body or b"")[:1] == MARK]))
        return {
            write.key: () if write.is_copy else entries_of(write.entries, lists)
            for write in writes
            if write.key in found
        }

    def _is_record_of(self, record: bytes | None, write: Write) -> bool:
        if record == record_of(write.entries, self._lists):
            return True
        return recorded_in(record, self._lists) == entries_of(write.entries, self._lists)

    async def _uncounted(self, marked: Sequence[bytes]) -> set[bytes]:
        return set(marked) - await self._contents.counted(self._generation, marked) if marked else set()

    # From Redis to SQL

    async def _without_a_row(self, keys: Sequence[bytes]) -> Candidates:
        """Returns the keys of documents at which there is no row that the read model shows."""
        values: dict[Address, list[Any]] = {}
        for key in keys:
            located = None if key == KEYLESS else located_at(self._compiled.addresses, key)
            if located is not None:
                values.setdefault(located.address, []).append(located.value)
        shown: set[bytes] = {KEYLESS}
        async with self._fence.view() as view:
            for address, wanted in values.items():
                async for rows in self._replica.source.rows_by(view, address.names, wanted, len(wanted)):
                    shown.update(address.of(row) for row in rows if not self._compiled.leaves_out(row))
        return await self._present([key for key in keys if key not in shown])

    async def _present(self, keys: Sequence[bytes]) -> Candidates:
        """Returns the keys with a document, that is without a tombstone whose stamp is possible."""
        if not keys:
            return {}
        beginnings = await self._contents.beginnings(self._generation, keys)
        found = dict(zip(keys, beginnings, strict=True))
        impossible = await self._stamps.impossible(found)
        return {
            key: self._further(key) for key, first in found.items() if body_of(first) or key in impossible
        }

    # Within Redis

    async def _in_redis(self) -> AsyncIterator[Candidates]:
        """Yields what does not go together in Redis: records and entries without a document, uncounted marks."""
        for number, _ in enumerate(self._lists, 1):
            async for count, entries in self._contents.strays(self._generation, number):
                yield self._unrecorded(number - 1, entries)
                self._tell(count)
        if self._lists:
            async for _, keys in self._contents.strays(self._generation, 0):
                yield {key: self._none for key in keys if key != KEYLESS}
        async for keys in self._contents.set_aside(self._generation):
            found = await self._contents.beginnings(self._generation, keys)
            wrong = (key for key, first in zip(keys, found, strict=True) if body_of(first) != MARK)
            yield {key: self._further(key) for key in wrong if key != KEYLESS}

    def _unrecorded(self, at: int, entries: Sequence[bytes]) -> Candidates:
        """Returns the documents of these entries of a list, with the entries to look for."""
        found: Candidates = {}
        for entry in entries:
            if (key := key_in(entry)) != KEYLESS:
                # No document is at such a key: a copy has no entries, and would not be looked at for them.
                key = b"" if is_second(key) else key
                further = found.get(key, self._none)
                found[key] = (*further[:at], further[at] | {entry}, *further[at + 1 :])
        return found

    def _further(self, key: bytes) -> Entries:
        return () if is_second(key) else self._none
