"""The contract of the fence: rows, sights, and the read models in Redis as commands use them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from diptych.log import Change, Entry, Snapshot
from diptych.redis import RedisIdentity

_BESIDE = ":"


class FenceId(NamedTuple):
    """The key of a fence row: a read model, as ``namespace:Name``, and the fingerprint of its declaration."""

    read_model: str
    fingerprint: str

    def beside(self, generation: str) -> FenceId:
        """Returns the id of the row with the cursor of a planned rebuild of this read model."""
        return FenceId(self.read_model, f"{self.fingerprint}{_BESIDE}{generation}")

    @property
    def served(self) -> FenceId:
        """The id of the row for queries. For a planned rebuild: the row whose place the rebuild is to take."""
        return FenceId(self.read_model, self.fingerprint.partition(_BESIDE)[0])


class Target(NamedTuple):
    """The incarnation and the generation to write a change to."""

    incarnation: RedisIdentity
    generation: str


class FenceRow(msgspec.Struct, frozen=True):
    """A row of ``diptych_fence`` at the time of reading: the state of a read model in Redis, by SQL.

    Times are seconds of SQL's clock; ``now`` is that clock at the time of reading. ``generation`` is "" before the
    first build. ``tables`` are the tables whose rows the documents are made from. ``history`` is the name of the
    database's history: another name once the database was put elsewhere, or back to an earlier state.
    """

    id: FenceId
    tables: frozenset[str]
    incarnation: RedisIdentity
    generation: str
    ready: bool
    lease_until: float
    building_until: float
    cursor: Snapshot | None
    passes_started: int
    passes_completed: int
    history: str
    now: float

    @property
    def is_leased(self) -> bool:
        """True if queries could trust the generation at the time of reading."""
        return self.now <= self.lease_until

    @property
    def target(self) -> Target:
        """The target of changes."""
        return Target(self.incarnation, self.generation)


Rows: TypeAlias = Mapping[FenceId, FenceRow]
"""Fence rows by their ids."""


class Sight(msgspec.Struct, frozen=True):
    """A read of a single moment: every fence row, and the changes in the log since an earlier snapshot.

    ``since`` is that earlier snapshot, ``snapshot`` the snapshot of the read. ``more`` if there were too many entries
    to list them all.
    """

    rows: Rows
    since: Snapshot
    snapshot: Snapshot
    entries: Sequence[Entry]
    more: bool = False


Applied: TypeAlias = frozenset[int] | None
"""The outcome of writing changes into a generation: None if that failed. Else the positions of commands' changes, by
any process, that are in the generation by then: the changes that were written, and others about as recent."""


class ReadSide(Protocol):
    """The read models of this process in Redis, for the ends of commands."""

    def apply(
        self, changes: Sequence[Change], targets: Mapping[FenceId, Target]
    ) -> Mapping[FenceId, asyncio.Future[Applied]]:
        """Begins to write committed changes into these generations, of read models with documents of single rows.

        Returns a future for each generation that is written to, with the outcome. No future raises.
        """

    def write_anew(self, fence: FenceId, target: Target) -> asyncio.Future[bool] | None:
        """Begins to write the documents made from several rows, as far as changes committed until now touch them.

        The future, which does not raise, has as its result whether all of these changes are in the generation then.
        Returns None for a read model without such documents, and where this process can't write to the target.
        """

    def can_look(self, fence: FenceId) -> bool:
        """Returns whether changes can be looked for in this read model's documents now."""

    def bring_in(
        self, fence: FenceId, target: Target, entries: Sequence[Entry], snapshot: Snapshot, *, expected: bool
    ) -> Coroutine[Any, Any, bool]:
        """Brings changes, seen by ``snapshot``, into this target, unless all are in.

        If some are ``expected``, by those who made them, they are given some milliseconds to come.
        Returns whether all are in by then; False too if that can't be told. Does not raise.
        """

    def ask(self, after: Mapping[FenceId, int]) -> Collection[FenceId]:
        """Has this process's keepers make a pass over each of these read models, later than the pass named.

        Returns the read models whose keepers can make one now.
        """
