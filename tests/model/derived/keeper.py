"""A keeper's pass in this model, the log and the documents that it touches in one snapshot; and a planned rebuild."""

from collections.abc import Iterator

from tests.model.derived import redis, sql
from tests.model.derived.config import Config
from tests.model.derived.state import Document, Fence, Generation, Keeper, State, Step
from tests.model.sql import snapshot_of, stamp

IDLE = Keeper()


def steps(state: State, config: Config) -> Iterator[Step]:
    """What the keeper can do next, and late scripts."""
    for label, after in _next(state, config, state.keeper):
        yield f"keeper {label}", after
    if state.keeper.at != "look":
        yield "keeper is killed, or gives up", state._replace(keeper=IDLE)
    for n, message in enumerate(state.late):
        rest = state._replace(late=(*state.late[:n], *state.late[n + 1 :]))
        told = ", ".join(f"{key}={content or 'nothing'}" for key, content in message.writes)
        after, accepted = redis.execute(rest, message, config)
        if accepted:  # a refusal is no different from never arriving
            yield f"the late {message.kind} {told} arrives", after


def _next(state: State, config: Config, keeper: Keeper) -> Iterator[Step]:
    match keeper.at:
        case "look":
            yield from _look(state)
        case "backfill":
            yield _backfill(state, config, keeper)
        case "switch":
            yield _switch(state, config, keeper)
        case "read":
            yield _read(state, config, keeper)
        case "documents":
            yield _read_later(state, config, keeper)
        case "write":
            yield from _write(state, config, keeper)
        case "publish":
            yield _publish(state, config, keeper)
        case "complete":
            yield _complete(state, keeper)


def _look(state: State) -> Iterator[Step]:
    fence = state.fence
    if not fence.ready or redis.find(state, fence.generation) is None:
        return
    if state.passes:
        number = fence.started + 1
        promised = state._replace(fence=fence._replace(started=number), passes=state.passes - 1)
        begun = Keeper("read", fence.generation, number=number, committed=len(state.order))
        yield f"promises pass {number}", promised._replace(keeper=begun)
    if state.plans:
        name = 1 + max(generation.name for generation in state.generations)
        begun = Keeper("backfill", name, building=True, snapshot=snapshot_of(state.transactions))
        planned = redis.put(state, Generation(name, 0, (None,) * len(state.bars)))
        yield f"plans generation {name}", planned._replace(keeper=begun, plans=state.plans - 1)


def _backfill(state: State, config: Config, keeper: Keeper) -> Step:
    """The rows as they are now are written at once, with the smallest stamp; the floor is the cursor's."""
    contents = sql.history(state.log, state.order, config.keys)[-1]
    documents = tuple(Document((0, 0), content) if content else None for content in contents)
    filled = redis.put(state, Generation(keeper.generation, keeper.snapshot.xmin, documents))
    return "reads and writes every document", filled._replace(keeper=keeper._replace(at="switch"))


def _switch(state: State, config: Config, keeper: Keeper) -> Step:
    """The lease and the old marker are dropped, the fence moves, the first pass over the new one is promised."""
    number = state.fence.started + 1
    fence = Fence(keeper.generation, False, keeper.snapshot, number, state.fence.completed)
    kept = tuple(each for each in state.generations if config.kept or each.name == keeper.generation)
    moved = state._replace(fence=fence, lease=0, generations=kept)
    reads = keeper._replace(at="read", number=number, committed=len(state.order))
    return f"switches to generation {keeper.generation}", moved._replace(keeper=reads)


def _read(state: State, config: Config, keeper: Keeper) -> Step:
    """One snapshot. What commands have written into this generation, whoever they are, is not written again."""
    generations = (
        each
        for each in state.generations
        if each.name == keeper.generation or "pass-generation" in config.off
    )
    carried = (generation.carried for generation in generations)
    since = max((state.fence.cursor, *carried), key=stamp)
    entries, snapshot = sql.unseen(state, since, state.order), snapshot_of(state.transactions)
    if "pass-snapshot" in config.off:
        later = keeper._replace(at="documents", snapshot=snapshot, entries=entries)
        return f"reads positions {list(entries)}", state._replace(keeper=later)
    rows = sql.rows_after(state.log, state.order)
    message = redis.message_of(state, config, "pass", keeper.generation, snapshot, entries, rows)
    read = keeper._replace(at="write", snapshot=snapshot, message=message)
    return f"reads positions {list(entries)} and the documents", state._replace(keeper=read)


def _read_later(state: State, config: Config, keeper: Keeper) -> Step:
    """With a rule dropped: the documents in a later snapshot than the log."""
    rows, snapshot = sql.rows_after(state.log, state.order), snapshot_of(state.transactions)
    message = redis.message_of(state, config, "pass", keeper.generation, snapshot, keeper.entries, rows)
    read = keeper._replace(at="write", entries=(), message=message)
    return "reads the documents", state._replace(keeper=read)


def _write(state: State, config: Config, keeper: Keeper) -> Iterator[Step]:
    assert keeper.message is not None
    written, accepted = redis.execute(state, keeper.message, config)
    at = "complete" if keeper.building else "publish"
    after = keeper._replace(at=at, message=None) if accepted else IDLE
    yield "writes the documents", written._replace(keeper=after)
    if state.lates:
        late = tuple(sorted((*state.late, keeper.message), key=repr))
        yield (
            "gives up on its script, which is still on its way",
            state._replace(late=late, lates=state.lates - 1, keeper=IDLE),
        )


def _publish(state: State, config: Config, keeper: Keeper) -> Step:
    """The floor is raised, tombstones whose time has come go; what was committed before t0 is seen from now on."""
    generation = redis.find(state, keeper.generation)
    if generation is None:
        return "is refused: the generation is gone", state._replace(keeper=IDLE)
    floor = max(generation.floor, keeper.snapshot.xmin)
    documents = tuple(
        None if stored and not stored.content and 0 < stored.purge <= floor else stored
        for stored in generation.documents
    )
    published = redis.put(state, generation._replace(floor=floor, documents=documents))
    bars = sql.bars_at(state, [max(bar, keeper.committed) for bar in state.bars], config.keys)
    after = IDLE if keeper.building else keeper._replace(at="complete", committed=0)
    return "publishes", published._replace(lease=keeper.generation, bars=bars, keeper=after)


def _complete(state: State, keeper: Keeper) -> Step:
    fence = state.fence
    if fence.generation != keeper.generation:
        return "completes nothing: the fence has moved on", state._replace(keeper=IDLE)
    cursor = max(fence.cursor, keeper.snapshot, key=stamp)
    fence = fence._replace(ready=True, cursor=cursor, completed=max(fence.completed, keeper.number))
    after = keeper._replace(at="publish") if keeper.building else IDLE
    return f"completes pass {keeper.number}", state._replace(fence=fence, keeper=after)
