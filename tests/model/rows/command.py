"""A command of this model: its statements, its end, and what has to be in before it is answered."""

from collections.abc import Iterator

from tests.model.rows import redis, sql
from tests.model.rows.acknowledge import judge, wait
from tests.model.rows.config import Change, Config
from tests.model.rows.parts import finish, know, send_late, with_command
from tests.model.rows.state import NOBODY, Command, Entry, Message, Select, State, Step, Write
from tests.model.sql import sees, snapshot_of, stamp
from tests.model.state import ABORTED, COMMITTED, RUNNING


def steps(state: State, config: Config) -> Iterator[Step]:
    """What any command can do next. One that was killed is one that takes no step any more."""
    for n, command in enumerate(state.commands):
        for label, after in _next(state, config, n, command):
            yield f"command {n + 1} {label}", after


def _next(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    match command.at:
        case "begin":
            if n in config.together and n - 1 in config.together and state.commands[n - 1].at != "ready":
                return
            known = state.fence.generation
            begun = command._replace(at="change", generation=known, looked=len(state.order))
            shared = state.commands[n - 1].transaction if n in config.together[1:] else 0
            begun = begun._replace(snapshot=snapshot_of(state.transactions), transaction=shared)
            yield f"begins; it knows generation {known}", with_command(state, n, begun)
        case "change":
            yield from _change(state, config, n, command)
        case "ready" if n == config.together[-1]:
            yield _commit(state, config, n, command)
        case "ended":
            yield from _apply(state, config, n, command)
            if command.select is None:
                yield _select(state, config, n, command)
            elif command.apply:
                yield from judge(state, config, n, command)
        case "wait":
            yield from wait(state, config, n, command)


def _change(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    changes = config.programs[n].changes
    if command.done == len(changes):
        if n in config.together:
            yield "is done; its transaction goes on", with_command(state, n, command._replace(at="ready"))
        else:
            yield _commit(state, config, n, command)
        return
    change = changes[command.done]
    if change.kind == "look":
        shown = command._replace(done=command.done + 1, looked=len(state.order), looked_late=True)
        yield "looks at what is committed now", with_command(state, n, shown)
        return
    last = sql.last_of(state, change.row, command.transaction) if change.row else None
    here = last.new if last else 0
    to = 0 if change.kind == "delete" else change.address or here
    if sql.is_held(state, command.transaction, change.row, to):
        return
    if change.other and sql.is_held(state, command.transaction, change.other, here):
        return
    is_seen = not last or last.transaction == command.transaction or sees(command.snapshot, last.transaction)
    if not is_seen and change.kind != "try" and config.programs[n].writer != "foreign":
        after = finish(_rolled_back(state, n, command, command), config, n)
        yield "finds its row changed since its snapshot", after
        return
    taken = sql.holder(state, to, command.transaction) if to else NOBODY
    is_there = bool(here) or change.kind == "note"
    if taken not in (NOBODY, change.row) or (change.kind in ("create", "try")) == is_there:
        yield _stumble(
            state,
            config,
            n,
            command,
            change,
            f"finds {taken or change.row} at {to}" if to else "finds nothing",
        )
        return
    image = config.programs[n].writer == "orm"
    listed = {"shift": 2, "hide": 0}.get(change.kind, 1)
    entries = [Entry(0, change.row, here, to, change.kind != "spoil", image, listed)]
    if change.kind == "oust":
        other = sql.last_of(state, change.other, command.transaction)
        assert other is not None
        entries.insert(0, Entry(0, change.other, other.new, here, image=False))
    yield _changed(state, n, command, change, entries)


def _changed(state: State, n: int, command: Command, change: Change, entries: list[Entry]) -> Step:
    transactions = state.transactions if command.transaction else (*state.transactions, RUNNING)
    transaction = command.transaction or len(transactions)
    log = (*state.log, *(entry._replace(transaction=transaction) for entry in entries))
    entry = entries[-1]
    # A uniqueness check looks at what is committed now; other statements see the transaction's snapshot.
    checked = len(state.order) if change.address else command.checked
    positions = (*command.positions, *range(len(state.log) + 1, len(log) + 1))
    after = command._replace(
        transaction=transaction, positions=positions, done=command.done + 1, checked=checked
    )
    what = (
        f"{change.kind} row {entry.row}: {entry.old} to {entry.new}"
        if entry.row
        else "writes a row of no document"
    )
    label = f"{what} (position {len(log)}, transaction {transaction})"
    return label, with_command(state._replace(log=log, transactions=transactions), n, after)


def _stumble(state: State, config: Config, n: int, command: Command, change: Change, label: str) -> Step:
    """A statement that fails: the command goes on after its savepoint, or ends in an error answer."""
    looked = len(state.order)
    if change.kind == "try":
        after = command._replace(done=command.done + 1, looked_late=True, looked=looked)
        return f"{label}; goes on after its savepoint", with_command(state, n, after)
    failed = Command("ended", looked=looked, apply="nothing to apply")
    if n not in config.together:
        return f"{label}: it ends in an error", _rolled_back(state, n, failed, command)
    failed = failed._replace(looked=looked + 1)  # of the commands before it in their transaction
    if "shared-answers" not in config.off:
        failed = failed._replace(at="ready", transaction=command.transaction)
    return f"{label}: an error, in a shared transaction", with_command(state, n, failed)


def _rolled_back(state: State, n: int, after: Command, command: Command) -> State:
    if command.transaction:
        ends = list(state.transactions)
        ends[command.transaction - 1] = ABORTED
        state = state._replace(transactions=tuple(ends))
    return with_command(state, n, after)


def _commit(state: State, config: Config, n: int, command: Command) -> Step:
    if not command.transaction:
        looked = max(command.looked, command.checked)
        apply = Command("ended", looked=looked, apply="nothing to apply")
        return "ends without a change", with_command(state, n, apply)
    ends = list(state.transactions)
    ends[command.transaction - 1] = COMMITTED
    order = (*state.order, command.transaction)
    if "select-after-commit" in config.off:
        command = _selected(state, config, n, command)
    state = state._replace(transactions=tuple(ends), order=order)
    if config.programs[n].writer == "foreign":
        return f"commits transaction {command.transaction}", finish(state, config, n)
    state = with_command(state, n, command._replace(at="ended"))
    for m in config.together:
        if state.commands[m].at == "ready":
            state = with_command(state, m, state.commands[m]._replace(at="ended"))
    return f"commits transaction {command.transaction}", state


def _apply(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    if command.apply:
        return
    process = config.programs[n].process
    own = [p for p in command.positions if state.log[p - 1].row != NOBODY]
    if process in config.without_redis or not own:
        yield "applies nothing", with_command(state, n, command._replace(apply="nothing to apply"))
        return
    yield "cannot reach Redis", with_command(state, n, command._replace(apply="failed"))
    generation = state.fence.generation if "known-before" in config.off else command.generation
    message = Message("apply", generation, _own_writes(state, config, n, own))
    after, accepted = redis.execute(state, message, config.off)
    if accepted:
        after = know(after, process, [(generation, position) for position in own])
        yield f"applies to generation {generation}", with_command(after, n, command._replace(apply="done"))
    if state.budget.late:
        late = send_late(state, message)
        label = "gives up on its apply, which is still on its way"
        yield label, with_command(late, n, command._replace(apply="failed"))


def _own_writes(state: State, config: Config, n: int, own: list[int]) -> tuple[Write, ...]:
    """The writes of a command's own entries; of a session's, the rows as its transaction saw them before its commit.

    What its transaction saw at the addresses that its entries name is made of these entries alone: nobody else takes
    such an address, or changes such a row, before the commit.
    """
    if config.programs[n].writer == "orm":
        return redis.writes_of(state.log, own, config.off)
    if "session-by-address" in config.off:
        return redis.writes_by_row(state.log, own)
    there = sql.history(state.log, state.order, config.addresses)[-1]
    if "session-before-commit" not in config.off:
        mine = tuple(
            state.log[p - 1] if p in own else Entry(0, 0, 0, 0) for p in range(1, len(state.log) + 1)
        )
        there = sql.history(mine, (state.log[own[0] - 1].transaction,), config.addresses)[-1]
    return redis.writes_of(state.log, own, config.off, there)


def _select(state: State, config: Config, n: int, command: Command) -> Step:
    after = _selected(state, config, n, command)
    found = after.select
    assert found is not None
    label = f"reads the fence: generation {found.generation}, not known to be in {list(found.entries)}"
    return label, with_command(state, n, after)


def _selected(state: State, config: Config, n: int, command: Command) -> Command:
    """The fence row and the entries that neither its cursor nor L saw, in one statement."""
    fence, process = state.fence, state.processes[config.programs[n].process]
    cursor = fence.cursor
    mine = process.generation == fence.generation or "own-look-generation" in config.off
    if mine and stamp(process.seen) > stamp(cursor):
        cursor = process.seen
    limit = len(state.log)
    if command.positions and (not command.looked_late or "looked-late" in config.off):
        limit = command.positions[-1]
    select = Select(
        fence.generation, fence.started, snapshot_of(state.transactions), sql.unseen(state, cursor), limit
    )
    return command._replace(select=select)
