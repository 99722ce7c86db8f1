"""What a state of this model is made of. An address is a value of the read model's key: 1, 2, …; 0 is nowhere.

No number is negative: Python gives -1 and -2 the same hash.
"""

from typing import NamedTuple

from tests.model.state import Snapshot

NOBODY = 0
"""The row of an entry that is of no document (an audit row), and of a tombstone."""


class Entry(NamedTuple):
    """A row of the log: which row was at which address before and after. Its position is its place in the log.

    An entry that a trigger has written has no `image`: it says which row has changed, not what is in the row. The
    conditions of the lists put the row into the list of number `listed`; 0: the read model's own leaves the row out.
    """

    transaction: int
    row: int
    old: int
    new: int
    fits: bool = True
    image: bool = True
    listed: int = 1


class Shown(NamedTuple):
    """What a query is answered: the state of a row that an entry made; set aside if it does not fit.

    It is shown in the list of number `listed`.
    """

    row: int
    position: int
    fits: bool
    listed: int = 1


class Document(NamedTuple):
    """What is stored at an address, None for a tombstone; `purge` is the floor that ends it, 0 if not known.

    `lists` are the numbers of the lists that have an entry which names it.
    """

    stamp: int
    shown: Shown | None
    purge: int = 0
    lists: tuple[int, ...] = ()


class Generation(NamedTuple):
    """One generation that has a marker; `floor` 0 while it is filled."""

    name: int
    floor: int
    documents: tuple[Document | None, ...]


class Write(NamedTuple):
    """What a script sets at one address."""

    address: int
    stamp: int
    transaction: int
    shown: Shown | None


class Message(NamedTuple):
    """A script for one generation. `horizon` is the `xmax` of a snapshot that saw the changes, 0 if not known."""

    kind: str
    generation: int
    writes: tuple[Write, ...]
    horizon: int = 0


class Fence(NamedTuple):
    """The fence row. Somebody is always promised a lease."""

    generation: int
    ready: bool
    cursor: Snapshot
    started: int
    completed: int


class Rebuild(NamedTuple):
    """The fence row of a planned rebuild: the generation that it fills, and from where it has to read the log."""

    generation: int
    cursor: Snapshot


class Select(NamedTuple):
    """What the SELECT after the COMMIT saw: the fence row, its own snapshot, and the entries not known to be in.

    Those of a position above `limit` need not be in for the answer.
    """

    generation: int
    started: int
    snapshot: Snapshot
    entries: tuple[int, ...]
    limit: int


class Command(NamedTuple):
    """A command. `looked`: how many transactions were committed when it last looked at what others have done.

    `checked`: how many were when a uniqueness check last told it that an address is free. `looked_late` says that it
    has looked at more than its snapshot.
    """

    at: str = "begin"
    transaction: int = 0
    positions: tuple[int, ...] = ()
    done: int = 0
    snapshot: Snapshot = Snapshot(0, 0, ())
    looked: int = 0
    checked: int = 0
    looked_late: bool = False
    generation: int = 0
    apply: str = ""
    select: Select | None = None


class Process(NamedTuple):
    """What a process remembers: L, for one generation, and which entries it knows to be in a generation."""

    generation: int = 0
    seen: Snapshot = Snapshot(0, 0, ())
    known: tuple[tuple[int, int], ...] = ()


class Keeper(NamedTuple):
    """A keeper in a pass, or at a planned rebuild.

    `committed`: how many transactions were committed at t0, from which the lease is counted.
    """

    at: str = "look"
    generation: int = 0
    building: bool = False
    number: int = 0
    snapshot: Snapshot = Snapshot(0, 0, ())
    positions: tuple[int, ...] = ()
    todo: tuple[Message, ...] = ()
    committed: int = 0


class Budget(NamedTuple):
    """What may still happen. Running out ends the exploration, it is no part of the protocol."""

    passes: int
    late: int
    plans: int
    early: int
    retention: int
    sweeps: int


class State(NamedTuple):
    """Everything. `lease` names the generation that queries trust; `order` is that of the commits.

    `rebuild` is the row of a planned rebuild, `forgotten` are the positions that retention has deleted, `forgetting`
    those that it is about to; `sweeping` is what a sweep has found.

    `bars` has for each address how many transactions are committed in the oldest state that may be shown.
    """

    log: tuple[Entry, ...]
    transactions: tuple[int, ...]
    order: tuple[int, ...]
    fence: Fence
    generations: tuple[Generation, ...]
    lease: int
    commands: tuple[Command, ...]
    processes: tuple[Process, ...]
    keepers: tuple[Keeper, ...]
    late: tuple[Message, ...]
    rebuild: Rebuild | None
    forgotten: tuple[int, ...]
    forgetting: tuple[int, ...]
    sweeping: tuple[int, ...]
    bars: tuple[int, ...]
    budget: Budget


Step = tuple[str, State]
