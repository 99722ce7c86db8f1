"""What a state of this model is made of: a row that others change, and its document. Times are what is left."""

from typing import NamedTuple

LEASE = 2
"""Length of a lease and of a promise, in ticks of the one clock."""


class Sql(NamedTuple):
    """The database. `value` is that of the row; the number of changes so far.

    `logged` is the newest value that the log tells. `captured` is false once a trigger was off, whatever it is now:
    the fingerprint differs from the one that was noted. `generation` (0: none), `ready` and `lease` are the fence's.
    """

    value: int = 0
    logged: int = 0
    on: bool = True
    captured: bool = True
    generation: int = 1
    ready: bool = True
    lease: int = LEASE


class Generation(NamedTuple):
    """A generation in Redis, with the value of its document."""

    name: int
    value: int


class Lease(NamedTuple):
    """The lease key: which generation is trusted, and what is left of it."""

    generation: int
    left: int


class Keeper(NamedTuple):
    """A keeper in a pass or a build: `left` is what is left of the lease counted from its t0."""

    at: str = "look"
    generation: int = 0
    left: int = 0
    building: bool = False
    value: int = 0


class State(NamedTuple):
    """Everything. `due` are changes that queries may still miss: their values, and for how long.

    `shown` is the value that every query has to be shown at least. The last four are what may still happen.
    """

    sql: Sql
    generations: tuple[Generation, ...]
    lease: Lease | None
    keepers: tuple[Keeper, ...]
    due: tuple[tuple[int, int], ...] = ()
    shown: int = 0
    fresh: int = 2
    changes: int = 0
    gaps: int = 0
    passes: int = 0
    builds: int = 0


Step = tuple[str, State]
