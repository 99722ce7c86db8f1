"""What one exploration of this model starts from and may do."""

from typing import NamedTuple

from tests.model.derived import sql
from tests.model.derived.state import Command, Document, Entry, Fence, Generation, Keeper, Place, State
from tests.model.sql import snapshot_of
from tests.model.state import COMMITTED

R, Q = 1, 2
A, B = 11, 12
PARENTS = (A, B)


class Change(NamedTuple):
    """One statement, and its row of the log.

    `update` writes a row, or a parent, where it is; `move` gives a row another address, `link` another parent;
    `create` and `delete` are of rows and of parents. `number` draws a transaction number and changes no document.
    """

    kind: str
    row: int = 0
    to: int = 0
    parent: int = 0


class Program(NamedTuple):
    """What a command does, and in which process; a `foreign` program logs its changes, and nobody waits for it."""

    process: int
    changes: tuple[Change, ...]
    foreign: bool = False


class Config(NamedTuple):
    """Bounds of an exploration; `off` are the rules dropped, `rows` are there at first: row, address, parent.

    With `parents` there is a document of each parent too. `one_writer` is SQLite. A command that has touched more
    than `most` documents leaves them to a pass. After a planned rebuild, of `plans`, the generation before is `kept`
    if it could not be deleted.
    """

    programs: tuple[Program, ...] = ()
    rows: tuple[tuple[int, int, int], ...] = ((R, 1, A),)
    addresses: int = 2
    parents: bool = False
    passes: int = 0
    late: int = 0
    plans: int = 0
    kept: bool = False
    one_writer: bool = False
    most: int = 9
    prefix: tuple[str, ...] = ()
    off: frozenset[str] = frozenset()

    @property
    def keys(self) -> tuple[int, ...]:
        """The keys of the documents."""
        return (*range(1, self.addresses + 1), *(PARENTS if self.parents else ()))

    def without(self, *rules: str) -> "Config":
        """The same exploration with these rules dropped."""
        return self._replace(off=self.off | set(rules))


def first_state(config: Config) -> State:
    """A read model that has been built with its rows, and is trusted."""
    parents = [Entry(1, parent, None, Place()) for parent in PARENTS]
    log = (*parents, *(Entry(1, row, None, Place(address, parent)) for row, address, parent in config.rows))
    contents = sql.history(log, (1,), config.keys)[-1]
    documents = tuple(Document((0, 0), content) if content else None for content in contents)
    built = snapshot_of((COMMITTED,))
    processes = 1 + max(program.process for program in config.programs)
    return State(
        log=log,
        transactions=(COMMITTED,),
        order=(1,),
        fence=Fence(1, True, built),
        generations=(Generation(1, built.xmin, documents),),
        lease=1,
        commands=(Command(),) * len(config.programs),
        seen=((1, built),) * processes,
        keeper=Keeper(),
        late=(),
        bars=(1,) * len(config.keys),
        passes=config.passes,
        lates=config.late,
        plans=config.plans,
    )
