"""The model of rows that move, and of what answers rest on, as a machine to explore."""

from collections.abc import Iterator

from tests.model.explore import Machine
from tests.model.rows import command, keeper, query, sweeping
from tests.model.rows.config import Config, first_state
from tests.model.rows.state import State, Step


def machine(config: Config) -> Machine[State]:
    """Everything that can happen within these bounds."""

    def steps(state: State) -> Iterator[Step]:
        yield from command.steps(state, config)
        yield from keeper.steps(state, config)
        yield from sweeping.steps(state, config)

    return Machine(first_state(config), steps, lambda state: query.wrong(state, config), config.prefix)
