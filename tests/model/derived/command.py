"""A command in this model: it changes rows, and writes the documents that it touched from a snapshot after that."""

from collections.abc import Iterator

from tests.model.derived import redis, sql
from tests.model.derived.config import Change, Config
from tests.model.derived.state import Command, Entry, Message, Place, State, Step
from tests.model.sql import sees, snapshot_of, stamp
from tests.model.state import ABORTED, COMMITTED, RUNNING, Snapshot


def steps(state: State, config: Config) -> Iterator[Step]:
    """What each command can do next. A killed one takes no more steps."""
    for n, command in enumerate(state.commands):
        name = f"program {n + 1}" if config.programs[n].foreign else f"command {n + 1}"
        for label, after in _next(state, config, n, command):
            yield f"{name} {label}", after


def put(state: State, n: int, command: Command) -> State:
    """The state with command n so."""
    return state._replace(commands=(*state.commands[:n], command, *state.commands[n + 1 :]))


def _next(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    match command.at:
        case "begin":
            if not config.one_writer or all(other.at != "change" for other in state.commands):
                begun = command._replace(
                    at="change",
                    snapshot=snapshot_of(state.transactions),
                    looked=len(state.order),
                    generation=state.fence.generation,
                )
                yield "begins", put(state, n, begun)
        case "change":
            yield from _change(state, config, n, command)
        case "committed":
            yield from _read(state, config, n, command)
        case "documents":
            yield _read_later(state, config, n, command)
        case "write":
            yield from _write(state, config, n, command)
        case "wait":
            if state.fence.completed > command.started:
                yield "is answered by a pass", _answer(state, config, n, command)


def _change(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    program = config.programs[n]
    if command.done == len(program.changes):
        yield _commit(state, config, n, command)
        return
    change = program.changes[command.done]
    transactions, transaction = state.transactions, command.transaction
    if not transaction:
        transactions = (*transactions, RUNNING)
        transaction = len(transactions)
    drawn = command._replace(transaction=transaction, done=command.done + 1)
    if change.kind == "number":
        yield f"draws transaction {transaction}", put(state._replace(transactions=transactions), n, drawn)
        return
    address = change.to if change.kind in ("create", "move") else 0
    last = sql.last_of(state, change.row, transaction)
    if sql.is_held(state, transaction, change.row, address):
        return
    is_later = last and last.transaction != transaction and not sees(command.snapshot, last.transaction)
    if is_later and not program.foreign:
        return  # it would be run again: it begins later
    before = last.after if last else None
    if (before is None) != (change.kind == "create"):
        return
    if address and sql.holds(state, address, transaction):
        yield from _fail(state, config, n, command)
        return
    entry = Entry(transaction, change.row, before, _after(change, before))
    changed = state._replace(log=(*state.log, entry), transactions=transactions)
    label = f"{change.kind}s {change.row} (position {len(changed.log)}, transaction {transaction})"
    yield label, put(changed, n, drawn)


def _after(change: Change, before: Place | None) -> Place | None:
    match change.kind:
        case "create":
            return Place(change.to, change.parent)
        case "delete":
            return None
        case "move" if before:
            return before._replace(address=change.to)
        case "link" if before:
            return before._replace(parent=change.to)
    return before


def _fail(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    """The address is taken: the command rolls back, and its error tells what others have committed."""
    if config.programs[n].foreign:
        return
    ended = list(state.transactions)
    if command.transaction:
        ended[command.transaction - 1] = ABORTED
    failed = command._replace(at="committed", transaction=0, looked=len(state.order))
    yield "finds the address taken, and rolls back", put(state._replace(transactions=tuple(ended)), n, failed)


def _commit(state: State, config: Config, n: int, command: Command) -> Step:
    if not command.transaction:
        return "ends without a change", put(state, n, command._replace(at="committed"))
    ends = list(state.transactions)
    ends[command.transaction - 1] = COMMITTED
    committed = state._replace(transactions=tuple(ends), order=(*state.order, command.transaction))
    return "commits", put(
        committed, n, command._replace(at="over" if config.programs[n].foreign else "committed")
    )


# After the commit


def _read(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    """One snapshot: the log since the cursor and L, and the documents that it touches."""
    if not command.transaction and "no-change" in config.off:
        yield "is answered at once", _answer(state, config, n, command)
        return
    process = config.programs[n].process
    for other, its in zip(state.commands, config.programs, strict=True):
        if "next-snapshot" in config.off and other.at == "write" and its.process == process:
            joined = command._replace(at="write", message=other.message, started=state.fence.started)
            yield "joins a snapshot that has been taken", put(state, n, joined)
    for seen in range(len(state.order) if "primary" not in config.off else 1, len(state.order) + 1):
        yield _read_in(state, config, n, command, state.order[:seen])


def _read_in(state: State, config: Config, n: int, command: Command, order: tuple[int, ...]) -> Step:
    if command.generation != state.fence.generation and "same-generation" not in config.off:
        waiting = command._replace(at="wait", started=state.fence.started)
        return "finds another generation in the fence, and waits for a pass", put(state, n, waiting)
    snapshot, since = sql.snapshot_after(state, order), _since(state, config, n, command)
    entries = sql.unseen(state, since, order)
    if "others" in config.off:
        entries = tuple(p for p in entries if state.log[p - 1].transaction == command.transaction)
    rows = sql.rows_after(state.log, order)
    if "after-commit" in config.off and command.transaction:
        # As the transaction saw them: what was committed before it began, and its own changes.
        rows = sql.rows_after(state.log, (*order[: command.looked], command.transaction))
    message = redis.message_of(state, config, "documents", command.generation, snapshot, entries, rows)
    read = command._replace(started=state.fence.started)
    if "one-snapshot" in config.off:
        return f"reads positions {list(entries)}", put(
            state, n, read._replace(at="documents", entries=entries)
        )
    if len(message.writes) > config.most:
        return "has touched too many documents, and waits for a pass", put(state, n, read._replace(at="wait"))
    if "confirmed" in config.off:
        state = _look_on(state, config, n, message)
    if "carried-together" in config.off:
        state = redis.note_carried(state, message)
    label = f"reads positions {list(entries)} and documents {[key for key, _ in message.writes]}"
    return label, put(state, n, read._replace(at="write", message=message))


def _since(state: State, config: Config, n: int, command: Command) -> Snapshot:
    generation, seen = state.seen[config.programs[n].process]
    if generation != command.generation and "seen-generation" not in config.off:
        return state.fence.cursor
    return max(state.fence.cursor, seen, key=stamp)


def _read_later(state: State, config: Config, n: int, command: Command) -> Step:
    """With a rule dropped: the documents in a later snapshot than the log."""
    rows = sql.rows_after(state.log, state.order)
    snapshot = snapshot_of(state.transactions)
    message = redis.message_of(
        state, config, "documents", command.generation, snapshot, command.entries, rows
    )
    return "reads the documents", put(state, n, command._replace(at="write", message=message, entries=()))


def _look_on(state: State, config: Config, n: int, message: Message) -> State:
    """L: up to this snapshot all is in."""
    process = config.programs[n].process
    generation, seen = state.seen[process]
    if generation != message.generation or stamp(message.snapshot) > stamp(seen):
        seen = message.snapshot
    now = message.generation, seen
    return state._replace(seen=(*state.seen[:process], now, *state.seen[process + 1 :]))


def _write(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    assert command.message is not None
    waiting = command._replace(at="wait", message=None)
    written, accepted = redis.execute(state, command.message, config)
    if accepted:
        written = _look_on(written, config, n, command.message)
        yield "writes, and is answered", _answer(written, config, n, command)
    else:
        yield "is refused: the generation is gone", put(state, n, waiting)
    if config.passes or "confirmed" in config.off or config.late:
        if "accepted" in config.off:
            yield "does not reach Redis, and is answered", _answer(state, config, n, command)
        yield "does not reach Redis", put(state, n, waiting)
    if state.lates:
        late = (*state.late, command.message)
        sent = state._replace(late=tuple(sorted(late, key=repr)), lates=state.lates - 1)
        yield "gives up on its script, which is still on its way", put(sent, n, waiting)


def _answer(state: State, config: Config, n: int, command: Command) -> State:
    """From now on no query may be answered from before what this answer rests on.

    That is all that was committed when the command last looked; and for the documents that its own commit has
    changed, the state after that.
    """
    bars = [max(bar, command.looked) for bar in state.bars]
    if command.transaction:
        own = state.order.index(command.transaction) + 1
        states = sql.history(state.log, state.order, config.keys)
        changed = [at for at in range(len(bars)) if states[own][at] != states[own - 1][at]]
        bars = [max(bar, own) if at in changed else bar for at, bar in enumerate(bars)]
    answered = state._replace(bars=sql.bars_at(state, bars, config.keys))
    return put(answered, n, Command(at="over"))
