"""What one exploration of this model starts from and may do."""

from typing import NamedTuple

from tests.model.rows.state import (
    Budget,
    Command,
    Document,
    Entry,
    Fence,
    Generation,
    Keeper,
    Process,
    Shown,
    State,
)
from tests.model.sql import snapshot_of
from tests.model.state import COMMITTED

R, Q, S = 1, 2, 3


class Change(NamedTuple):
    """One statement of a command, and its row of the log.

    `note` writes a row of no document. `try` creates in a savepoint: if the address is taken, the command goes on.
    `look` changes nothing: it shows the command all that is committed by then, as a query of a read model does, or a
    foreign key that is checked.
    `oust` moves a row, and a trigger of the application moves the row `other` to where the first one was: the entry
    of the inner statement comes first. `shift` puts a row into the second list, and `hide` leaves it out of the read
    model, as their conditions say; any other change brings it into the first.
    """

    kind: str
    row: int = 0
    address: int = 0
    other: int = 0


class Program(NamedTuple):
    """What a command does, and in which process. Without changes it only reads.

    The entries of a `session` are written by triggers; it reads its rows before its commit. Those of a `foreign`
    writer are too, and nobody waits for them.
    """

    process: int
    changes: tuple[Change, ...]
    writer: str = "orm"


class Config(NamedTuple):
    """Bounds of an exploration; `off` are the rules dropped, `rows` are there at first: row and address.

    The commands `together` share a transaction, as on SQLite. `early` is how often a keeper may carry before it
    promises. With `read_again` every image of the log lacks a column. With `lists` no page may lack a row.
    """

    programs: tuple[Program, ...] = ()
    rows: tuple[tuple[int, int], ...] = ((R, 1),)
    addresses: int = 2
    keepers: int = 1
    passes: int = 0
    late: int = 0
    plans: int = 0
    early: int = 0
    retention: int = 0
    sweeps: int = 0
    together: tuple[int, ...] = ()
    without_redis: tuple[int, ...] = ()
    read_again: bool = False
    lists: bool = False
    prefix: tuple[str, ...] = ()
    off: frozenset[str] = frozenset()

    def without(self, *rules: str) -> "Config":
        """The same exploration with these rules dropped."""
        return self._replace(off=self.off | set(rules))


def first_state(config: Config) -> State:
    """A read model that has been built with its rows, and is trusted."""
    log = tuple(Entry(1, row, 0, address) for row, address in config.rows)
    documents: list[Document | None] = [None] * config.addresses
    for position, entry in enumerate(log, 1):
        documents[entry.new - 1] = Document(0, Shown(entry.row, position, True), lists=(entry.listed,))
    processes = 1 + max(program.process for program in config.programs)
    return State(
        log=log,
        transactions=(COMMITTED,),
        order=(1,),
        fence=Fence(1, True, snapshot_of((COMMITTED,)), 0, 0),
        generations=(Generation(1, 2, tuple(documents)),),
        lease=1,
        commands=(Command(),) * len(config.programs),
        processes=(Process(),) * processes,
        keepers=(Keeper(),) * config.keepers,
        late=(),
        rebuild=None,
        forgotten=(),
        forgetting=(),
        sweeping=(),
        bars=(1,) * config.addresses,
        budget=Budget(
            config.passes, config.late, config.plans, config.early, config.retention, config.sweeps
        ),
    )
