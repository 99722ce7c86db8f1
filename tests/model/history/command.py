"""A command of this model. Commands are those of the first database."""

from collections.abc import Iterator

from tests.model.history.config import Config
from tests.model.history.redis import apply, find, is_in
from tests.model.history.sql import adopted, unseen
from tests.model.history.state import NOTE, Command, Database, Entry, State, Step, with_database

DONE = Command("done")


def steps(state: State, config: Config) -> Iterator[Step]:
    """What any command can do next. One that was killed is one that takes no step any more."""
    for n, command in enumerate(state.commands):
        for label, after in _next(state, config, n, command):
            yield f"command {n + 1} {label}", after


def _next(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    database = state.databases[0]
    match command.at:
        case "begin":
            yield from _begin(state, config, n, database)
        case "open":
            yield _commit(state, n, command, database)
        case "committed":
            yield from _apply(state, config, n, command)
        case "select":
            read = adopted(state, config, 0)
            if read:
                yield _select(read, config, n, command, read.databases[0])
        case "wait":
            read = adopted(state, config, 0)
            if read:
                yield from _wait(read, config, n, command, read.databases[0])


def _begin(state: State, config: Config, n: int, database: Database) -> Iterator[Step]:
    if config.commands[n] == "read":
        yield "reads the row", _with(state, n, Command("select", looked=len(database.values) - 1))
        return
    is_note = config.commands[n] == "note"
    if not is_note and any(e.value != NOTE for e in database.log if e.transaction in database.running):
        return  # the row is locked
    value = NOTE if is_note else state.fresh
    entry = Entry(database.position, database.transaction, value)
    after = database._replace(
        log=(*database.log, entry),
        position=entry.position + 1,
        transaction=entry.transaction + 1,
        running=(*database.running, entry.transaction),
    )
    begun = Command("open", entry.transaction, entry.position, value, generation=database.generation)
    what = "a row of no document" if is_note else f"value {value}"
    label = f"writes {what} (position {entry.position}, transaction {entry.transaction})"
    yield label, _with(with_database(state._replace(fresh=state.fresh + 1), 0, after), n, begun)


def _commit(state: State, n: int, command: Command, database: Database) -> Step:
    running = tuple(each for each in database.running if each != command.transaction)
    values = (*database.values, command.value) if command.value != NOTE else database.values
    after = with_database(state, 0, database._replace(running=running, values=values))
    committed = command._replace(at="committed", looked=len(values) - 1)
    return "commits", _with(after, n, committed)


def _apply(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    yield "applies nothing", _with(state, n, command._replace(at="select"))
    generation = find(state, command.generation)
    if generation and command.value != NOTE:
        entry = Entry(command.position, command.transaction, command.value)
        after = apply(state, generation, (entry,))
        yield "applies", _with(after, n, command._replace(at="select", applied=True))


def _select(state: State, config: Config, n: int, command: Command, database: Database) -> Step:
    """The SELECT after the end of the command: by it, it is answered, or has to wait."""
    generation = find(state, database.generation)
    missing = []
    for entry in unseen(database, config.off):
        mine = (
            entry.position == command.position
            and command.applied
            and command.generation == database.generation
        )
        if not mine and not (generation and is_in(generation, entry)):
            missing.append(entry.position)
    no_generation = database.generation == 0 and "no-generation" not in config.off
    if not database.lease or not (missing or no_generation):
        return "reads the fence and is answered", _answer(state, n, command)
    history = database.names[-1]
    waiting = command._replace(at="wait", left=database.lease, passes=database.started, history=history)
    return f"reads the fence, waits for pass {database.started + 1}", _with(state, n, waiting)


def _wait(state: State, config: Config, n: int, command: Command, database: Database) -> Iterator[Step]:
    if command.history != database.names[-1] and "wait-history" not in config.off:
        # What it waits for was told by another clock.
        yield (
            "finds another history in the fence",
            _with(state, n, command._replace(at="select", applied=False)),
        )
    elif command.left == 0 or database.completed > command.passes:
        yield "is answered: the lease is over, or a pass complete", _answer(state, n, command)


def _answer(state: State, n: int, command: Command) -> State:
    database = state.databases[0]
    after = database._replace(bar=max(database.bar, command.looked))
    return _with(with_database(state, 0, after), n, DONE)


def _with(state: State, n: int, command: Command) -> State:
    return state._replace(commands=(*state.commands[:n], command, *state.commands[n + 1 :]))
