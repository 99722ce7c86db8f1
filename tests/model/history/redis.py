"""Redis in this model."""

from collections.abc import Iterable

from tests.model.history.state import Entry, Generation, State


def find(state: State, name: int) -> Generation | None:
    """The generation, if its marker is there."""
    for generation in state.generations:
        if generation.name == name:
            return generation
    return None


def put(state: State, generation: Generation) -> State:
    """The state with this generation in place of the one of its name."""
    rest = [other for other in state.generations if other.name != generation.name]
    return state._replace(generations=tuple(sorted([*rest, generation])))


def apply(state: State, generation: Generation, entries: Iterable[Entry]) -> State:
    """What is below the floor or not newer is passed over."""
    for entry in entries:
        if entry.transaction >= generation.floor and entry.position > generation.stamp:
            generation = generation._replace(stamp=entry.position, value=entry.value)
    return put(state, generation)


def is_in(generation: Generation, entry: Entry) -> bool:
    """Whether an entry, or a later one, is stored, or its transaction is below the floor."""
    return entry.transaction < generation.floor or generation.stamp >= entry.position
