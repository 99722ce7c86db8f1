"""What one exploration of this model starts from and may do."""

from typing import NamedTuple

from tests.model.history.state import Budget, Command, Database, Generation, Keeper, Lease, State
from tests.model.state import Snapshot


class Config(NamedTuple):
    """Bounds of an exploration; `off` are the rules dropped.

    A command writes the row (`write`), a log row of no document (`note`), or nothing (`read`). With `counted_anew` a
    database that is put elsewhere counts positions from 1; with `ahead` its clock is ahead by more than a lease.
    With `two`, another database of the same namespace is there.
    """

    commands: tuple[str, ...] = ("write",)
    moves: int = 0
    returns: int = 0
    passes: int = 1
    builds: int = 1
    counted_anew: bool = False
    ahead: bool = False
    two: bool = False
    served: bool = True
    prefix: tuple[str, ...] = ()
    off: frozenset[str] = frozenset()

    def without(self, *rules: str) -> "Config":
        """The same exploration with these rules dropped."""
        return self._replace(off=self.off | set(rules))


def first_state(config: Config) -> State:
    """A read model that has been built, and is trusted if it is `served`."""
    database = Database() if config.served else Database(lease=0)
    databases: tuple[Database, ...] = (database,)
    generations: tuple[Generation, ...] = (Generation(1, 9, 1, 0, 1),)
    if config.two:
        other = Database(2, 2, (2,), values=(2,), generation=2, cursor=Snapshot(9, 9, ()), lease=0)
        databases, generations = (database, other), (*generations, Generation(2, 9, 1, 0, 2))
    lease = Lease(1, 1, 1) if config.served else None
    budget = Budget(config.moves, config.returns, config.passes, config.builds)
    commands = (Command(),) * len(config.commands)
    return State(databases, generations, lease, commands, (Keeper(),) * len(databases), None, 0, 3, budget)
