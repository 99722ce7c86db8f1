"""The model of documents made from several rows as a machine to explore."""

from collections.abc import Iterator

from tests.model.derived import command, keeper, redis, sql
from tests.model.derived.config import Config, first_state
from tests.model.derived.state import State, Step
from tests.model.explore import Machine


def machine(config: Config) -> Machine[State]:
    """Everything that can happen within these bounds."""

    def steps(state: State) -> Iterator[Step]:
        yield from command.steps(state, config)
        yield from keeper.steps(state, config)

    return Machine(first_state(config), steps, lambda state: _wrong(state, config), config.prefix)


def _wrong(state: State, config: Config) -> str:
    """What is older than what an answer rested on, or was never so; or nothing."""
    generation = redis.find(state, state.lease) if state.lease else None
    if generation is None:
        # Under a lease without its generation every key would be taken for a row that is not there.
        return "a lease names a generation that is gone" if state.lease else ""
    states = sql.history(state.log, state.order, config.keys)
    for at, (key, stored) in enumerate(zip(config.keys, generation.documents, strict=True)):
        shown = stored.content if stored else ()
        if all(each[at] != shown for each in states[state.bars[at] :]):
            return f"a query for {key} is shown {shown or 'nothing'}; SQL has {states[-1][at] or 'nothing'}"
    return ""
