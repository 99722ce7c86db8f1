"""The proof that a difference lasts: a write that is under way, or comes meanwhile, is no difference.

A look at a candidate is: read its row in a snapshot of SQL; wait for a pass that begins after that, so that the
generation has every change which the snapshot saw; read what Redis has, all of one moment.

Let two looks one after the other find the same row, and the very same bytes in Redis, which are not those of the row.
Then they were wrong all the time. For were they right, they would be of a change that the first snapshot did not see;
the second snapshot, which was taken later, saw that change and sees the row as it was, so there was a further change,
which the generation has by the second look: with a greater stamp, and so with other bytes.

What does not go together in Redis itself, such as a list entry that is in no record, is wrong without any proof: one
script writes it all.

Where there is nothing in Redis there is no stamp either: a row may have been deleted, and made again, before each
look. There the log has to be without an entry of this address.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from diptych.fence.contract import Target
from diptych.fence.fence import Fence
from diptych.hinge.replica import Replica
from diptych.hinge.verify.comparison import Candidates
from diptych.hinge.verify.differences import EXTRA, IMPOSSIBLE, MISSING, Finding, faults_of, findings_of
from diptych.hinge.verify.generation import Generation, ReplacedError
from diptych.hinge.verify.stamps import Stamps
from diptych.log import EVERYTHING, Change, Snapshot
from diptych.read.addresses import Address, is_second, located_at
from diptych.read.store.contents import Contents, Stored
from diptych.read.store.record import entries_of
from diptych.read.store.writes import Write

_LOOKS = 10
"""Number of looks at most, for a row that is changed all the time."""

_FAULTY_LOOKS = 3
"""Number of looks after which faults within Redis are enough."""

_LOG_ROWS = 2000
_MOST_LOG_ROWS = 100_000
"""Number of entries of the log that are read at most for a proof."""


class Sight(NamedTuple):
    """The writes of rows as a snapshot of SQL has them, by keys in Redis; none where there is no row."""

    snapshot: Snapshot
    writes: Mapping[bytes, Write]


class Confirmed(NamedTuple):
    """A difference that lasts: its key in Redis, the stored value, and the kinds of difference."""

    key: bytes
    stored: Stored
    findings: tuple[Finding, ...]


class Settled(NamedTuple):
    """The outcome for candidates: the differing ones, and the keys of rows that were changed before each look."""

    confirmed: list[Confirmed]
    undecided: list[bytes]


class Settling:
    """The proof for the candidates of a read model. Methods raise ``ReplacedError`` and the errors of both stores."""

    def __init__(
        self, replica: Replica, fence: Fence, contents: Contents, generation: Generation, stamps: Stamps
    ) -> None:
        self._replica = replica
        self._compiled = replica.compiled
        self._fence = fence
        self._contents = contents
        self._generation = generation
        self._stamps = stamps

    async def settle(self, target: Target, candidates: Candidates) -> Settled:
        """Returns those of the candidates that differ for good."""
        confirmed: list[Confirmed] = []
        earlier: dict[bytes, tuple[Sight, Stored]] = {}
        for number in range(_LOOKS):
            if not candidates:
                break
            sight = await self.sight(candidates)
            await self._generation.passed(target)
            stored = await self.look(target, candidates, sight)
            differing = self._differing(stored, sight, await self.sight(candidates))
            for key in await self._stamps.impossible({key: one.value for key, one in stored.items()}):
                differing.setdefault(key, (Finding(IMPOSSIBLE),))
            lasting = await self._lasting(differing, sight, stored, earlier)
            confirmed += [Confirmed(key, stored[key], differing[key]) for key in lasting]
            faulty = self._faulty(differing, stored, are_named=number + 1 >= _FAULTY_LOOKS)
            confirmed += [Confirmed(key, stored[key], faulty[key]) for key in faulty.keys() - lasting]
            lasting |= faulty.keys()
            earlier = {key: (sight, stored[key]) for key in differing}
            candidates = {key: candidates[key] for key in differing if key not in lasting}
        return Settled(confirmed, list(candidates))

    async def sight(self, candidates: Candidates) -> Sight:
        """Returns the writes of the rows at these keys, all of one moment."""
        values: dict[Address, list[Any]] = {}
        for key in candidates:
            if (located := located_at(self._compiled.addresses, key)) is not None:
                values.setdefault(located.address, []).append(located.value)
        found: dict[bytes, Write] = {}
        writes = self._replica.store.writes
        async with self._fence.view() as view:
            part = await self._fence.changes([self._compiled.entity.table], EVERYTHING, 1, None, view)
            for address, wanted in values.items():
                batch_size = self._replica.batch_size
                async for rows in self._replica.source.rows_by(view, address.names, wanted, batch_size):
                    for row in (row for row in rows if not self._compiled.leaves_out(row)):
                        write, key = writes.write_of(row, 0, 0), address.of(row)
                        found[key] = write.copied_to(key) if is_second(key) else write
        return Sight(part.snapshot, found)

    async def look(self, target: Target, candidates: Candidates, sight: Sight) -> dict[bytes, Stored]:
        """Returns the stored values of candidates, with the list entries named by the values and by the rows."""
        wanted = {key: self._entries(key, candidates, sight) for key in candidates}
        found = await self._contents.look(target, wanted)
        if found is None:
            raise ReplacedError(f"{self._replica.name}: the generation has been replaced")
        return found

    def _entries(self, key: bytes, candidates: Candidates, sight: Sight) -> tuple[frozenset[bytes], ...]:
        write = sight.writes.get(key)
        if write is None or is_second(key):
            return candidates[key]
        own = entries_of(write.entries, self._compiled.lists)
        return tuple(one | more for one, more in zip(own, candidates[key], strict=True))

    def _differing(self, stored: Mapping[bytes, Stored], *sights: Sight) -> dict[bytes, tuple[Finding, ...]]:
        """Returns the differences at each key from the rows as of before the look, and as of after the look."""
        found: dict[bytes, tuple[Finding, ...]] = {}
        for key, one in stored.items():
            differs = [findings_of(key, one, sight.writes.get(key), self._compiled.lists) for sight in sights]
            if all(differs):
                found[key] = differs[-1]
            elif faults := faults_of(key, one, self._compiled.lists):
                found[key] = faults
        return found

    def _faulty(
        self,
        differing: Mapping[bytes, tuple[Finding, ...]],
        stored: Mapping[bytes, Stored],
        *,
        are_named: bool,
    ) -> dict[bytes, tuple[Finding, ...]]:
        """Returns what differs where things do not go together in Redis itself, which is proof enough.

        What else differs there, of a row that is perhaps just being changed, is not proved by that. After some looks
        the faults alone ``are_named``.
        """
        found = {}
        for key, findings in differing.items():
            if faults := faults_of(key, stored[key], self._compiled.lists):
                if all(each in faults or each.what in (MISSING, EXTRA) for each in findings):
                    found[key] = findings
                elif are_named:
                    found[key] = faults
        return found

    async def _lasting(
        self,
        differing: Mapping[bytes, tuple[Finding, ...]],
        sight: Sight,
        stored: Mapping[bytes, Stored],
        earlier: Mapping[bytes, tuple[Sight, Stored]],
    ) -> set[bytes]:
        """Returns the keys of which it is proved now."""
        lasting, absent = set(), {}
        for key in differing:
            if key in earlier and self._is_same(key, earlier[key], (sight, stored[key])):
                if stored[key].body:
                    lasting.add(key)
                else:
                    absent[key] = earlier[key][0].snapshot
        return lasting | (absent.keys() - await self._changed_since(absent))

    def _is_same(self, key: bytes, earlier: tuple[Sight, Stored], now: tuple[Sight, Stored]) -> bool:
        return earlier[1] == now[1] and self.is_same_row(key, earlier[0], now[0])

    def is_same_row(self, key: bytes, one: Sight, another: Sight) -> bool:
        """Returns whether both sights have the same document and list entries at this key."""
        first, second = one.writes.get(key), another.writes.get(key)
        if first is None or second is None:
            return first is second
        if is_second(key):
            return first.body == second.body
        entries = (entries_of(write.entries, self._compiled.lists) for write in (first, second))
        return first.body == second.body and next(entries) == next(entries)

    async def _changed_since(self, absent: Mapping[bytes, Snapshot]) -> set[bytes]:
        """Returns the keys that the log has an entry of since the snapshot; all if it has too many entries."""
        if not absent:
            return set()
        changed: set[bytes] = set()
        since, part, count = min(absent.values(), key=lambda snapshot: snapshot.stamp), None, 0
        while part is None or part.more:
            part = await self._fence.changes([self._compiled.entity.table], since, _LOG_ROWS, part)
            count += len(part.changes)
            try:
                changed.update(key for change in part.changes for key in self._addresses(change))
            except KeyError:
                return set(absent)  # the entry does not name its row any more
            if count > _MOST_LOG_ROWS:
                return set(absent)
        return changed

    def _addresses(self, change: Change) -> set[bytes]:
        images = (image for image in (change.before, change.after) if image is not None)
        return {key for image in images for key in self._compiled.addresses_of(image)}
