"""A keeper's pass in this model: the log and the documents that it touches, in one snapshot."""

from collections.abc import Iterator

from tests.model.derived import redis, sql
from tests.model.derived.config import Config
from tests.model.derived.state import Keeper, State, Step
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
        yield f"the late {message.kind} {told} arrives", redis.execute(rest, message, config)


def _next(state: State, config: Config, keeper: Keeper) -> Iterator[Step]:
    match keeper.at:
        case "look" if state.passes:
            number = state.started + 1
            promised = state._replace(started=number, passes=state.passes - 1)
            begun = Keeper("read", number, len(state.order))
            yield f"promises pass {number}", promised._replace(keeper=begun)
        case "read":
            yield _read(state, config, keeper)
        case "documents":
            yield _read_later(state, config, keeper)
        case "write":
            yield from _write(state, config, keeper)
        case "publish":
            yield _publish(state, config, keeper)
        case "complete":
            cursor = max(state.cursor, keeper.snapshot, key=stamp)
            completed = max(state.completed, keeper.number)
            ended = state._replace(cursor=cursor, completed=completed, keeper=IDLE)
            yield f"completes pass {keeper.number}", ended


def _read(state: State, config: Config, keeper: Keeper) -> Step:
    entries, snapshot = sql.unseen(state, state.cursor, state.order), snapshot_of(state.transactions)
    if "pass-snapshot" in config.off:
        later = keeper._replace(at="documents", snapshot=snapshot, entries=entries)
        return f"reads positions {list(entries)}", state._replace(keeper=later)
    rows = sql.rows_after(state.log, state.order)
    message = redis.message_of(state, config, "pass", snapshot, entries, rows)
    read = keeper._replace(at="write", snapshot=snapshot, message=message)
    return f"reads positions {list(entries)} and the documents", state._replace(keeper=read)


def _read_later(state: State, config: Config, keeper: Keeper) -> Step:
    """With a rule dropped: the documents in a later snapshot than the log."""
    rows = sql.rows_after(state.log, state.order)
    message = redis.message_of(state, config, "pass", snapshot_of(state.transactions), keeper.entries, rows)
    read = keeper._replace(at="write", entries=(), message=message)
    return "reads the documents", state._replace(keeper=read)


def _write(state: State, config: Config, keeper: Keeper) -> Iterator[Step]:
    assert keeper.message is not None
    written = redis.execute(state, keeper.message, config)
    yield "writes the documents", written._replace(keeper=keeper._replace(at="publish", message=None))
    if state.lates:
        late = tuple(sorted((*state.late, keeper.message), key=repr))
        yield (
            "gives up on its script, which is still on its way",
            state._replace(late=late, lates=state.lates - 1, keeper=IDLE),
        )


def _publish(state: State, config: Config, keeper: Keeper) -> Step:
    """The floor is raised, tombstones whose time has come go; what was committed before t0 is seen from now on."""
    floor = max(state.floor, keeper.snapshot.xmin)
    documents = tuple(
        None if stored and not stored.content and 0 < stored.purge <= floor else stored
        for stored in state.documents
    )
    bars = sql.bars_at(state, [max(bar, keeper.committed) for bar in state.bars], config.keys)
    published = state._replace(floor=floor, documents=documents, bars=bars)
    return "publishes", published._replace(keeper=keeper._replace(at="complete", committed=0))
