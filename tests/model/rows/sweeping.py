"""What is forgotten: rows of the log that every cursor has seen, and generations that no row of the fence names."""

from collections.abc import Iterator

from tests.model.rows.config import Config
from tests.model.rows.state import State, Step
from tests.model.sql import sees
from tests.model.state import Snapshot


def steps(state: State, config: Config) -> Iterator[Step]:
    """Retention and sweeps, each in two steps: what it finds, and what it then deletes."""
    yield from _retention(state, config)
    yield from _sweep(state, config)


def _retention(state: State, config: Config) -> Iterator[Step]:
    if state.forgetting:
        forgotten = tuple(sorted({*state.forgotten, *state.forgetting}))
        yield (
            f"retention deletes {list(state.forgetting)}",
            state._replace(forgotten=forgotten, forgetting=()),
        )
        return
    if not state.budget.retention:
        return
    budget = state.budget._replace(retention=state.budget.retention - 1)
    spent = state._replace(budget=budget)
    cursors = [state.fence.cursor]
    if state.rebuild and "rebuild-cursor" not in config.off:
        # No clock is in this model: "nobody has renewed it for an hour" may be at any time.
        yield "retention closes the row of the rebuild", spent._replace(rebuild=None, budget=state.budget)
        cursors.append(state.rebuild.cursor)
    yield from _forget(spent, cursors)
    if all(keeper.at == "look" for keeper in state.keepers) and state.lease:
        # Hours later, when the application is started again.
        lapsed = spent._replace(lease=0)
        if "close-abandoned" not in config.off:
            lapsed = lapsed._replace(fence=state.fence._replace(generation=0, ready=False))
        for label, after in _forget(lapsed, cursors[1:]):
            yield f"nobody keeps the lease; {label}", after


def _forget(state: State, cursors: list[Snapshot]) -> Iterator[Step]:
    found = tuple(
        position
        for position, entry in enumerate(state.log, 1)
        if entry.transaction in state.order
        and position not in state.forgotten
        and all(sees(cursor, entry.transaction) for cursor in cursors)
    )
    if found:
        yield f"retention finds {list(found)} seen by all", state._replace(forgetting=found)


def _sweep(state: State, config: Config) -> Iterator[Step]:
    names = tuple(generation.name for generation in state.generations)
    named = (state.fence.generation, state.rebuild.generation if state.rebuild else 0)
    first, second = (named, names) if "listed-first" in config.off else (names, named)
    if state.sweeping:
        listed, rows = (second, state.sweeping) if "listed-first" in config.off else (state.sweeping, second)
        dead = [name for name in listed if name not in rows]
        kept = tuple(generation for generation in state.generations if generation.name not in dead)
        yield f"the sweep deletes generations {dead}", state._replace(generations=kept, sweeping=())
    elif state.budget.sweeps:
        budget = state.budget._replace(sweeps=state.budget.sweeps - 1)
        what = "reads the fence" if "listed-first" in config.off else "lists generations"
        yield f"the sweep {what}: {list(first)}", state._replace(sweeping=first, budget=budget)
