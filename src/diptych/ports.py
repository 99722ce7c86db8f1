"""The few contracts that rooms share, so that write and read need not know each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

Row = Mapping[str, Any]
"""A row, or the part of one that was asked for: attribute name to value, in the types of Python."""

STAMP_BYTES = 8
"""How many bytes of log position stand before each stored document."""


class Column(msgspec.Struct, frozen=True):
    """What the rooms need to know of a mapped column. ``bytewise``: equal only if the bytes are.

    ``holds`` tells whether a value of the type can be in the column at all.
    """

    name: str
    type: type | None
    nullable: bool
    unique: bool
    bytewise: bool
    holds: Callable[[Any], bool]


class Entity(msgspec.Struct, frozen=True):
    """A mapped class as the other rooms see it: its columns by attribute name, in the order of the table."""

    model: type
    name: str
    primary_key: tuple[str, ...]
    columns: dict[str, Column]


class Change(msgspec.Struct):
    """One change of one row: all its columns before (None: created) and after (None: deleted).

    ``position`` is that of its row in the change log, set when the row is written.
    """

    entity: Entity
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    position: int = 0

    @property
    def kind(self) -> Literal["created", "updated", "deleted"]:
        if self.before is None:
            return "created"
        return "updated" if self.after is not None else "deleted"

    @property
    def image(self) -> dict[str, Any]:
        """The row after the change; of a deleted one, its last state."""
        return self.after if self.after is not None else self.before or {}


class CommandContext(msgspec.Struct, frozen=True):
    """Who and what a command belongs to, as written to the change log."""

    command_id: str
    correlation_id: str | None = None
    actor: str | None = None


class ChangePublisher(Protocol):
    """Takes committed changes to the read side. What a unit of work needs to know of it."""

    def committing(self) -> AbstractAsyncContextManager[None]:
        """Held from before the commit until after ``publish``: the read side is not switched in between."""

    async def publish(self, changes: Sequence[Change]) -> None:
        """Makes committed changes visible to readers, or readers distrustful. Never raises."""

    def doubt(self, changes: Sequence[Change]) -> None:
        """Makes readers distrustful, since it is not known whether these changes were committed."""


class RowSource(Protocol):
    """The SQL side of one read model: exactly the columns that its documents and lists need."""

    async def one(self, key: Any) -> Row | None:
        """The row with this key."""

    async def page(self, order: Sequence[str], after: Sequence[Any] | None, limit: int) -> list[Row]:
        """At most ``limit`` rows in the order of these columns, all greater than ``after`` in it."""

    def scan(self, batch_size: int) -> AsyncIterator[list[Row]]:
        """Every row, in batches; rows that change while it runs may be seen before or after the change."""

    async def settle(self) -> None:
        """Waits until every transaction that was open at the call is over.

        Raises ``DatabaseUnavailableError`` if one stays open for too long.
        """

    async def count(self) -> int:
        """How many rows there are, about."""


class Trusted(NamedTuple):
    """A generation in Redis that may be read, as long as the lease found with the data is this one."""

    generation: bytes
    lease: bytes


class Freshness(Protocol):
    """Whether one read model in Redis is as new as SQL."""

    @property
    def reason(self) -> str:
        """While it is not: why SQL answers, as a short token."""

    def trusted(self) -> Trusted | None:
        """What may be read, if anything. Raises ``RedisUnavailableError`` if Redis is critical and away."""

    def confirm(self, trusted: Trusted, lease: bytes | None) -> bool:
        """Whether what was read with this lease is still to be trusted, now that it is here."""

    def check_redis(self) -> None:
        """After a failed read: raises ``RedisUnavailableError`` if Redis is critical."""

    def lost(self, problem: str) -> None:
        """What is in Redis proved to be wrong: it must be rebuilt."""
