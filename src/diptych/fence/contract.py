"""The fence rows, and what commands ask of the read models of their process."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from diptych.log.change import Change
from diptych.log.snapshot import Snapshot
from diptych.redis.identity import RedisIdentity

_BESIDE = ":"


class FenceId(NamedTuple):
    """A read model of one declaration: ``namespace:Name``, and a hash of what it declares."""

    read_model: str
    fingerprint: str

    def beside(self, generation: str) -> FenceId:
        """The id of the row of a planned rebuild, which has its cursor in the fence like everybody who has one."""
        return FenceId(self.read_model, f"{self.fingerprint}{_BESIDE}{generation}")

    @property
    def served(self) -> FenceId:
        """The id of the row that queries go by: of a planned rebuild's, the one whose place it is to take."""
        return FenceId(self.read_model, self.fingerprint.partition(_BESIDE)[0])


class FenceRow(msgspec.Struct, frozen=True):
    """What SQL says of one read model in Redis: a row of ``diptych_fence``, as it was when it was read.

    Times are seconds of SQL's clock, ``now`` is that clock when the row was read. ``generation`` is "" before the
    first build. ``tables`` are those whose rows the documents are made from. ``history`` is the name of the history
    that the database has: another one once it was put elsewhere, or back to an earlier state.
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


class Entry(NamedTuple):
    """A committed change as the end of a command sees it in the log: which row it was of, before and after it.

    ``old_key`` and ``key`` are the columns by which the row is known, as the log's JSON has them; ``key`` is empty in
    one that was not read from the log.
    """

    position: int
    transaction: int
    table: str | None
    kind: str
    old_key: str | None
    key: str


class Sight(msgspec.Struct, frozen=True):
    """What one statement saw: every fence row, and the changes in the log that a snapshot before did not see.

    ``since`` is that one, ``snapshot`` the statement's own. ``more`` if there were too many entries to give them all.
    """

    rows: Mapping[FenceId, FenceRow]
    since: Snapshot
    snapshot: Snapshot
    entries: Sequence[Entry]
    more: bool = False


class Target(NamedTuple):
    """Which generation of which Redis a change is to be applied to, as known before the change's commit."""

    incarnation: RedisIdentity
    generation: str


Applied: TypeAlias = frozenset[int] | None
"""What comes of changes that are written into a generation: None if they could not be; else the positions of
commands' changes, by any process, that are in it by then: these, and others about as recent."""


class ReadSide(Protocol):
    """The read models of this process in Redis, as the end of a command sees them."""

    def apply(
        self, changes: Sequence[Change], known: Mapping[FenceId, Target]
    ) -> Mapping[FenceId, asyncio.Future[Applied]]:
        """Begins to write committed changes into these generations.

        Returns, for each that they are written to, a future that tells whether all of them are in it. None raises.
        """

    def can_look(self, fence: FenceId) -> bool:
        """Whether changes can be looked for in this read model's documents now."""

    def bring_in(
        self, fence: FenceId, known: Target, entries: Sequence[Entry], snapshot: Snapshot
    ) -> Coroutine[Any, Any, bool]:
        """Sees to it that these changes of others, which ``snapshot`` saw, are in this generation.

        Returns whether they are; False too if that can't be told. It does not raise.
        """

    def ask(self, after: Mapping[FenceId, int]) -> Collection[FenceId]:
        """Has this process's keepers make a pass over each of these read models, later than the pass named.

        Returns those they can do it for.
        """
