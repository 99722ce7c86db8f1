"""A keeper's pass in this model, and a planned rebuild."""

from collections.abc import Iterator

from tests.model.rows import redis, sql
from tests.model.rows.config import Config
from tests.model.rows.parts import send_late
from tests.model.rows.state import Document, Generation, Keeper, Message, Rebuild, State, Step, Write
from tests.model.sql import snapshot_of, stamp

IDLE = Keeper()


def steps(state: State, config: Config) -> Iterator[Step]:
    """What any keeper can do next; keepers are alike, so of two in the same place one is enough."""
    for n, keeper in enumerate(state.keepers):
        if keeper in state.keepers[:n]:
            continue
        for label, after in _next(state, config, n, keeper):
            yield f"keeper {label}", after
        if keeper.at != "look":
            yield "keeper is killed, or gives up", put(state, n, IDLE)
    for n, message in enumerate(state.late):
        rest = state._replace(late=(*state.late[:n], *state.late[n + 1 :]))
        after, accepted = redis.execute(rest, message, config.off)
        if accepted:  # a refusal is no different from never arriving
            yield f"the late {message.kind} {_told(message)} arrives", after


def put(state: State, n: int, keeper: Keeper) -> State:
    """The state with keeper n so; the keepers are kept in order, since they are alike."""
    return state._replace(
        keepers=tuple(sorted([*state.keepers[:n], keeper, *state.keepers[n + 1 :]], key=repr))
    )


def _next(state: State, config: Config, n: int, keeper: Keeper) -> Iterator[Step]:
    match keeper.at:
        case "look":
            yield from _look(state, config, n)
        case "read":
            yield _read(state, config, n, keeper)
        case "read again":
            todo = _read_again(state, config, keeper)
            yield "reads the rows", put(state, n, keeper._replace(at="write", positions=(), todo=todo))
        case "write" | "fill":
            yield from _write(state, config, n, keeper)
        case "publish":
            yield _publish(state, config, n, keeper)
        case "complete":
            yield _complete(state, n, keeper)
        case "register":
            yield _register(state, config, n, keeper)
        case "backfill":
            yield _backfill(state, config, n, keeper)
        case "switch":
            yield _switch(state, config, n, keeper)


def _look(state: State, config: Config, n: int) -> Iterator[Step]:
    """It looks and promises: one step, since nothing that it reads counts before."""
    fence = state.fence
    if not fence.ready or redis.find(state, fence.generation) is None:
        return
    if state.budget.passes:
        keeper = Keeper(
            "read", fence.generation, number=fence.started + 1, committed=_committed(state, config)
        )
        budget = state.budget._replace(passes=state.budget.passes - 1)
        promised = state._replace(fence=fence._replace(started=fence.started + 1), budget=budget)
        yield f"promises pass {keeper.number}", put(promised, n, keeper)
    if state.budget.early:
        budget = state.budget._replace(early=state.budget.early - 1)
        carrier = Keeper("read", fence.generation)
        yield "carries before it promises", put(state._replace(budget=budget), n, carrier)
    if state.budget.plans:
        name = 2 + max(state.fence.generation, *(generation.name for generation in state.generations))
        keeper = Keeper("register", name, True, fence.generation, snapshot_of(state.transactions))
        budget = state.budget._replace(plans=state.budget.plans - 1)
        yield f"plans generation {name}", put(state._replace(budget=budget), n, keeper)


def _committed(state: State, config: Config) -> int:
    """How many transactions are committed, where it matters: for foreign writers."""
    return len(state.order) if any(program.writer == "foreign" for program in config.programs) else 0


def _register(state: State, config: Config, n: int, keeper: Keeper) -> Step:
    """A planned rebuild's row of the fence is committed, then the cursor is taken from which it will read the log.

    The one in the row was taken before the commit: retention may not have known of it.
    """
    row = Rebuild(keeper.generation, keeper.snapshot)
    cursor = keeper.snapshot if "cursor-after-row" in config.off else snapshot_of(state.transactions)
    begun = redis.put(state, Generation(keeper.generation, 0, (None,) * len(state.bars)))
    registered = begun._replace(rebuild=row)
    return "commits its row of the fence", put(registered, n, keeper._replace(at="backfill", snapshot=cursor))


def _read(state: State, config: Config, n: int, keeper: Keeper) -> Step:
    """The log and its snapshot in one statement, made into scripts."""
    positions = sql.unseen(state, state.fence.cursor)
    keeper = keeper._replace(snapshot=snapshot_of(state.transactions), positions=positions)
    label = f"reads positions {list(positions)} of the log"
    if positions and (config.read_again or not all(state.log[p - 1].image for p in positions)):
        keeper = keeper._replace(at="read again")
        if "one-snapshot" in config.off:
            return label, put(state, n, keeper)
        label += " and the rows"
        todo = _read_again(state, config, keeper)
    else:
        todo = _scripts(redis.writes_of(state.log, positions, config.off), keeper, config)
    return label, put(state, n, keeper._replace(at="write", positions=(), todo=todo))


def _read_again(state: State, config: Config, keeper: Keeper) -> tuple[Message, ...]:
    """Images that lack a column: who is at the addresses that they name now, stamped as the last of them."""
    there = sql.history(state.log, state.order, config.addresses)[-1]
    writes = redis.writes_of(state.log, keeper.positions, config.off, there, config.read_again)
    if "one-stamp" in config.off:
        writes = tuple(write._replace(stamp=keeper.positions[-1]) for write in writes)
    return _scripts(writes, keeper, config)


def _scripts(writes: tuple[Write, ...], keeper: Keeper, config: Config) -> tuple[Message, ...]:
    """One script; with a dropped rule the tombstones come in one of their own, first."""
    parts = [writes]
    if "both-in-one" in config.off:
        parts = [tuple(w for w in writes if w.shown is None), tuple(w for w in writes if w.shown)]
    horizon = keeper.snapshot.xmax
    return tuple(Message("pass", keeper.generation, part, horizon) for part in parts if part)


def _write(state: State, config: Config, n: int, keeper: Keeper) -> Iterator[Step]:
    if not keeper.todo:
        at = "complete" if keeper.building else "publish"
        yield "has written all", put(state, n, keeper._replace(at=at))
        return
    message = keeper.todo[0]
    after, accepted = redis.execute(state, message, config.off)
    written = put(after, n, keeper._replace(todo=keeper.todo[1:]) if accepted else IDLE)
    yield f"writes {_told(message)}: {'done' if accepted else 'refused'}", written
    if state.budget.late:
        yield "gives up on a script, which is still on its way", put(send_late(state, message), n, IDLE)


def _told(message: Message) -> str:
    return ", ".join(f"{w.address}={w.shown.row if w.shown else 'nobody'}@{w.stamp}" for w in message.writes)


def _publish(state: State, config: Config, n: int, keeper: Keeper) -> Step:
    """The floor is raised, tombstones whose time has come go, queries may trust the generation."""
    generation = redis.find(state, keeper.generation)
    if generation is None:
        return "is refused: the generation is gone", put(state, n, IDLE)
    seen = snapshot_of(state.transactions) if "floor-read" in config.off else keeper.snapshot
    floor = max(generation.floor, seen.xmin)
    documents = tuple(None if d and not d.shown and 0 < d.purge <= floor else d for d in generation.documents)
    published = redis.put(state, generation._replace(floor=floor, documents=documents))
    if not keeper.number:
        return "raises the floor", put(published, n, IDLE)
    after = IDLE if keeper.building else keeper._replace(at="complete", committed=0)
    committed = _committed(state, config) if "t0-before-read" in config.off else keeper.committed
    bars = sql.bars_at(state, [max(bar, committed) for bar in state.bars])
    return "publishes", put(published._replace(lease=keeper.generation, bars=bars), n, after)


def _complete(state: State, n: int, keeper: Keeper) -> Step:
    fence = state.fence
    if fence.generation != keeper.generation:
        return "completes nothing: the fence has moved on", put(state, n, IDLE)
    cursor = keeper.snapshot if stamp(keeper.snapshot) > stamp(fence.cursor) else fence.cursor
    completed = max(fence.completed, keeper.number)
    fence = fence._replace(ready=True, cursor=cursor, completed=completed)
    after = keeper._replace(at="publish") if keeper.building else IDLE
    return f"completes pass {keeper.number}", put(state._replace(fence=fence), n, after)


def _backfill(state: State, config: Config, n: int, keeper: Keeper) -> Step:
    """The rows as they are now are written at once, stamped 0; the floor is the cursor's."""
    generation = redis.find(state, keeper.generation)
    if generation is None:
        return "is refused: the generation is gone", put(state, n, IDLE)
    there = sql.history(state.log, state.order, config.addresses)[-1]
    documents = tuple(
        stored or (Document(0, shown, lists=(shown.listed,)) if shown else None)
        for stored, shown in zip(generation.documents, there, strict=True)
    )
    filled = redis.put(state, generation._replace(documents=documents, floor=keeper.snapshot.xmin))
    return "reads and writes every row", put(filled, n, keeper._replace(at="switch"))


def _switch(state: State, config: Config, n: int, keeper: Keeper) -> Step:
    """The lease and the old marker are dropped, the fence moves, the first pass over the new one is promised."""
    fence = state.fence
    if fence.generation != keeper.number or redis.find(state, fence.generation) is None:
        return "finds another generation in the fence", put(state, n, IDLE)
    if state.rebuild is None and "switch-row" not in config.off:
        return "finds its own row closed", put(state, n, IDLE)
    kept = tuple(generation for generation in state.generations if generation.name == keeper.generation)
    fence = fence._replace(
        generation=keeper.generation, ready=False, cursor=keeper.snapshot, started=fence.started + 1
    )
    moved = state._replace(generations=kept, lease=0, fence=fence, rebuild=None)
    return f"switches to generation {keeper.generation}", put(
        moved, n, keeper._replace(at="read", number=fence.started, committed=_committed(state, config))
    )
