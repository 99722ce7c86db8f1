"""What happened in a run: one file a process, one line a record, written before the next thing is done.

A process that is killed leaves all that it has written. Times are nanoseconds of CLOCK_MONOTONIC, which is one clock
for all processes of a machine. Each write has a number that no other has, and writes it into the rows it changes, so
that whoever reads the row knows whose write it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

PROCESS = 10_000_000
"""The numbers of a process's writes are those from its own number times this one."""

NEVER = 1 << 63


ITEM, OWNER, AUDIT = "Item", "Owner", "Audit"
OPEN_ITEM, OPEN_OWNER = "OpenItem", "OpenOwner"
OWNER_OF = {ITEM: OWNER, OPEN_ITEM: OPEN_OWNER}

FRONT, FRONT_OWNERS = "front", 2
"""A list of items whose owners have these numbers at most."""

MARKED = "marked"
"""A list of open items by their marks. A page of it is one of the list ``marked 2``, say: of the mark number 2."""

NESTED = "nested"
"""The items within the document of their owner, told as a page of all items of the owner whose values fit."""

MARKS = 5
"""How many marks there are, numbered from 0."""


def marks_of(value: int, owner: int) -> tuple[int, int]:
    """The marks of an open item: one by its value, one by its owner."""
    return value % 3, 3 + owner % 2


CATCH_UP = "catch up"
"""The kind of a write that changes nothing: ``catch_up`` was called."""

UNSEEN = "change unseen"
"""The kind of a write that no trigger has seen, of a row by its key. Nobody vouches for it before its time."""


class Begin(msgspec.Struct, frozen=True, array_like=True, tag="b"):
    """A write is about to be made: by a command, or by a program beside the application.

    ``keys`` are the items (or the owner) that it is to change. ``grace`` is the time in nanoseconds after its end for
    which queries need not show it: a lease for programs, 0 for commands.
    """

    write: int
    kind: str
    keys: list[str]
    at: int
    entity: str = ITEM
    grace: int = 0


class Saw(NamedTuple):
    """What an answer says that its command has found under a key.

    ``value`` None: no row. ``is_told`` False: some row, but not which (a value was taken).
    """

    entity: str
    key: str
    value: int | str | None = None
    owner: int | None = None
    is_told: bool = True


class End(msgspec.Struct, frozen=True, array_like=True, tag="e"):
    """How a command ended.

    "done": acknowledged, and it has changed something; "nothing": acknowledged, there was nothing to change;
    "failed": it says that nothing was changed; "unknown": it does not know. ``note`` is the error, ``saw`` what the
    answer, be it an error, tells of the state that the command has found. (None: the version before has answered,
    which vouches for its own changes alone.)
    """

    write: int
    outcome: str
    at: int
    note: str = ""
    saw: list[Saw] | None = None


class Get(msgspec.Struct, frozen=True, array_like=True, tag="g"):
    """A document was asked for by its key. ``value`` None: there was none. ``found`` is the key it carries.

    ``is_aside``: the answer was that the row does not fit its document.
    """

    key: str
    process: int
    begun: int
    ended: int
    store: str
    reason: str
    value: int | str | None = None
    owner: int | None = None
    found: str | None = None
    owner_name: str | None = None
    joined: bool = False
    is_aside: bool = False
    entity: str = ITEM


class Entry(NamedTuple):
    """A document on a page. (The version before tells no owner of the last entry of the page before.)"""

    key: str
    value: int
    owner: int = 0


class Page(msgspec.Struct, frozen=True, array_like=True, tag="p"):
    """A page of the list ``order``: ``after`` is the last entry of the page before (None: first).

    ``owner`` is the one whose items were asked for, ``total`` the number of them that the page tells; None if not.
    """

    order: str
    after: Entry | None
    limit: int
    process: int
    begun: int
    ended: int
    store: str
    reason: str
    more: bool
    entries: list[Entry]
    set_aside: int = 0
    entity: str = ITEM
    owner: int | None = None
    total: int | None = None


class Failure(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """A query failed. ``expected``: with an error that diptych documents for stores that are away."""

    kind: str
    key: str
    begun: int
    ended: int
    error: str
    expected: bool


class Fault(msgspec.Struct, frozen=True, array_like=True, tag="x"):
    """The driver has done something to the processes or the servers; ``healed`` when that was over."""

    name: str
    detail: str
    begun: int
    healed: int


Record = Begin | End | Get | Page | Failure | Fault

_decoder = msgspec.json.Decoder(Record)
_encoder = msgspec.json.Encoder()


def now() -> int:
    """Nanoseconds of the clock that all processes share."""
    return time.monotonic_ns()


def process_of(write: int) -> int:
    """Which process made this write."""
    return write // PROCESS


class Writer:
    """Appends records to a file, each with one write: what it returned from is there, whatever comes after."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def add(self, record: Record) -> None:
        os.write(self._file, _encoder.encode(record) + b"\n")

    def close(self) -> None:
        os.close(self._file)


class LogRow(NamedTuple):
    """A row of ``diptych_log``, or of the ledger: the change of a row, by the key that its documents have.

    ``old_key`` is the key before the change (None: created), ``write`` whose change it was (0: nobody's we know).
    """

    position: int
    entity: str
    kind: str
    old_key: str | None
    key: str
    value: int | str
    owner: int | None
    write: int


class Write(msgspec.Struct):
    """One command, from its beginning to its end; or what a program beside the application has done."""

    number: int
    kind: str
    keys: list[str]
    begun: int
    ended: int = NEVER
    outcome: str = "unknown"
    note: str = ""
    saw: list[Saw] | None = []
    entity: str = ITEM
    grace: int = 0

    @property
    def is_foreign(self) -> bool:
        """Whether a program beside the application has made it."""
        return self.grace > 0

    @property
    def answered(self) -> int:
        """From when on queries must not contradict what its caller was told; ``NEVER``: not at all."""
        return self.ended + self.grace if self.outcome in ("done", "nothing", "failed") else NEVER

    @property
    def acknowledged(self) -> int:
        """From when on queries have to show its effect; ``NEVER`` if none was acknowledged."""
        return self.ended + self.grace if self.outcome == "done" else NEVER


class History(NamedTuple):
    """All records of a run. ``log`` is empty until it was read from SQL."""

    writes: dict[int, Write]
    gets: list[Get]
    pages: list[Page]
    failures: list[Failure]
    faults: list[Fault]
    log: list[LogRow]
    missed: dict[
        int, int
    ]  # see ``staleness``; by the log as it was then, which another one may have replaced

    @classmethod
    def of(
        cls, records: Iterable[Record], log: Iterable[LogRow] = (), writes: dict[int, Write] | None = None
    ) -> Self:
        """Sorts the records by what they are. ``writes`` are those of earlier records."""
        history = cls({} if writes is None else writes, [], [], [], [], list(log), {})
        for record in records:
            match record:
                case Get():
                    history.gets.append(record)
                case Page():
                    history.pages.append(record)
                case Begin(number, kind, keys, at, entity, grace):
                    history.writes[number] = Write(number, kind, keys, at, entity=entity, grace=grace)
                case End(number, outcome, at, note, saw):
                    write = history.writes[number]
                    write.ended, write.outcome, write.note, write.saw = at, outcome, note, saw
                case Failure():
                    history.failures.append(record)
                case Fault():
                    history.faults.append(record)
        return history

    @classmethod
    def together(cls, parts: Sequence[Self]) -> Self:
        """One history after the other, of the same processes; the log is the last one's."""
        gets, pages, failures, faults = (
            list(chain.from_iterable(getattr(part, name) for part in parts))
            for name in ("gets", "pages", "failures", "faults")
        )
        missed: dict[int, int] = {}
        for number, time_ns in chain.from_iterable(part.missed.items() for part in parts):
            missed[number] = max(time_ns, missed.get(number, 0))
        return cls(parts[-1].writes, gets, pages, failures, faults, parts[-1].log, missed)

    @property
    def operations(self) -> int:
        """How many operations were recorded."""
        return len(self.writes) + len(self.gets) + len(self.pages) + len(self.failures)


class Reader:
    """Reads the records of all processes, again and again: each record once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[Path, int] = {}

    def new(self) -> Iterator[Record]:
        """Those that were not there the last time. A line that is not at its end yet, or was cut off, is left."""
        for path in sorted(self._directory.glob("*.jsonl")):
            with path.open("rb") as lines:
                lines.seek(self._read.get(path, 0))
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self._read[path] = self._read.get(path, 0) + len(line)
                    yield _decoder.decode(line)
