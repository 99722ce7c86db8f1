"""What one exploration starts from and may do."""

from typing import NamedTuple

from tests.faults import Fault
from tests.model.sql import snapshot
from tests.model.state import (
    COMMITTED,
    DELETE,
    OTHER,
    PUT,
    REDIS_LEASE,
    Budget,
    Command,
    Data,
    Document,
    Fence,
    Generation,
    Keeper,
    Lease,
    Node,
    Query,
    Row,
    Snapshot,
    Sql,
    State,
)

A, B = 0, 1


class Config(NamedTuple):
    """Bounds of an exploration; `off` are the rules dropped.

    With `helping`, commands look whether what they applied in vain is in, and bring it in. The clock of the first
    node is `ahead` of the others'.
    """

    commands: tuple[tuple[tuple[int, int], ...], ...] = (((A, PUT),),)
    keepers: int = 1
    faults: int = 0
    kinds: tuple[Fault, ...] = (
        Fault.FLUSHALL,
        Fault.REDIS_RESTARTED_EMPTY,
        Fault.REDIS_FROM_OLD_DUMP,
        Fault.TWO_MASTERS,
        Fault.MASTER_FOLLOWS_ITS_REPLICA,
    )
    late: int = 0
    passes: int = 1
    builds: int = 0
    copies: int = 0
    queries: int = 0
    planned: int = 0
    derived: bool = False
    chunked: bool = False
    helping: bool = False
    ahead: int = 0
    rollback: bool = False
    served: bool = True
    empty: bool = False
    timeless: bool = False
    existing: tuple[int, ...] = (A, B)
    prefix: tuple[str, ...] = ()
    off: frozenset[str] = frozenset()

    def without(self, *rules: str) -> "Config":
        """The same exploration with these rules dropped."""
        return self._replace(off=self.off | set(rules))


def first_state(config: Config) -> State:
    """A read model that has been built, with the rows `existing` in it, and a lease if it is `served`."""
    log = tuple(Row(n, 1, key, PUT) for n, key in enumerate(config.existing, 1))
    fence = Fence(1, 1, 1, True, 2 if config.served and not config.empty else 0, Snapshot(2, 2, ()), 0, 0)
    sql = Sql(log, (COMMITTED,), fence)
    values = [0, 0]
    for row in log:
        values[row.key] = row.position
    first = [Document(0, value, 0) if value else None for value in values]
    derived = Document((0, 0), (values[0], values[1]), 0) if config.derived else None
    generation = Generation(1, True, snapshot(sql).xmin, (first[0], first[1], derived))
    lease = Lease(1, 1, 1, REDIS_LEASE) if config.served else None
    node = Node(1, (1,), Data(None, ()) if config.empty else Data(lease, (generation,)), config.ahead)
    budget = Budget(
        config.faults,
        config.late,
        config.passes,
        config.builds,
        config.copies,
        config.queries,
        config.planned,
    )
    commands = tuple(Command() for _ in config.commands)
    keepers = tuple(Keeper() for _ in range(config.keepers))
    return State(sql, (node,), (), commands, keepers, Query(), None, 0, 2, (0, 0), budget)


__all__ = ["DELETE", "OTHER", "PUT", "A", "B", "Config", "first_state"]
