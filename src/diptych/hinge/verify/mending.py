"""The repair of documents that were proved to differ.

A document that is wrong may have a stamp as great as the right one, so it can't be written over as a pass would. It
is replaced by the row as a snapshot of SQL has it, with stamp 0, as a build writes rows, under these conditions:

- ★ What is stored is, byte for byte, what was found wrong; this is checked in the script that replaces it. Otherwise
  a newer document, which a command has written meanwhile, would be lost.
- ★ The generation's floor has reached the ``xmax`` of the snapshot, in the script again. So every change that the
  snapshot saw is refused by the floor from then on, however late its message comes, as it is once a tombstone has
  gone. Otherwise it would go over stamp 0 and put an older state there. Changes that the snapshot did not see go
  over it.
- The row is read once more just before, and is still the same.

A change that is committed between that reading and the script may have been refused by the stamp of the wrong
document, and is not in the row either. So what was mended is proved again afterwards, and mended again if it differs.
Until then the document is a true one, of a moment ago; before it was none.
"""

from __future__ import annotations

from collections.abc import Sequence

from diptych.fence.contract import Target
from diptych.hinge.verify.comparison import Candidates
from diptych.hinge.verify.generation import Generation, NotComparableError, ReplacedError
from diptych.hinge.verify.settling import Confirmed, Settling
from diptych.read.addresses import is_second
from diptych.read.compiled import CompiledReadModel
from diptych.read.store.contents import Contents, Mending
from diptych.read.store.writes import Write

_TIMES = 5
"""Number of times that a document is mended at most."""


class Mender:
    """The repair of a read model's documents. Methods raise ``ReplacedError`` and the errors of both stores."""

    def __init__(
        self, compiled: CompiledReadModel, settling: Settling, contents: Contents, generation: Generation
    ) -> None:
        self._compiled = compiled
        self._settling = settling
        self._contents = contents
        self._generation = generation

    async def mend(self, target: Target, confirmed: Sequence[Confirmed]) -> list[Confirmed]:
        """Puts documents right, and returns those that differ even so."""
        left = list(confirmed)
        for _ in range(_TIMES):
            if not left:
                break
            await self._mend_once(target, left)
            settled = await self._settling.settle(target, self._candidates(left))
            left = settled.confirmed
        return left

    async def _mend_once(self, target: Target, confirmed: Sequence[Confirmed]) -> None:
        candidates = self._candidates(confirmed)
        sight = await self._settling.sight(candidates)
        floor: int | None = sight.snapshot.xmax
        try:
            await self._generation.floor_reached(target, sight.snapshot.xmax)
        except NotComparableError:
            floor = None  # a transaction has been open for long: nothing but lists can be set right
        now = await self._settling.sight(candidates)
        mendings = []
        for key, stored, _ in confirmed:
            is_due = floor is not None and self._settling.is_same_row(key, sight, now)
            write = sight.writes.get(key) or self._nothing(key)
            mendings.append(Mending(key, stored, candidates[key], write if is_due else None))
        outcome = await self._contents.mend(target, mendings, sight.snapshot.xmax)
        if isinstance(outcome, str):
            raise ReplacedError(f"{self._compiled.name}: the generation has been replaced ({outcome})")

    def _nothing(self, key: bytes) -> Write:
        """Returns the write in the place of a row that is not there."""
        entries = () if is_second(key) else (b"",) * len(self._compiled.lists)
        return Write(key, 0, 0, None, entries)

    @staticmethod
    def _candidates(confirmed: Sequence[Confirmed]) -> Candidates:
        return {each.key: each.stored.entries for each in confirmed}
