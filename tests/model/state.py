"""What a state of the model is made of: tuples of small numbers, so that states are cheap to copy and to hash.

Clocks are not stored. Every deadline is kept as what is left of it (0: it has passed), and `phase` says whose
clock ticks next: SQL's and Redis's tick in turn, so over any stretch of time they differ by one tick at most.
With a lease of one tick in Redis and of two in SQL that is the assumed bound on their rates.

No number is negative: Python gives -1 and -2 the same hash.
"""

from typing import NamedTuple

PUT, DELETE = 1, 2
RUNNING, COMMITTED, ABORTED = 0, 1, 2
DERIVED = 2  # the place of the document joined from a and b
OTHER = 2  # the key of a row that is in no document: writing it only draws a transaction number
REDIS_LEASE = 1


class Snapshot(NamedTuple):
    """A `pg_snapshot`: below `xmin` all is over, from `xmax` on nothing is seen, `xip` were running."""

    xmin: int
    xmax: int
    xip: tuple[int, ...]


class Row(NamedTuple):
    """A row of the log. Its position, which also names the value it wrote, is its place in the log."""

    position: int
    xid: int
    key: int
    kind: int


class Fence(NamedTuple):
    """The fence row; `lease` is what is left of `lease_until`."""

    run: int
    replication: int
    generation: int
    ready: bool
    lease: int
    cursor: Snapshot
    started: int
    completed: int


class Sql(NamedTuple):
    """The log, what became of each transaction (number 1 is the first entry), and the fence."""

    log: tuple[Row, ...]
    transactions: tuple[int, ...]
    fence: Fence


class Document(NamedTuple):
    """A value (0: a tombstone) with its stamp; `purge` is the floor that ends a tombstone, 0 if not known."""

    stamp: int | tuple[int, int]
    value: int | tuple[int, int]
    purge: int


class Generation(NamedTuple):
    """One generation: the marker's builder number while it is built, its floor afterwards; documents a, b, joined."""

    name: int
    built: bool
    number: int
    documents: tuple[Document | None, Document | None, Document | None]


class Lease(NamedTuple):
    """The lease key and what is left of it."""

    run: int
    replication: int
    generation: int
    left: int


class Data(NamedTuple):
    """The keys of one Redis, or a copy of them: a dump, a replica's."""

    lease: Lease | None
    generations: tuple[Generation, ...]


class Node(NamedTuple):
    """A Redis process that says it is a master. `replications` are all its ids since it started, newest last.

    `ahead` is by how many ticks its clock is ahead of the other servers'.
    """

    run: int
    replications: tuple[int, ...]
    data: Data
    ahead: int = 0


class Message(NamedTuple):
    """A script on its way: where to, the identity and generation it is for, and its arguments."""

    kind: str
    node: int
    run: int
    replication: int
    generation: int
    rows: tuple[Row, ...] = ()
    derived: Document | None = None
    floor: int = 0
    horizon: int = 0
    number: int = 0
    left: int = 0
    doomed: tuple[int, ...] = ()


class Command(NamedTuple):
    """A command: where it is, the identity and generation of its first fence read, and what it wrote."""

    at: str = "begin"
    seen: tuple[int, int, int] = (0, 0, 0)
    xid: int = 0
    rows: tuple[Row, ...] = ()
    applied: bool = False
    left: int = 0
    passes: int = 0


class Keeper(NamedTuple):
    """A keeper in a pass or a build: `left` is what is left of the lease counted from its t0.

    `clock` is the node whose clock t0 was read from.
    """

    at: str = "look"
    node: int = 0
    run: int = 0
    replication: int = 0
    generation: int = 0
    left: int = 0
    building: bool = False
    planned: bool = False
    number: int = 0
    snapshot: Snapshot = Snapshot(0, 0, ())
    floor: int = 0
    todo: tuple[Message, ...] = ()
    doomed: tuple[int, ...] = ()
    clock: int = 0


class Query(NamedTuple):
    """A query for a: what was acknowledged when it (or who joined it) started, and what it has read."""

    at: str = "idle"
    bar: int = 0
    node: int = 0
    generation: int = 0
    value: int = 0


class Budget(NamedTuple):
    """What may still happen. Running out ends the exploration, it is no part of the protocol."""

    faults: int
    late: int
    passes: int
    builds: int
    copies: int
    queries: int
    planned: int


class State(NamedTuple):
    """Everything. `acknowledged` is the newest acknowledged position of a and of b."""

    sql: Sql
    nodes: tuple[Node, ...]
    late: tuple[Message, ...]
    commands: tuple[Command, ...]
    keepers: tuple[Keeper, ...]
    query: Query
    copy: Data | None
    phase: int
    fresh: int
    acknowledged: tuple[int, int]
    budget: Budget


Step = tuple[str, State]
