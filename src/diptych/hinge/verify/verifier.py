"""The verification of a read model in Redis against SQL, and its repair."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from diptych.fence.contract import Target
from diptych.fence.fence import Fence
from diptych.hinge.replica import Replica
from diptych.hinge.verify.comparison import Candidates, Comparison
from diptych.hinge.verify.differences import Difference, difference_at
from diptych.hinge.verify.generation import Generation, ReplacedError
from diptych.hinge.verify.mending import Mender
from diptych.hinge.verify.settling import Settling
from diptych.hinge.verify.stamps import Stamps
from diptych.read.store.contents import Contents
from diptych.redis.service import RedisService

_CANDIDATES = 5_000
"""Number of candidates that are gathered before they are looked at again: they are held in memory."""

NAMED = 100
"""Number of differences that are named at most."""

_REMEMBERED = 100_000
"""Number of keys with differences that are remembered: with more, a document may be counted twice."""

_TRIES = 3
"""Number of generations that are tried, if each is replaced while it is compared."""


class Verified(msgspec.Struct):
    """The outcome for a read model.

    ``documents`` are the rows compared, ``differences`` the number of those that last, of which some are ``named``.
    ``undecided`` are the keys that were changed too often to be compared, ``left`` the differences that a repair has
    left. ``seconds`` is the time it took.
    """

    documents: int = 0
    differences: int = 0
    named: list[Difference] = []
    undecided: int = 0
    left: int = 0
    seconds: float = 0.0


class Steps(msgspec.Struct):
    """The progress of a verification in steps: each row, document and list entry is one. ``total`` is about."""

    done: int
    total: int
    seconds: float

    @property
    def time_left_s(self) -> float | None:
        """Time left in seconds, if the rest goes as fast; None at the beginning."""
        return self.seconds * max(0, self.total - self.done) / self.done if self.done else None


class Verifier:
    """The verification of a read model, with ``repair`` its repair too. ``tell`` is called with the progress."""

    def __init__(
        self,
        replica: Replica,
        redis: RedisService,
        fence: Fence,
        lease_s: float,
        *,
        repair: bool,
        tell: Callable[[Steps], Any],
    ) -> None:
        self._replica = replica
        self._fence = fence
        self._contents = Contents(replica.compiled, redis, replica.id)
        self._generation = Generation(replica, fence, lease_s)
        self._stamps = Stamps(replica, fence)
        self._settling = Settling(replica, fence, self._contents, self._generation, self._stamps)
        self._mender = Mender(replica.compiled, self._settling, self._contents, self._generation)
        self._repair = repair
        self._tell = tell
        self._counted: set[bytes] = set()

    async def verify(self) -> Verified:
        """Compares, and returns what differs for good.

        Raises ``NotComparableError``, ``RedisUnavailableError``, ``DatabaseUnavailableError``, and ``ReplacedError``
        if the read model was built anew again and again.
        """
        for attempt in range(_TRIES):
            row = await self._generation.leased()
            try:
                return await self._verify(row.target)
            except ReplacedError:
                if attempt + 1 == _TRIES:
                    raise
        raise AssertionError("unreachable")

    async def _verify(self, target: Target) -> Verified:
        began, done = time.monotonic(), 0
        total = await self._replica.source.count() * (2 + len(self._replica.compiled.lists))
        found = Verified()
        self._counted = set[bytes]()

        def told(count: int) -> None:
            nonlocal done
            done += count
            self._tell(Steps(done, max(done, total), time.monotonic() - began))

        generation = target.generation.encode()
        comparison = Comparison(self._replica, self._fence, self._contents, generation, self._stamps, told)
        gathered: Candidates = {}
        async for candidates in comparison.candidates():
            self._gather(gathered, candidates)
            if len(gathered) >= _CANDIDATES:
                await self._settle(target, gathered, found)
                gathered = {}
        await self._settle(target, gathered, found)
        await self._generation.check(target)
        found.documents, found.seconds = comparison.documents, time.monotonic() - began
        return found

    @staticmethod
    def _gather(gathered: Candidates, candidates: Candidates) -> None:
        for key, further in candidates.items():
            before = gathered.get(key)
            gathered[key] = (
                further
                if before is None
                else tuple(one | more for one, more in zip(before, further, strict=True))
            )

    async def _settle(self, target: Target, candidates: Candidates, found: Verified) -> None:
        settled = await self._settling.settle(target, candidates)
        new = sorted(each for each in settled.confirmed if each.key not in self._counted)
        self._counted.update(each.key for each in new if len(self._counted) < _REMEMBERED)
        found.named += [difference_at(each.key, each.findings) for each in new[: NAMED - len(found.named)]]
        found.differences += len(new)
        found.undecided += len(settled.undecided)
        if self._repair:
            found.left += len(await self._mender.mend(target, settled.confirmed))
