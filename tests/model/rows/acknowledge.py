"""What has to be in before a command is answered, and what its process does where something is missing."""

from collections.abc import Iterator

from tests.model.rows import redis, sql
from tests.model.rows.config import Config
from tests.model.rows.parts import finish, know, send_late, with_command, with_process
from tests.model.rows.state import NOBODY, Command, Message, Select, State, Step
from tests.model.sql import sees


def judge(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    """The SELECT has been read, and the apply is over."""
    select = command.select
    assert select is not None
    process = config.programs[n].process
    needed = [p for p in select.entries if p <= select.limit and _counts(state, config, n, command, p)]
    if "whole-transaction" not in config.off:
        begun = {state.log[p - 1].transaction for p in needed}
        needed = [p for p in select.entries if state.log[p - 1].transaction in begun]
    known = _known(state, config, process, select)
    missing = [p for p in needed if p not in known]
    cut_off = process in config.without_redis
    if not missing:
        yield "is answered", _look_on(_answer(state, config, n, command), config, n, select, known)
    elif not cut_off:
        yield from _check(state, config, n, command, missing)
    waiting = command._replace(at="wait", select=select._replace(entries=(), limit=0), apply="")
    if missing:
        yield f"waits for pass {select.started + 1}", with_command(state, n, waiting)


def _counts(state: State, config: Config, n: int, command: Command, position: int) -> bool:
    """Whether an entry has to be in. All have; what is left out here is a dropped rule."""
    off, entry = config.off, state.log[position - 1]
    own = position in command.positions
    if not own and not _may_be_noticed(state, config, n, command, position):
        return False
    mine = [state.log[p - 1] for p in command.positions]
    if "own" in off and own:
        return False
    if "others" in off and not own:
        return False
    if "every-row" in off and not own:
        named = {address for e in mine for address in (e.old, e.new)} - {0}
        return entry.row in {e.row for e in mine} or not named.isdisjoint((entry.old, entry.new))
    if "every-address" in off and not own:
        return entry.row in {e.row for e in mine}
    if "unchecked" in off and config.programs[n].process in config.without_redis:
        return any(e.row != NOBODY for e in mine)
    if "errors" in off and not command.positions and config.programs[n].changes:
        return False
    return not ("no-change" in off and not command.positions and not config.programs[n].changes)


def _may_be_noticed(state: State, config: Config, n: int, command: Command, position: int) -> bool:
    """Whether a command may have noticed another's change: what its snapshot saw, or an address that is free again.

    That is known of commands of `ORMService` on PostgreSQL that have looked at nothing but their snapshot.
    """
    entry = state.log[position - 1]
    is_known = command.positions and config.programs[n].writer == "orm" and n not in config.together
    if not is_known or (command.looked_late and "looked-unseen" not in config.off):
        return True
    if sees(command.snapshot, entry.transaction):
        return True
    return bool(command.checked) and entry.old != entry.new and "freed" not in config.off


def _known(state: State, config: Config, process: int, select: Select) -> set[int]:
    known = state.processes[process].known
    return {p for generation, p in known if generation == select.generation}


def _check(state: State, config: Config, n: int, command: Command, missing: list[int]) -> Iterator[Step]:
    """One read-only script; then, if some are missing for long, this process brings them in."""
    select, process = command.select, config.programs[n].process
    assert select is not None
    generation = redis.find(state, select.generation)
    entries = select.entries if generation else ()
    found = [p for p in entries if generation and redis.is_in(generation, p, state.log[p - 1], config.off)]
    if set(missing) <= set(found):
        after = know(state, process, [(select.generation, p) for p in found])
        known = _known(after, config, process, select)
        label = f"finds {missing} in generation {select.generation} and is answered"
        yield label, _look_on(_answer(after, config, n, command), config, n, select, known)
    else:
        yield from _help(state, config, n, command, [p for p in missing if p not in found])


def _help(state: State, config: Config, n: int, command: Command, missing: list[int]) -> Iterator[Step]:
    """Writes the images of the log, with their own positions, into the generation of the SELECT's fence row.

    Where images lack a column, the rows are read as they are now; not if one has left its address meanwhile.
    """
    select, process = command.select, config.programs[n].process
    assert select is not None
    name = state.fence.generation if "help-generation" in config.off else select.generation
    writes = redis.writes_of(state.log, missing, config.off)
    entries = [state.log[p - 1] for p in missing]
    if config.read_again or not all(entry.image for entry in entries):
        there = sql.history(state.log, state.order, config.addresses)[-1]
        if any(entry.new and not there[entry.new - 1] for entry in entries):
            return
        writes = redis.writes_of(state.log, missing, config.off, there, config.read_again)
    if "help-stamps" in config.off:
        writes = tuple(write._replace(stamp=missing[-1]) for write in writes)
    message = Message("help", name, writes, select.snapshot.xmax)
    after, accepted = redis.execute(state, message, config.off)
    if accepted:
        after = know(after, process, [(name, position) for position in missing])
        yield f"brings in {missing} itself", with_command(after, n, command)
    if state.budget.late:
        late = send_late(state, message)
        label = "gives up on bringing them in, which is still on its way"
        yield label, with_command(late, n, command)


def _look_on(state: State, config: Config, n: int, select: Select, known: set[int]) -> State:
    """L: up to the SELECT's snapshot all is in, where all of its entries are."""
    process = config.programs[n].process
    mine = state.processes[process]
    if set(select.entries) <= known or "whole-look" in config.off:
        mine = mine._replace(generation=select.generation, seen=select.snapshot)
        state = with_process(state, process, mine)
    return finish(state, config, n)


def wait(state: State, config: Config, n: int, command: Command) -> Iterator[Step]:
    """Until a pass that began after the SELECT is complete."""
    assert command.select is not None
    if state.fence.completed > command.select.started:
        answered = finish(_answer(state, config, n, command), config, n)
        yield f"is answered: pass {state.fence.completed} is complete", answered


def _answer(state: State, config: Config, n: int, command: Command) -> State:
    """From now on no query may be answered from before what this answer rests on.

    That is all that was committed when the command looked last, at the addresses that its own changes name these, and
    at the others nothing more; and where a uniqueness check told it that addresses are free, whoever has left them.
    """
    bars = [max(bar, command.looked) for bar in state.bars]
    for index, transaction in enumerate(state.order[: command.checked], 1):
        for entry in state.log:
            if entry.transaction == transaction and entry.old != entry.new:
                for address in {entry.old, entry.new} - {0}:
                    bars[address - 1] = max(bars[address - 1], index)
    for entry in (state.log[position - 1] for position in command.positions):
        index = state.order.index(entry.transaction) + 1
        for address in {entry.old, entry.new} - {0}:
            bars[address - 1] = max(bars[address - 1], index)
    return state._replace(bars=sql.bars_at(state, bars))
