"""States with one part in place of another."""

from tests.model.rows.config import Config
from tests.model.rows.state import Command, Message, Process, State

DONE = Command("done")


def with_command(state: State, n: int, command: Command) -> State:
    """The state with command n so."""
    return state._replace(commands=(*state.commands[:n], command, *state.commands[n + 1 :]))


def with_process(state: State, n: int, process: Process) -> State:
    """The state with process n so."""
    return state._replace(processes=(*state.processes[:n], process, *state.processes[n + 1 :]))


def know(state: State, process: int, entries: list[tuple[int, int]]) -> State:
    """The process knows of these entries (generation, position) that they are in."""
    mine = state.processes[process]
    return with_process(state, process, mine._replace(known=tuple(sorted({*mine.known, *entries}))))


def finish(state: State, config: Config, n: int) -> State:
    """Command n is answered. What a process whose commands are all answered remembers, nobody asks for any more."""
    state = with_command(state, n, DONE)
    process = config.programs[n].process
    others = (
        c for c, program in zip(state.commands, config.programs, strict=True) if program.process == process
    )
    return with_process(state, process, Process()) if all(c == DONE for c in others) else state


def send_late(state: State, message: Message) -> State:
    """The sender has given up; the script may still be executed, once."""
    budget = state.budget._replace(late=state.budget.late - 1)
    return state._replace(late=tuple(sorted([*state.late, message], key=repr)), budget=budget)
