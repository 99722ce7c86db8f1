"""A keeper's pass, steps 7 to 11, and the build of a new generation, step 12."""

from collections.abc import Iterator

from tests.model import redis, sql
from tests.model.command import send_late
from tests.model.config import Config
from tests.model.state import REDIS_LEASE, Document, Keeper, Message, Row, State, Step

IDLE = Keeper()
SQL_LEASE = 2


def steps(state: State, config: Config) -> Iterator[Step]:
    """What any keeper can do next; keepers are alike, so of two in the same place one is enough."""
    for n, keeper in enumerate(state.keepers):
        if keeper in state.keepers[:n]:
            continue
        for label, after in _next(state, config, n, keeper):
            yield f"keeper {label}", after
        if keeper.at != "look":
            yield (
                f"keeper at {keeper.at!r} is killed, or gives up; another takes its place",
                put(state, n, IDLE),
            )


def put(state: State, n: int, keeper: Keeper) -> State:
    """The state with keeper n so; the keepers are kept in order, since they are alike."""
    keepers = sorted([*state.keepers[:n], keeper, *state.keepers[n + 1 :]])
    return state._replace(keepers=tuple(keepers))


def _next(state: State, config: Config, n: int, keeper: Keeper) -> Iterator[Step]:
    match keeper.at:
        case "look":
            yield from _look(state, config, n)
        case "promise":
            for number, node in enumerate(state.nodes):
                # A builder has to look once more, for t0.
                if (node.run, node.replications[-1]) == keeper[2:4] or "look-incarnation" in config.off:
                    yield from _promise(state, config, n, keeper._replace(clock=number))
        case "read":
            yield _read(state, config, n, keeper)
        case "regenerate":
            yield from _regenerate(state, config, n, keeper)
        case "backfill":
            yield _backfill(state, n, keeper, config)
        case "complete":
            yield _complete(state, config, n, keeper)
        case "switch":
            yield _switch(state, n, keeper)
        case _:
            yield from _send(state, config, n, keeper)


def _look(state: State, config: Config, n: int) -> Iterator[Step]:
    """Step 7, and step 8 at once where all is well.

    The two are one step here: a t0 taken earlier only gives a shorter lease, and whatever else was read is checked
    again by the UPDATE or by every script.
    """
    fence = state.sql.fence
    for number, node in enumerate(state.nodes):
        found = redis.find(node.data, fence.generation)
        same = (node.run, node.replications[-1]) == (fence.run, fence.replication)
        looked = Keeper("promise", number, node.run, node.replications[-1], fence.generation, clock=number)
        names = tuple(g.name for g in node.data.generations)
        if same and fence.ready and found and found.built:
            if "promise-first" in config.off:
                yield f"looks at Redis {number}", put(state, n, looked._replace(at="read", left=REDIS_LEASE))
            elif state.budget.passes:
                yield from _promise(state, config, n, looked)
            if state.budget.planned:
                yield (
                    "plans a rebuild",
                    _plan(state, n, looked._replace(number=fence.generation, doomed=names)),
                )
        elif state.budget.builds:
            label = f"looks at Redis {number}: not what the fence names"
            yield label, put(state, n, looked._replace(at="regenerate", building=True, doomed=names))


def _plan(state: State, n: int, looked: Keeper) -> State:
    """A planned rebuild takes a cursor of its own, before its snapshot."""
    cursor = sql.snapshot(state.sql)
    planner = looked._replace(
        at="marker", building=True, planned=True, generation=state.fresh, snapshot=cursor
    )
    budget = state.budget._replace(planned=state.budget.planned - 1)
    return put(state._replace(fresh=state.fresh + 1, budget=budget), n, planner)


def _promise(state: State, config: Config, n: int, keeper: Keeper) -> Iterator[Step]:
    """Step 8."""
    fence = state.sql.fence
    if sql.identity(fence) != keeper[2:5] or (not fence.ready and not keeper.building):
        yield "finds another generation in the fence", put(state, n, IDLE)
    elif state.budget.passes:
        lease = max(fence.lease, 1 if "margin" in config.off else SQL_LEASE)
        after = state.sql._replace(fence=fence._replace(started=fence.started + 1, lease=lease))
        budget = state.budget._replace(passes=state.budget.passes - 1)
        late = "promise-first" in config.off and not keeper.building
        promised = keeper._replace(at="rows" if late else "read", number=fence.started + 1)
        promised = promised._replace(left=keeper.left if late else REDIS_LEASE, planned=False)
        yield f"promises pass {promised.number}", put(state._replace(sql=after, budget=budget), n, promised)


def _read(state: State, config: Config, n: int, keeper: Keeper) -> Step:
    """Step 9: log rows and snapshot in one statement, made into scripts."""
    seen = sql.snapshot(state.sql)
    cursor = state.sql.fence.cursor
    rows = sql.rows_after(state.sql, cursor, config.off)
    if keeper.building and "replay" in config.off:
        rows = ()
    at = "promise" if "promise-first" in config.off and not keeper.building else "rows"
    todo = _scripts(state, config, keeper, rows)
    label = f"reads positions {[row.position for row in rows]} of the log"
    return label, put(state, n, keeper._replace(at=at, snapshot=seen, floor=cursor.xmin, todo=todo))


def _scripts(state: State, config: Config, keeper: Keeper, rows: tuple[Row, ...]) -> tuple[Message, ...]:
    seen = sql.snapshot(state.sql)
    blank = Message("rows", keeper.node, *keeper[2:5], horizon=seen.xmax)
    derived = None
    if config.derived and rows:
        derived = Document(sql.stamp(seen), sql.visible(state.sql), 0)
    chunks = [(row,) for row in rows] if config.chunked and rows else [rows]
    scripts = [blank._replace(rows=chunk) for chunk in chunks]
    scripts[-1] = scripts[-1]._replace(derived=derived, floor=seen.xmin)
    return tuple(scripts)


def _send(state: State, config: Config, n: int, keeper: Keeper) -> Iterator[Step]:
    """Send the next script. No answer: the pass is given up; a builder's numbered script is sent again."""
    message = _message(state, keeper)
    for number, node in enumerate(state.nodes):
        if number != keeper.node and not config.off & {"pass-run", "pass-replication"}:
            continue  # it would refuse
        addressed = message._replace(node=number)
        after, accepted = redis.execute(node, addressed, config.off)
        moved = state._replace(nodes=(*state.nodes[:number], after, *state.nodes[number + 1 :]))
        label = f"sends {_name(message)} to Redis {number}: {'done' if accepted else 'refused'}"
        yield label, put(moved, n, _after(keeper, config) if accepted else IDLE)
        if state.budget.late:
            late = send_late(state, addressed)
            resend = keeper if message.kind == "fill" else IDLE
            yield f"gives up on {_name(message)}, which is still on its way", put(late, n, resend)


def _name(message: Message) -> str:
    positions = [row.position for row in message.rows]
    return {"rows": f"rows {positions}", "fill": f"builder's script {message.number}"}.get(
        message.kind, f"the {message.kind}"
    )


def _message(state: State, keeper: Keeper) -> Message:
    blank = Message(keeper.at, keeper.node, *keeper[2:5])
    match keeper.at:
        case "marker":
            doomed = () if keeper.planned else keeper.doomed
            return blank._replace(doomed=doomed)
        case "lease":
            # The lease's end is an absolute time, of the clock that t0 was read from.
            ahead = state.nodes[keeper.clock].ahead - state.nodes[keeper.node].ahead
            return blank._replace(left=max(0, keeper.left + ahead), floor=keeper.floor)
        case "drop":
            return blank._replace(doomed=keeper.doomed)
    return keeper.todo[0]


def _after(keeper: Keeper, config: Config) -> Keeper:
    match keeper.at:
        case "marker":
            return keeper._replace(at="backfill", doomed=keeper.doomed if keeper.planned else ())
        case "drop":
            return keeper._replace(at="switch", doomed=())
        case "lease":
            return IDLE if keeper.building else keeper._replace(at="complete", left=0)
    if len(keeper.todo) > 1:
        return keeper._replace(todo=keeper.todo[1:])
    if keeper.at == "fill":
        return keeper._replace(at="drop" if keeper.planned else "promise", todo=())
    return keeper._replace(at="complete" if keeper.building else "lease", todo=())


def _complete(state: State, config: Config, n: int, keeper: Keeper) -> Step:
    """Step 11; a builder sets `ready` with it."""
    fence = state.sql.fence
    if sql.identity(fence) != keeper[2:5]:
        return "completes nothing: the fence has moved on", put(state, n, IDLE)
    newer = sql.stamp(keeper.snapshot) > sql.stamp(fence.cursor) or "cursor-forward" in config.off
    fence = fence._replace(
        ready=True,
        cursor=keeper.snapshot if newer else fence.cursor,
        completed=max(fence.completed, keeper.number),
    )
    moved = state._replace(sql=state.sql._replace(fence=fence))
    return f"completes pass {keeper.number}", put(
        moved, n, keeper._replace(at="lease") if keeper.building else IDLE
    )


def _regenerate(state: State, config: Config, n: int, keeper: Keeper) -> Iterator[Step]:
    """Step 12: the fence moves to a new generation once nobody can trust the old one."""
    fence = state.sql.fence
    if fence.generation != keeper.generation:
        yield "finds another generation in the fence", put(state, n, IDLE)
    elif fence.lease == 0 or "lapse" in config.off:
        name = fence.generation if "fresh-names" in config.off else state.fresh
        cursor = sql.snapshot(state.sql)
        fence = fence._replace(run=keeper.run, replication=keeper.replication, generation=name)
        moved = state.sql._replace(fence=fence._replace(ready=False, cursor=cursor))
        budget = state.budget._replace(builds=state.budget.builds - 1)
        after = state._replace(sql=moved, fresh=max(state.fresh, name + 1), budget=budget)
        builder = keeper._replace(at="marker", generation=name, left=0)
        yield f"moves the fence to generation {name} on Redis {keeper.node}", put(after, n, builder)


def _backfill(state: State, n: int, keeper: Keeper, config: Config) -> Step:
    """The backfill's snapshot, made into numbered scripts; the last one brings the floor."""
    seen, values = sql.snapshot(state.sql), sql.visible(state.sql)
    cursor = keeper.snapshot if keeper.planned else state.sql.fence.cursor
    blank = Message("fill", keeper.node, *keeper[2:5])
    rows = tuple(Row(value, 0, key, 1) for key, value in enumerate(values) if value)
    parts = [(row,) for row in rows] if config.chunked and rows else [rows]
    scripts = [blank._replace(number=i, rows=part) for i, part in enumerate(parts, 1)]
    derived = Document((0, 0), values, 0) if config.derived else None
    floor = seen.xmin if "builder-floor" in config.off else cursor.xmin
    scripts[-1] = scripts[-1]._replace(derived=derived, floor=floor)
    return f"reads the backfill {values}", put(state, n, keeper._replace(at="fill", todo=tuple(scripts)))


def _switch(state: State, n: int, keeper: Keeper) -> Step:
    """A planned rebuild moves the fence; its script has dropped the lease and the old marker before."""
    fence = state.sql.fence
    if sql.identity(fence) != (*keeper[2:4], keeper.number):
        return "finds another generation in the fence", put(state, n, IDLE)
    fence = fence._replace(generation=keeper.generation, ready=False, cursor=keeper.snapshot)
    moved = state._replace(sql=state.sql._replace(fence=fence))
    return f"switches to generation {keeper.generation}", put(
        moved, n, keeper._replace(at="promise", number=0)
    )
