"""The model of changes by other programs, with triggers or without, as a machine to explore."""

from collections.abc import Iterator

from tests.model.capture.rules import Config
from tests.model.capture.state import LEASE, Generation, Keeper, Lease, Sql, State, Step
from tests.model.explore import Machine

IDLE = Keeper()


def machine(config: Config) -> Machine[State]:
    """Everything that can happen within these bounds."""
    first = State(
        Sql(),
        (Generation(1, 0),),
        Lease(1, LEASE),
        (IDLE,) * config.keepers,
        changes=config.changes,
        gaps=config.gaps,
        passes=config.passes,
        builds=config.builds,
    )

    def steps(state: State) -> Iterator[Step]:
        yield from _others(state)
        for n, keeper in enumerate(state.keepers):
            if keeper in state.keepers[:n]:
                continue
            for label, after in _next(state, config, n, keeper):
                yield f"keeper {label}", after
            if keeper.at != "look":
                yield f"keeper at {keeper.at!r} is killed, or gives up", _put(state, n, IDLE)
        yield _tick(state)

    return Machine(first, steps, _wrong, config.prefix)


# Other programs


def _others(state: State) -> Iterator[Step]:
    """Each step is a transaction of another program: queries may miss its change for a lease from now on."""
    sql = state.sql
    if state.changes:
        value = sql.value + 1
        changed = state._replace(changes=state.changes - 1, due=(*state.due, (value, LEASE)))
        logged = value if sql.on else sql.logged
        what = "another program changes the row" if sql.on else "another program changes the row, unlogged"
        yield what, changed._replace(sql=sql._replace(value=value, logged=logged))
        if sql.on and state.gaps:
            unlogged = sql._replace(value=value, captured=False)
            after = changed._replace(sql=unlogged, gaps=state.gaps - 1)
            yield "another program changes the row with the triggers off for a moment", after
    if sql.on and state.gaps:
        off = sql._replace(on=False, captured=False)
        yield "another program drops a trigger", state._replace(sql=off, gaps=state.gaps - 1)


def _tick(state: State) -> Step:
    """The clock goes on. (The bound on two clocks' rates is a matter of the model of leases.)"""
    sql = state.sql._replace(lease=max(0, state.sql.lease - 1))
    keepers = tuple(each._replace(left=max(0, each.left - 1)) for each in state.keepers)
    lease = state.lease
    lease = lease._replace(left=lease.left - 1) if lease and lease.left > 1 else None
    shown = max([state.shown, *(value for value, left in state.due if left == 1)])
    due = tuple((value, left - 1) for value, left in state.due if left > 1)
    moved = state._replace(sql=sql, keepers=tuple(sorted(keepers)), lease=lease, due=due, shown=shown)
    return "the clock ticks", moved


def _wrong(state: State) -> str:
    """What a query that starts now is shown although a newer change was committed a lease ago; or nothing."""
    if state.lease is None:
        return ""
    found = _find(state, state.lease.generation)
    value = found.value if found else 0
    if value < state.shown:
        return f"a query is shown value {value}; value {state.shown} was committed a lease ago"
    return ""


# Keepers


def _put(state: State, n: int, keeper: Keeper) -> State:
    keepers = sorted([*state.keepers[:n], keeper, *state.keepers[n + 1 :]])
    return state._replace(keepers=tuple(keepers))


def _find(state: State, name: int) -> Generation | None:
    return next((each for each in state.generations if each.name == name), None)


def _set(state: State, generation: Generation) -> State:
    others = [each for each in state.generations if each.name != generation.name]
    return state._replace(generations=tuple(sorted([*others, generation])))


def _next(state: State, config: Config, n: int, keeper: Keeper) -> Iterator[Step]:
    match keeper.at:
        case "look":
            yield from _look(state, config, n)
        case "promise":
            yield from _promise(state, config, n, keeper)
        case "compare":
            yield from _compare(state, config, n, keeper)
        case "capture" | "end":
            yield from _capture(state, config, n, keeper)
        case "backfill":
            value = state.sql.value
            filled = _set(state, Generation(keeper.generation, value))
            yield f"fills it with value {value}", _put(filled, n, keeper._replace(at="promise"))
        case "read":
            value = state.sql.logged
            yield f"reads value {value} in the log", _put(state, n, keeper._replace(at="write", value=value))
        case "write":
            yield _write(state, n, keeper)
        case "complete":
            yield _complete(state, n, keeper)
        case "publish":
            yield _publish(state, config, n, keeper)


def _look(state: State, config: Config, n: int) -> Iterator[Step]:
    """Steps 7 and 12. A build moves the fence once nobody can trust what was there."""
    sql = state.sql
    if sql.ready and state.passes:
        at = "compare" if "fingerprint-after" in config.off else "promise"
        keeper = Keeper(at, sql.generation, LEASE)
        yield "looks", _put(state._replace(passes=state.passes - 1), n, keeper)
    elif not sql.ready and sql.lease == 0 and state.builds:
        name = state.fresh
        moved = state._replace(sql=sql._replace(generation=name), fresh=name + 1, builds=state.builds - 1)
        builder = Keeper("backfill", name, building=True)
        yield f"moves the fence to generation {name}", _put(moved, n, builder)


def _promise(state: State, config: Config, n: int, keeper: Keeper) -> Iterator[Step]:
    """Step 8. A builder looks once more, for t0; so does who has compared before t0, with that rule dropped."""
    sql = state.sql
    if sql.generation != keeper.generation:
        yield "finds another generation in the fence", _put(state, n, IDLE)
        return
    promised = state._replace(sql=sql._replace(lease=LEASE))
    is_compared = "fingerprint-after" in config.off and not keeper.building
    left = LEASE if keeper.building or is_compared else keeper.left
    after = keeper._replace(at="read" if is_compared else "compare", left=left)
    yield "promises", _put(promised, n, after)


def _compare(state: State, config: Config, n: int, keeper: Keeper) -> Iterator[Step]:
    """The fingerprint, and with it whether the fence still names the generation."""
    sql = state.sql
    if sql.generation != keeper.generation and "generation-stands" not in config.off:
        yield "finds the fingerprint right, and another generation", _put(state, n, IDLE)
    elif sql.captured:
        early = "fingerprint-after" in config.off and not keeper.building
        after = keeper._replace(at="promise" if early else "read")
        yield "finds the fingerprint right", _put(state, n, after)
    else:
        yield "finds the fingerprint changed", _put(state, n, keeper._replace(at="capture"))


def _capture(state: State, config: Config, n: int, keeper: Keeper) -> Iterator[Step]:
    """The triggers are made anew and the generation ends: one transaction, or two if the rule is dropped."""
    sql = state.sql
    if keeper.at == "capture":
        noted = sql._replace(on=True, captured=True)
        if "one-transaction" in config.off and not sql.captured:
            yield "makes the triggers anew", _put(state._replace(sql=noted), n, keeper._replace(at="end"))
            return
        ended = sql if sql.captured else _ended(noted)
        yield "makes the triggers anew, and ends the generation", _put(state._replace(sql=ended), n, IDLE)
        return
    yield "ends the generation", _put(state._replace(sql=_ended(sql)), n, IDLE)


def _ended(sql: Sql) -> Sql:
    return sql._replace(generation=0, ready=False)


def _write(state: State, n: int, keeper: Keeper) -> Step:
    """What is in no log is not written: the value stays that of the last change that was logged, or of the build."""
    generation = _find(state, keeper.generation)
    if generation is None:
        return "is refused: the generation is gone", _put(state, n, IDLE)
    written = _set(state, generation._replace(value=max(generation.value, keeper.value)))
    after = keeper._replace(at="complete" if keeper.building else "publish", value=0)
    return "writes it", _put(written, n, after)


def _complete(state: State, n: int, keeper: Keeper) -> Step:
    """Step 11 of a builder: `ready`, before the lease."""
    if state.sql.generation != keeper.generation:
        return "completes nothing: the fence has moved on", _put(state, n, IDLE)
    after = state._replace(sql=state.sql._replace(ready=True))
    return "completes the build", _put(after, n, keeper._replace(at="publish"))


def _publish(state: State, config: Config, n: int, keeper: Keeper) -> Step:
    """Step 10: the lease, counted from t0."""
    left = LEASE if "lease-from-t0" in config.off else keeper.left
    lease = Lease(keeper.generation, left) if left else state.lease
    return "publishes the lease", _put(state._replace(lease=lease), n, IDLE)
