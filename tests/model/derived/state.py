"""What a state of this model is made of: rows that belong to parents, and documents made from both.

A row is at an address, and belongs to a parent. There is a document for each address, made of the row and its parent,
and one for each parent, made of the parent and all its rows. No number is negative: Python gives -1 and -2 the same
hash.
"""

from typing import NamedTuple

from tests.model.state import Snapshot

NO_SNAPSHOT = Snapshot(0, 0, ())


class Place(NamedTuple):
    """Where a row is: its address, and its parent. A parent is nowhere itself."""

    address: int = 0
    parent: int = 0


class Entry(NamedTuple):
    """A row of the log: where the row was before and after; None: it was not there. Its position is its number."""

    transaction: int
    row: int
    before: Place | None
    after: Place | None

    @property
    def places(self) -> tuple[Place, ...]:
        """Before and after."""
        return tuple(place for place in (self.before, self.after) if place is not None)


Content = tuple[int, ...]
"""A document, as rows and their positions in turn; () if there is none."""


class Document(NamedTuple):
    """What is stored under a key, () for a tombstone; `purge` is the floor that ends it."""

    stamp: tuple[int, int]
    content: Content
    purge: int = 0


class Generation(NamedTuple):
    """One generation that has a marker; `floor` 0 while it is filled.

    `carried` is the last snapshot whose documents a command has written.
    """

    name: int
    floor: int
    documents: tuple[Document | None, ...]
    carried: Snapshot = NO_SNAPSHOT


class Write(NamedTuple):
    """What a script sets under a key."""

    key: int
    content: Content


class Message(NamedTuple):
    """A script for one generation: documents that were made in one snapshot."""

    kind: str
    generation: int
    snapshot: Snapshot
    writes: tuple[Write, ...]


class Command(NamedTuple):
    """A command, or a foreign program. `looked`: how many transactions were committed when it last looked.

    `generation` is the one that it knew before its commit. `entries` are those that it has read in a snapshot before
    that of the documents, if a rule is dropped.
    """

    at: str = "begin"
    transaction: int = 0
    done: int = 0
    snapshot: Snapshot = NO_SNAPSHOT
    looked: int = 0
    generation: int = 0
    message: Message | None = None
    entries: tuple[int, ...] = ()
    started: int = 0


class Keeper(NamedTuple):
    """A keeper in a pass, or at a planned rebuild. `committed`: how many transactions were committed at t0."""

    at: str = "look"
    generation: int = 0
    building: bool = False
    number: int = 0
    committed: int = 0
    snapshot: Snapshot = NO_SNAPSHOT
    entries: tuple[int, ...] = ()
    message: Message | None = None


class Fence(NamedTuple):
    """The fence row. Somebody is always promised a lease."""

    generation: int
    ready: bool
    cursor: Snapshot
    started: int = 0
    completed: int = 0


class State(NamedTuple):
    """Everything. `lease` names the generation that queries trust, 0 for none.

    `order` is that of the commits, `seen` has L of each process, behind the generation that it is of. `bars` has for
    each key how many transactions are committed in the oldest state that may be shown. `passes`, `lates` and `plans`
    say what may still happen.
    """

    log: tuple[Entry, ...]
    transactions: tuple[int, ...]
    order: tuple[int, ...]
    fence: Fence
    generations: tuple[Generation, ...]
    lease: int
    commands: tuple[Command, ...]
    seen: tuple[tuple[int, Snapshot], ...]
    keeper: Keeper
    late: tuple[Message, ...]
    bars: tuple[int, ...]
    passes: int
    lates: int
    plans: int


Step = tuple[str, State]
