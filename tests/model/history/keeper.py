"""A keeper of each database: passes, and a build where what Redis has is lost or is of another state of SQL."""

from collections.abc import Iterator

from tests.model.history import redis
from tests.model.history.config import Config
from tests.model.history.sql import SQL_LEASE, adopted, snapshot, unseen
from tests.model.history.state import Database, Generation, Keeper, Lease, State, Step, with_database

IDLE = Keeper()


def steps(state: State, config: Config) -> Iterator[Step]:
    """What any keeper can do next."""
    for n, keeper in enumerate(state.keepers):
        name = ("keeper", "the other database's keeper")[n]
        for label, after in _next(state, config, n, keeper):
            yield f"{name} {label}", after
        if keeper.at != "look":
            yield f"{name} is killed, or gives up", _put(state, n, IDLE)


def _put(state: State, n: int, keeper: Keeper) -> State:
    return state._replace(keepers=(*state.keepers[:n], keeper, *state.keepers[n + 1 :]))


def _next(state: State, config: Config, n: int, keeper: Keeper) -> Iterator[Step]:
    database = state.databases[n]
    match keeper.at:
        case "look":
            read = adopted(state, config, n)
            if read:
                yield from _look(read, config, n, read.databases[n])
        case "promise":
            yield from _promise(state, config, n, keeper, database)
        case "read":
            found = unseen(database, config.off)
            told = [entry.position for entry in found]
            after = keeper._replace(at="write", found=found, cursor=snapshot(database))
            yield f"reads positions {told} of the log", _put(state, n, after)
        case "write":
            yield from _write(state, n, keeper, database)
        case "publish":
            yield _publish(state, config, n, keeper, database)


def _look(state: State, config: Config, n: int, database: Database) -> Iterator[Step]:
    generation = redis.find(state, database.generation)
    keeper = Keeper("promise", database.generation, database.names[-1])
    if generation and generation.number:
        yield from _promise(state, config, n, keeper, database)
    else:
        yield from _move(state, n, keeper, database)


def _promise(state: State, config: Config, n: int, keeper: Keeper, database: Database) -> Iterator[Step]:
    if database.generation != keeper.generation:
        yield "finds another generation in the fence", _put(state, n, IDLE)
        return
    if not state.budget.passes:
        return
    budget = state.budget._replace(passes=state.budget.passes - 1)
    number = database.started + 1
    promised = with_database(state, n, database._replace(started=number, lease=SQL_LEASE))
    promised = promised._replace(budget=budget)
    generation = redis.find(state, keeper.generation)
    if generation and number <= generation.number and "pass-number" not in config.off:
        ahead = keeper._replace(at="look")
        yield from (
            (f"promises pass {number}, which Redis knows already; {label}", after)
            for label, after in _move(promised, n, ahead, promised.databases[n])
        )
        yield f"promises pass {number}, which Redis knows already", _put(_forget(promised, database), n, IDLE)
        return
    after = keeper._replace(at="read", number=number, left=1)
    yield f"promises pass {number}", _put(promised, n, after)


def _forget(state: State, database: Database) -> State:
    """Nobody goes on with this generation: it is dropped from Redis."""
    kept = tuple(each for each in state.generations if each.name != database.generation)
    return state._replace(generations=kept)


def _move(state: State, n: int, keeper: Keeper, database: Database) -> Iterator[Step]:
    """A build, in one step: the fence moves, the row is read and written with stamp 0."""
    if database.lease or not state.budget.builds:
        return
    name, cursor = state.fresh, snapshot(database)
    budget = state.budget._replace(builds=state.budget.builds - 1)
    moved = with_database(state, n, database._replace(generation=name, cursor=cursor))
    filled = redis.put(moved, Generation(name, cursor.xmin, 0, 0, database.values[-1]))
    after = keeper._replace(at="promise", generation=name, built=len(database.values) - 1)
    builder = _put(filled._replace(fresh=name + 1, budget=budget), n, after)
    yield f"builds generation {name}", builder


def _write(state: State, n: int, keeper: Keeper, database: Database) -> Iterator[Step]:
    generation = redis.find(state, keeper.generation)
    if generation is None or database.generation != keeper.generation:
        yield "is refused: the generation is gone", _put(state, n, IDLE)
        return
    after = redis.apply(state, generation, keeper.found)
    yield "writes them", _put(after, n, keeper._replace(at="publish", found=()))


def _publish(state: State, config: Config, n: int, keeper: Keeper, database: Database) -> Step:
    """The floor and the pass's number, then the lease; and the fence learns that the pass is complete."""
    generation = redis.find(state, keeper.generation)
    if generation is None:
        return "is refused: the generation is gone", _put(state, n, IDLE)
    floor = max(generation.floor, keeper.cursor.xmin)
    state = redis.put(state, generation._replace(floor=floor, number=max(generation.number, keeper.number)))
    held = state.lease
    is_foreign = held is not None and held.history not in database.names and "foreign-lease" not in config.off
    if keeper.left and not is_foreign:
        state = state._replace(lease=Lease(keeper.generation, keeper.history, keeper.left))
    if database.generation == keeper.generation:
        bar = (
            max(database.bar, keeper.built)
            if state.lease and state.lease[0] == keeper.generation
            else database.bar
        )
        done = database._replace(
            completed=max(database.completed, keeper.number),
            cursor=max(database.cursor, keeper.cursor),
            bar=bar,
        )
        state = with_database(state, n, done)
    return f"publishes, and completes pass {keeper.number}", _put(state, n, IDLE)
