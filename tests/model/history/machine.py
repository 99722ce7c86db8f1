"""The model of databases that are put elsewhere, or back, or share a namespace, as a machine to explore."""

from collections.abc import Iterator

from tests.model.explore import Machine
from tests.model.history import command, keeper, sql
from tests.model.history.config import Config, first_state
from tests.model.history.redis import find
from tests.model.history.state import State, Step


def machine(config: Config) -> Machine[State]:
    """Everything that can happen within these bounds."""

    def steps(state: State) -> Iterator[Step]:
        yield from command.steps(state, config)
        yield from keeper.steps(state, config)
        yield from sql.steps(state, config)
        yield _tick(state)

    return Machine(first_state(config), steps, lambda state: _wrong(state, config), config.prefix)


def _tick(state: State) -> Step:
    """SQL's clock and that of Redis go on in turn."""
    if state.phase == 0:
        databases = tuple(each._replace(lease=max(0, each.lease - 1)) for each in state.databases)
        commands = tuple(each._replace(left=max(0, each.left - 1)) for each in state.commands)
        return "SQL's clock ticks", state._replace(phase=1, databases=databases, commands=commands)
    keepers = tuple(each._replace(left=max(0, each.left - 1)) for each in state.keepers)
    lease = state.lease
    lease = lease._replace(left=lease.left - 1) if lease and lease.left > 1 else None
    return "Redis's clock ticks", state._replace(phase=0, keepers=keepers, lease=lease)


def _wrong(state: State, config: Config) -> str:
    """What a query is shown that its database never held, or that is older than an answer given before."""
    if state.lease is None:
        return ""
    generation = find(state, state.lease.generation)
    shown = generation.value if generation else 0
    for n, database in enumerate(state.databases):
        # A process may not have heard yet that its database has another history.
        is_served = state.lease.history in database.names or "lease-history" in config.off
        if is_served and shown not in database.values[database.bar :]:
            return f"a query of database {n + 1} is shown value {shown}; SQL has {database.values[-1]}"
    return ""
