"""Time, late messages, and what goes wrong with Redis."""

from collections.abc import Iterator

from tests.faults import Fault
from tests.model import redis
from tests.model.config import Config
from tests.model.state import Data, Node, State, Step

EMPTY = Data(None, ())


def steps(state: State, config: Config) -> Iterator[Step]:
    """Everything that happens without a command, keeper or query doing it."""
    if not config.timeless:
        yield tick(state)
    for n, message in enumerate(state.late):
        if n and message == state.late[n - 1]:
            continue
        yield from _arrive(state, config, n)
    if state.budget.copies:
        budget = state.budget._replace(copies=state.budget.copies - 1)
        copied = state._replace(copy=state.nodes[0].data, budget=budget)
        yield "Redis 0 is copied (a dump, or its replica catches up)", copied
    if state.budget.faults:
        spent = state._replace(budget=state.budget._replace(faults=state.budget.faults - 1))
        for kind in config.kinds:
            yield from _fault(spent, kind, config)


def tick(state: State) -> Step:
    """One clock goes on; both do in turn."""
    if state.phase == 0:
        fence = state.sql.fence
        if fence.lease:
            state = state._replace(sql=state.sql._replace(fence=fence._replace(lease=fence.lease - 1)))
        commands = tuple(c._replace(left=c.left - 1) if c.left else c for c in state.commands)
        return "SQL's clock ticks", state._replace(phase=1, commands=commands)
    nodes = tuple(node._replace(data=_age(node.data)) for node in state.nodes)
    keepers = tuple(k._replace(left=k.left - 1) if k.left else k for k in state.keepers)
    late = tuple(m._replace(left=m.left - 1) if m.left else m for m in state.late)
    copy = _age(state.copy) if state.copy else None
    after = state._replace(phase=0, nodes=nodes, keepers=tuple(sorted(keepers)), copy=copy)
    return "Redis's clock ticks", after._replace(late=tuple(sorted(late, key=repr)))


def _age(data: Data) -> Data:
    if data.lease is None:
        return data
    left = data.lease.left - 1
    return data._replace(lease=data.lease._replace(left=left) if left else None)


def _arrive(state: State, config: Config, n: int) -> Iterator[Step]:
    message = state.late[n]
    rest = state._replace(late=(*state.late[:n], *state.late[n + 1 :]))
    node, accepted = redis.execute(state.nodes[message.node], message, config.off)
    if accepted:  # a refusal is no different from never arriving
        nodes = (*state.nodes[: message.node], node, *state.nodes[message.node + 1 :])
        what = [row.position for row in message.rows]
        yield f"the late {message.kind} {what} arrives at Redis {message.node}", rest._replace(nodes=nodes)


def _fault(state: State, kind: Fault, config: Config) -> Iterator[Step]:
    first, *others = state.nodes
    fresh = state.fresh
    copy = state.copy
    match kind:
        case Fault.FLUSHALL:
            yield "FLUSHALL", state._replace(nodes=(first._replace(data=EMPTY), *others))
        case Fault.REDIS_RESTARTED_EMPTY:
            node = Node(fresh, first.replications[-1:], EMPTY)
            yield "Redis 0 restarts empty", state._replace(nodes=(node, *others), fresh=fresh + 1)
        case Fault.REDIS_FROM_OLD_DUMP if copy:
            node = Node(fresh, first.replications[-1:], copy)
            yield "Redis 0 restarts from its dump", state._replace(nodes=(node, *others), fresh=fresh + 1)
        case Fault.TWO_MASTERS if copy and not others:
            node = Node(fresh, (fresh,), copy)
            yield "the replica is promoted: two masters", state._replace(nodes=(first, node), fresh=fresh + 1)
        case Fault.MASTER_FOLLOWS_ITS_REPLICA if copy:
            # The process lives on and so do connections to it. How long the copy's lease lives is an assumption.
            data = copy if "copied-lease" in config.off else copy._replace(lease=None)
            node = first._replace(replications=(*first.replications, fresh), data=data)
            label = "Redis 0 is made a replica of its lagging replica, and a master again"
            yield label, state._replace(nodes=(node, *others), fresh=fresh + 1)
