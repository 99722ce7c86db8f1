"""The model of leases, generations and faults as a machine to explore."""

from collections.abc import Iterator

from tests.model import command, faults, keeper, query
from tests.model.config import Config, first_state
from tests.model.explore import Machine
from tests.model.state import State, Step


def machine(config: Config) -> Machine[State]:
    """Everything that can happen within these bounds."""

    def steps(state: State) -> Iterator[Step]:
        yield from command.steps(state, config)
        yield from keeper.steps(state, config)
        if config.queries:
            yield from query.steps(state, config)
        yield from faults.steps(state, config)

    return Machine(first_state(config), steps, lambda state: query.wrong(state, config), config.prefix)
