"""What happens once all faults are over: queries come back to Redis and every waiting command is answered."""

from tests.model import command, faults, keeper
from tests.model.config import Config
from tests.model.query import equal_to_sql
from tests.model.sql import end
from tests.model.state import Budget, Command, State

PATIENCE = 80  # steps; a build of two chunks and a pass after a lease that has to run out first take about 30


def calm(state: State) -> State:
    """Faults are over: one Redis is left, open commands are killed, late messages lost, one keeper starts anew."""
    truth = state.sql
    commands: list[Command] = []
    for one in state.commands:
        if one.at == "change" and one.xid:
            truth = end(truth, one.xid, committed=False)
        commands.append(one if one.at in ("wait", "ask", "told") else command.DONE)
    return state._replace(
        sql=truth,
        nodes=state.nodes[-1:],
        late=(),
        commands=tuple(commands),
        keepers=(keeper.IDLE,),
        budget=Budget(faults=0, late=0, passes=9, builds=9, copies=0, queries=0, planned=0),
    )


def settles(state: State, config: Config) -> bool:
    """Whether Redis serves what SQL holds, and no command waits, after so many steps of the keeper and the clocks."""
    state = calm(state)
    served = False
    for _ in range(PATIENCE):
        served = served or equal_to_sql(state, config)
        if served and all(one.at == "done" for one in state.commands):
            return True
        acknowledged = [after for _, after in command.steps(state, config)]
        passing = [after for label, after in keeper.steps(state, config) if "killed" not in label]
        state = (acknowledged or ([] if served else passing) or [faults.tick(state)[1]])[0]
    return False
