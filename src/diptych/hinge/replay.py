"""Replay of the change log into a generation: step 9 of the protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from diptych.errors import DiptychError
from diptych.fence.contract import FenceRow, Target
from diptych.fence.fence import Fence
from diptych.hinge.pace import Pace
from diptych.log import NOTHING, Change, LogPart, Snapshot
from diptych.read.addresses import Address, Located
from diptych.read.compiled import CompiledReadModel
from diptych.read.sql.rows import SqlRows
from diptych.read.store.store import RedisStore
from diptych.read.store.writes import MAX_IN_PASSING, Write, batches, in_one_script
from diptych.sql.description import Row
from diptych.sql.view import View

_LOG_ROWS = 2000
"""Number of entries of the log that are read at a time."""

_JOINED_AT_ONCE = 64
"""Number of joined documents whose rows are read at a time: each field of theirs costs a statement."""

_MADE_AT_ONCE = 16
"""Number of joined documents that are put together and written at a time: others wait while the event loop puts them
together, and while Redis writes them."""

_MOST_APPLIED = 16_384
"""Number of positions that are remembered, of changes that scripts of commands reported to be in."""

REASONS = {"ELSEWHERE": "other-server", "FOREIGN": "other-database", "UNCAPTURED": "uncaptured"}
"""Reasons for answers from SQL after a refusal; of any other outcome: the data are lost."""

UNUSABLE = frozenset({"AHEAD", "UNREADABLE", "BEHIND", "UNCAPTURED"})
"""Refusals of a pass after which its generation has to be built anew, although it is there."""


class Refused(DiptychError):
    """A refusal: Redis is not, or no longer, in the state for a pass or a builder to write to.

    ``outcome`` is the script's answer, such as ``GONE`` (see ``RedisStore``), or the keeper's own finding: ``AHEAD``
    (Redis was brought to a later state of SQL than there is now), ``UNREADABLE`` (an entry of the log lacks the key
    of a row) or ``UNCAPTURED`` (rows may have been changed without an entry in the log).
    """

    def __init__(self, outcome: str) -> None:
        super().__init__(f"Redis refused: {outcome}")
        self.outcome = outcome


async def accepted(writing: Awaitable[str]) -> None:
    """Awaits a script. Raises ``Refused`` for any outcome but ``OK``."""
    outcome = await writing
    if outcome != "OK":
        raise Refused(outcome)


class LogReplay:
    """The replay of the log for a read model: reads changes after a cursor, and writes the changed documents.

    ``note_applied`` tells of changes that a generation holds already, which are passed over.
    """

    def __init__(
        self,
        compiled: CompiledReadModel,
        source: SqlRows,
        store: RedisStore,
        fence: Fence,
        *,
        batch_size: int,
    ) -> None:
        self.compiled = compiled
        self.source = source
        self.store = store
        self.batch_size = batch_size
        self._at_once = min(batch_size, _JOINED_AT_ONCE) if compiled.is_joined else batch_size
        self._fence = fence
        self._applied_to: Target | None = None
        self._applied: set[int] = set()

    def note_applied(self, target: Target, positions: set[int]) -> None:
        """Notes changes that are in a generation, so that no pass writes the changes again."""
        if self._applied_to != target or len(self._applied) > _MOST_APPLIED:
            self._applied_to, self._applied = target, set()
        self._applied |= positions

    async def replay_log(
        self,
        row: FenceRow,
        cursor: Snapshot,
        *,
        carried: Snapshot = NOTHING,
        floor: bool = False,
        pace: Pace | None = None,
    ) -> tuple[Snapshot, int]:
        """Writes every change after ``cursor`` into the row's generation.

        Joined documents that are touched only by changes which ``carried`` has seen are in (``RedisState.carried``).
        Returns the snapshot up to which the changes are in, and their number. With ``floor`` the generation's floor
        is raised to the snapshot, with a ``pace`` joined documents are made with rests. Raises ``Refused``,
        ``RedisUnavailableError``, ``DatabaseUnavailableError``.

        ★ Whether the triggers of the tables are as they were made is looked at each time, after t0 (step 7): a change
        that was made while they were not is in no log, and the lease would vouch for what lacks it.
        """
        if await self._fence.are_missed(self.compiled.tables, row):
            raise Refused("UNCAPTURED")
        replay = self._replay_in_a_view if self.compiled.is_joined else self._replay
        snapshot, count = await replay(row.target, cursor, carried, pace)
        if floor:
            await accepted(self.store.apply(row.target, [], floor=snapshot.xmin))
        return snapshot, count

    async def _replay_in_a_view(
        self, target: Target, cursor: Snapshot, carried: Snapshot, pace: Pace | None
    ) -> tuple[Snapshot, int]:
        # ★ Rows are read in the snapshot in which the log was read. Read later, a row may have been deleted, been
        # joined to another one or been given another address by a change that this reading of the log does not
        # hold: its document would be missing, or show a joined row as it was, after the change of that row was
        # acknowledged. To read the log once more for such rows is a race that a steady load wins.
        async with self._fence.view() as view:
            return await self._replay(target, cursor, carried, pace, view)

    async def _replay(
        self, target: Target, cursor: Snapshot, carried: Snapshot, pace: Pace | None, view: View | None = None
    ) -> tuple[Snapshot, int]:
        """Replays part by part. Without a ``view``, a change that needs rows from SQL has all begin anew."""
        count, part = 0, None
        while part is None or part.more:
            tables, skip = self.compiled.tables, self._applied if self._applied_to == target else ()
            if self.compiled.where is not None:
                # ★ Only a pass tells when the tombstone of a row may go that the condition leaves out by now: passed
                # over, it would stay for ever.
                skip = ()
            part = await self._fence.changes(tables, cursor, _LOG_ROWS, part, view, skip=skip)
            if part.snapshot.xmax < max(cursor.xmax, carried.xmax):
                # SQL was put back to a state from before the state that Redis was brought to.
                raise Refused("AHEAD")
            count += len(part.changes) + part.skipped
            if view is None and not self.is_readable(part.changes):
                return await self._replay_in_a_view(target, cursor, carried, pace)
            if view is not None and self.compiled.is_joined:
                left = [change for change in part.changes if not carried.sees(change.transaction)]
                async for writes in self.joined_writes(part._replace(changes=left), view):
                    await accepted(self.store.apply(target, writes))
                    if pace is not None:
                        await pace.rest()
            elif part.changes:
                for writes in batches(await self.writes_of(part, view), MAX_IN_PASSING):
                    await accepted(self.store.apply(target, writes))
        return part.snapshot, count

    # What changes write

    def is_readable(self, changes: Sequence[Change]) -> bool:
        """Returns True if the images of these changes have every column of the documents.

        Images by another version of the application may lack some; the rows are read from SQL then.
        """
        return all(map(self._has_all, changes))

    async def writes_of(self, part: LogPart, view: View | None) -> list[Write]:
        """Returns the writes of these changes. Without a ``view`` the images of all must be readable."""
        unreadable = [change for change in part.changes if not self._has_all(change)]
        rows = await self._read_rows(unreadable, view) if view is not None else {}
        writes = []
        for change in part.changes:
            if not self._has_all(change):
                writes += self._writes_from(change, rows, part.snapshot)
                continue
            try:
                writes += self.store.writes.writes_of(change, part.snapshot.xmax)
            except KeyError:
                # Its personal data are blanked, or another version of the application has other columns.
                raise Refused("UNREADABLE") from None
        return writes

    def _has_all(self, change: Change) -> bool:
        return change.has_image and (change.after is None or self.compiled.readable(change.after))

    async def _read_rows(self, changes: Sequence[Change], view: View) -> Mapping[bytes, Row]:
        """Returns the rows at all addresses of these changes, by their keys in Redis, as the log's snapshot has them.

        They are no older than the changes. ★ At the old addresses too: a trigger's entry may come after that of
        another row which the statement has moved there.
        """
        return await self._rows_at([at for change in changes for at in self._located(change).values()], view)

    async def _rows_at(self, located: Iterable[Located], view: View) -> dict[bytes, Row]:
        """Returns the rows with these values of addresses, by their keys in Redis."""
        values: dict[Address, list[Any]] = {}
        for address, value in located:
            values.setdefault(address, []).append(value)
        found: dict[bytes, Row] = {}
        for address, wanted in values.items():
            async for rows in self.source.rows_by(view, address.names, wanted, self._at_once):
                found |= {address.of(row): row for row in rows}
        return found

    def _located(self, change: Change) -> dict[bytes, Located]:
        """Returns a row's values of each address, before and after a change, by their keys in Redis.

        Raises ``Refused`` if the log lacks one of them.
        """
        try:
            rows = [row for row in (change.before, change.after) if row is not None]
            return {key: at for row in rows for key, at in self.compiled.located(row).items()}
        except KeyError:
            raise Refused("UNREADABLE") from None

    def _writes_from(self, change: Change, rows: Mapping[bytes, Row], snapshot: Snapshot) -> list[Write]:
        """Returns the writes of a change with the rows from SQL: a tombstone at an address without a row.

        What is written at an address is the row that is there. The row of the change may be elsewhere by now.
        """
        stamp, transaction = change.position, change.transaction
        writes, located = self.store.writes, self._located(change)
        return in_one_script(
            [
                writes.write_at(key, rows[key], stamp, transaction, snapshot.xmax)
                if key in rows
                else writes.tombstone(key, stamp, transaction, snapshot.xmax)
                for key in located
            ]
        )

    # Joined documents

    async def joined_writes(self, part: LogPart, view: View) -> AsyncIterator[list[Write]]:
        """Yields the writes of every document touched by the changes of ``part``, some at a time.

        They are as the log's snapshot sees them. Touched are the documents at a changed row's addresses, before and
        after, and those that show another changed row, or have shown it. A document that more than one change touches
        may come more than once.
        """
        own: list[Change] = []
        others: dict[str, dict[Any, None]] = {}
        for change in part.changes:
            try:
                if change.entity.table == self.compiled.entity.table:
                    own.append(change)
                touched = self.compiled.touched(change)
            except KeyError:
                raise Refused("UNREADABLE") from None
            for column, values in touched:
                others.setdefault(column, {}).update(dict.fromkeys(values))
        for located in _parts(_grouped(map(self._located, own)), self._at_once):
            found = await self._rows_at((at for group in located for at in group.values()), view)
            for some in _parts(located, _MADE_AT_ONCE):
                yield [write for group in some for write in self._joined_at(group, found, part)]
        for column, altered in others.items():
            async for rows in self.source.rows_by(view, (column,), list(altered), self._at_once):
                shown = [row for row in rows if not self.compiled.leaves_out(row)]
                for start in range(0, len(shown), _MADE_AT_ONCE):
                    yield self._joined_of(shown[start : start + _MADE_AT_ONCE], part)

    def _joined_at(
        self, located: Mapping[bytes, Located], found: Mapping[bytes, Row], part: LogPart
    ) -> list[Write]:
        """Returns the writes of the documents at these addresses, and a tombstone where the snapshot sees no row."""
        at = {key: found[key] for key in located if key in found}
        rows = {tuple(self.compiled.addresses_of(row)): row for row in at.values()}
        missing = located.keys() - at.keys()
        tombstones = [self.store.writes.joined_tombstone(key, part.snapshot) for key in missing]
        # ★ A row that has got another address would be at both for a moment, or at neither.
        return in_one_script([*tombstones, *self._joined_of(rows.values(), part)])

    def _joined_of(self, rows: Iterable[Row], part: LogPart) -> list[Write]:
        """Returns the writes of the documents of these rows, at all of their addresses."""
        return [write for row in rows for write in self.store.writes.joined_writes(row, part.snapshot)]


def _grouped(located: Iterable[Mapping[bytes, Located]]) -> list[Mapping[bytes, Located]]:
    """Returns the addresses of changes in groups: all addresses of a row, or of rows in turn, are in a group."""
    groups: dict[bytes, Mapping[bytes, Located]] = {}
    for addresses in located:
        group = dict(addresses)
        for key in addresses:
            group.update(groups.get(key, ()))
        groups.update(dict.fromkeys(group, group))
    return list({id(group): group for group in groups.values()}.values())


def _parts(groups: Iterable[Mapping[bytes, Located]], most: int) -> Iterator[list[Mapping[bytes, Located]]]:
    """Yields the groups in parts of about so many addresses."""
    part: list[Mapping[bytes, Located]] = []
    for group in groups:
        if part and sum(map(len, part)) + len(group) > most:
            yield part
            part = []
        part.append(group)
    if part:
        yield part
