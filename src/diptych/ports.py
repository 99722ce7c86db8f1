"""The few contracts that rooms share, so that write and read need not know each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Container, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, NamedTuple, Protocol, Self, TypeAlias

import msgspec

Row = Mapping[str, Any]
"""A row, or the part of one that was asked for: attribute name to value, in the types of Python."""

STAMP_BYTES = 8
"""How many bytes of log position stand before each stored document."""


class Unreadable:
    """Stands in a row for a value that its column's type, or the driver, fails to load; ``reason`` says how.

    It fits no field of a document, no key and no order: to msgspec it is a class of which it knows nothing.
    """

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __str__(self) -> str:
        return f"<{self.reason}>"


class Column(msgspec.Struct, frozen=True):
    """What the rooms need to know of a mapped column. ``bytewise``: equal only if the bytes are; if not, ``compared``
    says what of it has others be equal.

    ``logged`` tells whether the change log's image gives back exactly the value that a select does; ``zoned``,
    whether its points in time have a zone; ``texts``, of an enum, every value with the text that is stored for it.
    ``fit`` gives a value as the column holds it, and raises ``ValueError`` for one that can't be in it at all; what
    is of the column's type is in that form already if the column ``has_one_form``.
    """

    name: str
    type: type | None
    nullable: bool
    unique: bool
    bytewise: bool
    logged: bool
    fit: Callable[[Any], Any]
    compared: str = ""
    has_one_form: bool = True
    zoned: bool = False
    texts: Mapping[Any, str] | None = None


class Entity(msgspec.Struct, frozen=True):
    """A mapped class as the other rooms see it: its columns by attribute name, in the order of the table.

    ``identifying`` are those by which a row is known: the primary key, and all that takes part in anything unique.
    """

    model: type
    name: str
    table: str
    primary_key: tuple[str, ...]
    columns: dict[str, Column]
    identifying: tuple[str, ...] = ()


class Change(msgspec.Struct):
    """One change of one row: its columns before (None: created) and after (None: deleted).

    ``position`` is that of its row in the change log, ``transaction`` the number of the transaction that made it
    (SQLite: the position), ``snapshot`` the one that this transaction reads in (SQLite: None, it sees all that is
    before its position). They are set when the row is written. A change read back from the log has, of the row
    before, the columns by which the row is known: the primary key and all that is unique.
    """

    entity: Entity
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    position: int = 0
    transaction: int = 0
    snapshot: str | None = None

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


class Snapshot(NamedTuple):
    """Which transactions a statement saw, as ``pg_snapshot`` of PostgreSQL: all below ``xmax`` but the ``running``.

    All below ``xmin`` were over. On SQLite, where writers are one after the other, transactions are numbered by log
    position, ``xmin`` and ``xmax`` are one more than the highest one, and none is running.
    """

    xmin: int
    xmax: int
    running: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``xmin:xmax:running,…``, PostgreSQL's way to write it."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), tuple(int(number) for number in running.split(",") if number))

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.running))}"

    def sees(self, transaction: int) -> bool:
        """Whether a transaction of this number was committed before it, if it was committed at all."""
        return transaction < self.xmax and transaction not in self.running

    def seen_since(self, earlier: Snapshot, most: int) -> list[int] | None:
        """The numbers of the transactions that it sees and an ``earlier`` one did not; None if more than ``most``."""
        if self.xmax - earlier.xmax + len(earlier.running) > most:
            return None
        running = set(self.running)
        return [n for n in (*earlier.running, *range(earlier.xmax, self.xmax)) if n not in running]

    @property
    def stamp(self) -> int:
        """A number by which snapshots are ordered: a later one has a greater ``xmax``, or fewer running below it."""
        return self.xmax << 16 | 0xFFFF - min(len(self.running), 0xFFFF)


NOTHING = Snapshot(0, 0)
"""The snapshot that saw no transaction at all."""

EVERYTHING = Snapshot(2**63 - 1, 2**63 - 1)
"""One that saw every transaction there can be: no change is later than it."""


class Incarnation(NamedTuple):
    """One life of one Redis: the process (new at each start) and the history it follows (new at each promotion)."""

    run_id: str
    replication_id: str


_BESIDE = ":"


class FenceId(NamedTuple):
    """A read model of one declaration: ``namespace:Name``, and a hash of what it declares."""

    read_model: str
    declaration: str

    def beside(self, generation: str) -> FenceId:
        """The id of the row of a planned rebuild, which has its cursor in the fence like everybody who has one."""
        return FenceId(self.read_model, f"{self.declaration}{_BESIDE}{generation}")

    @property
    def served(self) -> FenceId:
        """The id of the row that queries go by: of a planned rebuild's, the one whose place it is to take."""
        return FenceId(self.read_model, self.declaration.partition(_BESIDE)[0])


class FenceRow(msgspec.Struct, frozen=True):
    """What SQL says of one read model in Redis: a row of ``diptych_fence``, as it was when it was read.

    Times are seconds of SQL's clock, ``now`` is that clock when the row was read. ``generation`` is "" before the
    first build. ``tables`` are those whose rows the documents are made from. ``history`` is the name of the history
    that the database has: another one once it was put elsewhere, or back to an earlier state.
    """

    id: FenceId
    tables: frozenset[str]
    incarnation: Incarnation
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


class LogPart(NamedTuple):
    """Some of the changes that a snapshot holds, in the order of their positions; ``more`` if there are others.

    ``last`` is the position of the last change that was read, ``skipped`` the number of those that were left out.
    """

    snapshot: Snapshot
    changes: list[Change]
    more: bool
    last: int = 0
    skipped: int = 0


class View(Protocol):
    """SQL as one snapshot holds it, for several statements: the log, and rows of the same moment."""

    async def fetch(self, statement: Any, values: Mapping[str, Any] | None = None) -> Sequence[Any]:
        """What a statement of the write room finds in it."""


class Fence(Protocol):
    """The SQL side of the hinge: the fence rows, and the log as passes read it.

    Each method is one statement in a transaction of its own. All may raise ``DatabaseUnavailableError``. A database
    that was put elsewhere is adopted before any row of it is given: its generations end, it has another history.
    """

    async def rows(self) -> list[FenceRow]:
        """Every fence row, as committed when the statement starts."""

    async def sight(self, since: Snapshot, own: Mapping[int, Sequence[Entry]] = ...) -> Sight:
        """The same, with the changes in the log that ``since`` did not see, as of the same moment.

        ``own`` are those that the caller has made, by their transactions: of them it need not be told.
        """

    async def has_unseen(self, row: FenceRow, position: int | None) -> bool:
        """Whether there is a change of the row's tables, up to this position, that its cursor did not see."""

    def identified(self, entries: Sequence[Entry]) -> list[Change]:
        """These changes with no more of their rows than the columns by which they are known."""

    async def logged(self, entries: Sequence[Entry]) -> list[Change]:
        """These changes whole, in the order of their positions. Some may be missing: the log has forgotten them."""

    async def register(self, fence: FenceId, tables: Collection[str]) -> None:
        """Adds the row if it is not there, with no generation and a lease that is over."""

    async def promise(
        self, row: FenceRow, lease_s: float, due_s: float | None, *, at_work: bool = False
    ) -> FenceRow | None:
        """Starts a pass: ``lease_until`` becomes at least now and ``lease_s``, ``passes_started`` grows by one.

        Only if incarnation, generation and ``ready`` are still those of ``row``, and less than ``due_s`` seconds of
        the lease are left, or (``due_s`` is None) ``passes_started`` is still that of ``row``; and nobody is at
        work on it, unless it is the caller, ``at_work``. Returns the row as it is then, with ``passes_started`` the
        pass's own number; None if another was faster or the row differs.
        """

    async def changes(
        self,
        tables: Collection[str],
        cursor: Snapshot,
        limit: int,
        part: LogPart | None = None,
        view: View | None = None,
        *,
        skip: Container[int] = (),
    ) -> LogPart:
        """The changes of these tables that ``cursor`` did not see, at most ``limit``, and the snapshot they are from.

        With the ``part`` before: those after it, of the same snapshot. With a ``view``: the snapshot is that of the
        view. Changes at the positions ``skip`` are left out, unless a row has left
        its address.
        """

    def view(self) -> AbstractAsyncContextManager[View]:
        """A view of the moment of its first statement; to be left soon, since PostgreSQL's VACUUM minds it."""

    async def complete(self, row: FenceRow, cursor: Snapshot, *, ready: bool = False) -> bool:
        """Ends the pass that ``promise`` returned: ``passes_completed`` and ``cursor`` go forward, never back.

        With ``ready`` the generation may be read from now on. False if incarnation or generation is another.
        """

    async def move(
        self,
        row: FenceRow,
        incarnation: Incarnation,
        generation: str,
        *,
        building_s: float,
        cursor: Snapshot | None = None,
    ) -> FenceRow | None:
        """Replaces the generation: not ready, with the cursor of this moment, and a builder for ``building_s``.

        Only if the generation is still that of ``row``, its lease is over, and no other builder is at it. With a
        ``cursor`` (a planned rebuild, which has taken the lease out of Redis before) the lease need not be over, and
        the cursor is that one; the row of the rebuild, which must still have its own, goes. Returns the new row, or
        None.
        """

    async def begin_rebuild(self, row: FenceRow, generation: str, *, building_s: float) -> FenceRow:
        """Adds the row of a planned rebuild beside ``row``, with the cursor of this moment. To be kept by
        ``keep_building``.
        """

    async def end_rebuild(self, row: FenceRow) -> None:
        """Removes it: the rebuild can't take the place of the generation that serves any more."""

    async def keep_building(self, row: FenceRow, building_s: float) -> bool:
        """Says that whoever is at work is still at it. False if the generation is another."""

    async def claim(self, row: FenceRow, building_s: float) -> FenceRow | None:
        """Says that a keeper is at work on a generation whose lease is over: it brings in what there is.

        None if another was faster, has promised something, or the generation is another.
        """

    async def snapshot(self) -> Snapshot:
        """Of this moment."""

    async def ask(self, fence: FenceId, after: int) -> None:
        """Tells the keepers of other processes that a pass is waited for that begins after pass ``after``.

        It may get lost.
        """

    def on_asked(self, callback: Callable[[FenceId, int], None]) -> None:
        """Has ``callback`` called with the same, in the event loop, when another process asks."""

    async def listen(self) -> None:
        """Begins to hear what other processes ask."""

    async def forget(self, row: FenceRow) -> bool:
        """Removes the row of a declaration that nobody keeps any more; False if its lease has been renewed."""


class Known(NamedTuple):
    """Which generation of which Redis a change is to be applied to, as known before the change's commit."""

    incarnation: Incarnation
    generation: str


Applied: TypeAlias = frozenset[int] | None
"""What comes of changes that are written into a generation: None if they could not be; else the positions of
commands' changes, by any process, that are in it by then: these, and others about as recent."""


class ReadSide(Protocol):
    """The read models of this process in Redis, as the end of a command sees them."""

    def apply(
        self, changes: Sequence[Change], known: Mapping[FenceId, Known]
    ) -> Mapping[FenceId, asyncio.Future[Applied]]:
        """Begins to write committed changes into these generations.

        Returns, for each that they are written to, a future that tells whether all of them are in it. None raises.
        """

    def can_look(self, fence: FenceId) -> bool:
        """Whether changes can be looked for in this read model's documents now."""

    def bring_in(
        self, fence: FenceId, known: Known, entries: Sequence[Entry], snapshot: Snapshot
    ) -> Coroutine[Any, Any, bool]:
        """Sees to it that these changes of others, which ``snapshot`` saw, are in this generation.

        Returns whether they are; False too if that can't be told. It does not raise.
        """

    def ask(self, after: Mapping[FenceId, int]) -> Collection[FenceId]:
        """Has this process's keepers make a pass over each of these read models, later than the pass named.

        Returns those they can do it for.
        """


class RowSource(Protocol):
    """The SQL side of one read model: exactly the columns that its documents and lists need.

    Where a document is joined, its rows have the joined values too, under the names of the document's fields.
    """

    async def one(self, key: Any) -> Row | None:
        """The row with this key."""

    def try_one(self, key: Any) -> list[Row] | None:
        """What ``one`` finds, as a list; None where that would hold up the event loop: ``one`` is to be asked."""

    async def page(self, order: Sequence[str], after: Sequence[Any] | None, limit: int) -> list[Row]:
        """At most ``limit`` rows in the order of these columns, all greater than ``after`` in it."""

    def try_page(self, order: Sequence[str], after: Sequence[Any] | None, limit: int) -> list[Row] | None:
        """What ``page`` finds; None where that would hold up the event loop: ``page`` is to be asked."""

    def scan(self, batch_size: int) -> AsyncIterator[list[Row]]:
        """Every row, in batches; rows that change while it runs may be seen before or after the change."""

    def rows_by(
        self, view: View, column: str, values: Sequence[Any], batch_size: int
    ) -> AsyncIterator[list[Row]]:
        """The rows in this view whose ``column`` (of the read model's own entity) has one of these values.

        In batches, none of them empty.
        """

    async def count(self) -> int:
        """How many rows there are, about."""
