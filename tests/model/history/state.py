"""What a state of this model is made of: one row, and its document. Times are what is left of them, in ticks."""

from typing import NamedTuple

from tests.model.state import Snapshot

NOTE = 0
"""The value of a log row that is of no document."""


class Entry(NamedTuple):
    """A row of the log. Positions and transaction numbers may begin anew where a database was put elsewhere."""

    position: int
    transaction: int
    value: int


class Database(NamedTuple):
    """One SQL server with its data.

    `identity` is that of the server, `adopted` the one that its history was adopted for; `names` are those of its
    histories, the present one last, which began at position `first`. `position` and `transaction` come next.
    `values` are those that the row has had; queries may be shown those from place `bar` on. The rest is the fence.
    """

    identity: int = 1
    adopted: int = 1
    names: tuple[int, ...] = (1,)
    first: int = 1
    log: tuple[Entry, ...] = ()
    position: int = 1
    transaction: int = 9
    running: tuple[int, ...] = ()
    values: tuple[int, ...] = (1,)
    bar: int = 0
    generation: int = 1
    cursor: Snapshot = Snapshot(9, 9, ())
    lease: int = 2
    started: int = 1
    completed: int = 1


class Generation(NamedTuple):
    """A generation in Redis: its floor, the number of its last pass, and the document with its stamp."""

    name: int
    floor: int
    number: int
    stamp: int
    value: int


class Lease(NamedTuple):
    """The lease key: which generation is trusted, whose history it is of, and what is left of it."""

    generation: int
    history: int
    left: int


class Command(NamedTuple):
    """A command of one database. `looked` is the place of the value that it has seen or written."""

    at: str = "begin"
    transaction: int = 0
    position: int = 0
    value: int = 0
    looked: int = 0
    generation: int = 0
    applied: bool = False
    left: int = 0
    passes: int = 0
    history: int = 0


class Keeper(NamedTuple):
    """A keeper of one database in a pass or a build."""

    at: str = "look"
    generation: int = 0
    history: int = 0
    number: int = 0
    left: int = 0
    cursor: Snapshot = Snapshot(0, 0, ())
    built: int = 0
    found: tuple[Entry, ...] = ()


class Budget(NamedTuple):
    """What may still happen. Running out ends the exploration, it is no part of the protocol."""

    moves: int
    returns: int
    passes: int
    builds: int


class State(NamedTuple):
    """Everything. `fresh` is the next value, and the next name; `backup` a copy of the first database."""

    databases: tuple[Database, ...]
    generations: tuple[Generation, ...]
    lease: Lease | None
    commands: tuple[Command, ...]
    keepers: tuple[Keeper, ...]
    backup: Database | None
    phase: int
    fresh: int
    budget: Budget


Step = tuple[str, State]


def with_database(state: State, n: int, database: Database) -> State:
    """The state with database n so."""
    return state._replace(databases=(*state.databases[:n], database, *state.databases[n + 1 :]))
