"""A command, steps 1 to 6: one step of this machine is one statement or one script."""

from collections.abc import Iterator

from tests.model import redis, sql
from tests.model.config import Config
from tests.model.state import OTHER, PUT, Command, Document, Message, State, Step

DONE = Command("done")


def steps(state: State, config: Config) -> Iterator[Step]:
    """What any command can do next. One that was killed is one that takes no step any more."""
    for n, command in enumerate(state.commands):
        for label, after in _next(state, config, n, command):
            yield f"command {n + 1} {label}", after


def _next(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    match command.at:
        case "begin":
            begun = command._replace(at="change", seen=sql.identity(state.sql.fence))
            yield f"begins and reads the fence {begun.seen}", _with(state, n, begun)
        case "change":
            yield from _change(state, config, n, command)
        case "apply":
            seen = sql.identity(state.sql.fence)
            if "known-before" in config.off and seen != command.seen:
                yield f"reads the fence again: {seen}", _with(state, n, command._replace(seen=seen))
            yield from _apply(state, config, n, command)
        case "check":
            yield _check(state, config, n, command)
        case "ask":
            yield from _ask(state, config, n, command)
        case "told":
            yield "is acknowledged: it has brought its changes in", _acknowledge(state, n, command)
        case "wait":
            yield from _wait(state, config, n, command)


def _change(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    todo = config.commands[n]
    if len(command.rows) == len(todo):
        committed = state._replace(sql=sql.end(state.sql, command.xid, committed=True))
        yield f"commits transaction {command.xid}", _with(committed, n, command._replace(at="apply"))
    else:
        key, kind = todo[len(command.rows)]
        if not sql.is_locked(state.sql, key, command.xid):
            after, row = sql.change(state.sql, command.xid, key, kind)
            changed = command._replace(xid=row.xid, rows=(*command.rows, row))
            what = f"{'puts' if kind == PUT else 'deletes'} {('a', 'b', 'a row of no document')[key]}"
            label = f"{what} (position {row.position}, transaction {row.xid})"
            yield label, _with(state._replace(sql=after), n, changed)
    if config.rollback and command.rows:
        rolled_back = state._replace(sql=sql.end(state.sql, command.xid, committed=False))
        yield "is killed before its commit", _with(rolled_back, n, DONE)


def _apply(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    yield "cannot reach Redis", _with(state, n, command._replace(at="check"))
    run, replication, generation = command.seen
    for number, node in enumerate(state.nodes):
        if node.run != run and "apply-run" not in config.off:
            continue  # the script would refuse: no more than not reaching Redis
        derived = _derived(state, command) if "derived-by-passes" in config.off else None
        rows = tuple(row for row in command.rows if row.key != OTHER)
        message = Message("apply", number, run, replication, generation, rows, derived)
        after, accepted = redis.execute(node, message, config.off)
        nodes = (*state.nodes[:number], after, *state.nodes[number + 1 :])
        label = f"applies to Redis {number}: {'done' if accepted else 'refused'}"
        yield label, _with(state._replace(nodes=nodes), n, command._replace(at="check", applied=accepted))
        if state.budget.late:
            left = send_late(state, message)
            yield (
                "gives up on its apply, which is still on its way",
                _with(left, n, command._replace(at="check")),
            )


def _derived(state: State, command: Command) -> Document:
    last = command.rows[-1]
    return Document((last.position, 0), sql.visible(state.sql, last.xid), 0)


def send_late(state: State, message: Message) -> State:
    """The sender has given up; the script may still be executed, once."""
    budget = state.budget._replace(late=state.budget.late - 1)
    return state._replace(late=tuple(sorted([*state.late, message], key=repr)), budget=budget)


def _check(state: State, config: Config, n: int, command: Command) -> Step:
    """The one SELECT after the commit (step 5)."""
    fence = state.sql.fence
    if sql.sees(fence.cursor, command.xid):
        return "is acknowledged: the fence's cursor has seen it", _acknowledge(state, n, command)
    same = sql.identity(fence) == command.seen or "same-generation" in config.off
    applied = command.applied or "applied" in config.off
    if same and applied and (not config.derived or "derived-by-passes" in config.off):
        return "is acknowledged: applied, and the fence is as it was", _acknowledge(state, n, command)
    passes = fence.completed if "later-pass" in config.off else fence.started
    if config.helping and not config.derived:
        asking = command._replace(at="ask", left=fence.lease, passes=passes, seen=sql.identity(fence))
        return "is not in the generation that the fence shows, as far as it knows", _with(state, n, asking)
    waiting = command._replace(at="wait", left=fence.lease, passes=passes, applied=False, seen=(0, 0, 0))
    return f"waits for the lease to run out or for pass {passes + 1}", _with(state, n, waiting)


def _ask(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    """Looks whether its changes are in the generation of the SELECT's fence row, or brings them in (step 5)."""
    waiting = command._replace(at="wait", applied=False, seen=(0, 0, 0))
    yield f"waits for the lease to run out or for pass {command.passes + 1}", _with(state, n, waiting)
    run, replication, name = command.seen
    rows = tuple(row for row in command.rows if row.key != OTHER)
    without = {"apply-run"} if "help-run" in config.off else set[str]()
    for number, node in enumerate(state.nodes):
        generation = redis.find(node.data, name)
        if (node.run != run and "help-run" not in config.off) or generation is None:
            continue  # the script would refuse
        if all(redis.is_in(generation, row) for row in rows):
            yield "is acknowledged: it is in", _acknowledge(state, n, command)
            continue
        message = Message("apply", number, run, replication, name, rows)
        after, accepted = redis.execute(node, message, config.off | without)
        nodes = (*state.nodes[:number], after, *state.nodes[number + 1 :])
        told = command._replace(at="told")
        if accepted:
            yield f"brings its changes in at Redis {number}", _with(state._replace(nodes=nodes), n, told)
        if state.budget.late:
            yield (
                "gives up on bringing them in, which is still on its way",
                _with(send_late(state, message), n, waiting),
            )


def _wait(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    if command.left == 0:
        yield "is acknowledged: the lease it saw has run out", _acknowledge(state, n, command)
    elif state.sql.fence.completed > command.passes:
        yield (
            f"is acknowledged: pass {state.sql.fence.completed} is complete",
            _acknowledge(state, n, command),
        )


def _acknowledge(state: State, n: int, command: Command) -> State:
    newest = list(state.acknowledged)
    for row in command.rows:
        if row.key != OTHER:
            newest[row.key] = max(newest[row.key], row.position)
    return _with(state._replace(acknowledged=(newest[0], newest[1])), n, DONE)


def _with(state: State, n: int, command: Command) -> State:
    return state._replace(commands=(*state.commands[:n], command, *state.commands[n + 1 :]))
