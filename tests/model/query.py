"""What queries see, and whether they may.

A query that reads lease and document in one command (step 13) needs no process of its own: what matters is the
moment of that read, and the latest start it can have had is just then. So every reachable state is asked what such
a query would be served. One that goes to SQL reads the committed rows: that every acknowledged one is among them is
asked too. Only queries that read in two steps, or that join one already sent, need the machine below.
"""

from collections.abc import Iterator

from tests.model import sql
from tests.model.config import Config
from tests.model.redis import find
from tests.model.state import (
    COMMITTED,
    DELETE,
    DERIVED,
    Document,
    Generation,
    Node,
    Query,
    Sql,
    State,
    Step,
)


def served(node: Node, off: frozenset[str]) -> Generation | None:
    """The generation that some query is served from on this node now, if any."""
    lease = node.data.lease
    if lease is None:
        return None
    if "query-run" not in off and lease.run != node.run:
        return None
    # A connection opened earlier still knows an earlier replication id of the same process.
    known = node.replications[-1:] if "live-replication" in off else node.replications
    if lease.replication not in known and "query-run" not in off:
        return None
    return find(node.data, lease.generation) or Generation(lease.generation, True, 0, (None, None, None))


def wrong(state: State, config: Config) -> str:
    """What a query that starts now is served although it is older than what was acknowledged; or nothing."""
    for position in state.acknowledged:
        if position and state.sql.transactions[state.sql.log[position - 1].xid - 1] != COMMITTED:
            return f"position {position} was acknowledged and is not in SQL"
    for number, node in enumerate(state.nodes):
        generation = served(node, config.off)
        if generation is None:
            continue
        for key in (0, 1):
            value = _value(generation.documents[key])
            if not allowed(state.sql, key, value, state.acknowledged[key]):
                return f"a query for {'ab'[key]} is served {_name(value)} by Redis {number}"
        if config.derived:
            joined = generation.documents[DERIVED]
            values = joined.value if joined and isinstance(joined.value, tuple) else (0, 0)
            if not all(allowed(state.sql, key, values[key], state.acknowledged[key]) for key in (0, 1)):
                return f"a query for the joined document is served {values} by Redis {number}"
    if state.query.at == "wrong":
        return f"a query for a returns {_name(state.query.value)}, though {state.query.bar} was acknowledged before"
    return ""


def _value(document: Document | None) -> int:
    return document.value if document and isinstance(document.value, int) else 0


def _name(value: int) -> str:
    return f"position {value}" if value else "'not found'"


def allowed(truth: Sql, key: int, value: int, bar: int) -> bool:
    """Whether a query may be told this, when position `bar` of the key was acknowledged before it started."""
    if value:
        row = truth.log[value - 1]
        return value >= bar and row.key == key and truth.transactions[row.xid - 1] == COMMITTED
    if bar == 0 and not any(row.key == key and row.xid == 1 for row in truth.log):
        return True
    return any(
        row.key == key
        and row.kind == DELETE
        and row.position >= bar
        and truth.transactions[row.xid - 1] == COMMITTED
        for row in truth.log
    )


def steps(state: State, config: Config) -> Iterator[Step]:
    """A query for a in steps; after its return it is checked, and another may start."""
    query = state.query
    if query.at == "idle" and state.budget.queries:
        budget = state.budget._replace(queries=state.budget.queries - 1)
        yield "query starts", state._replace(query=Query("start", state.acknowledged[0]), budget=budget)
    if query.at == "start":
        for number, node in enumerate(state.nodes):
            generation = served(node, config.off)
            if generation is None:
                continue
            read = query._replace(at="read", node=number, generation=generation.name)
            if "read-together" in config.off:
                yield "query reads the lease alone", state._replace(query=read._replace(at="lease"))
            else:
                sent = read._replace(at="sent", value=_value(generation.documents[0]))
                yield f"query reads {_name(sent.value)}, with the lease", state._replace(query=sent)
    if query.at == "lease":
        held = find(state.nodes[query.node].data, query.generation)
        sent = query._replace(at="sent", value=_value(held.documents[0]) if held else 0)
        yield f"query reads {_name(sent.value)}", state._replace(query=sent)
    if query.at == "sent":
        if "join-unsent" in config.off and query.bar < state.acknowledged[0]:
            joined = query._replace(bar=state.acknowledged[0])
            yield "another query joins the one that was sent", state._replace(query=joined)
        right = allowed(state.sql, 0, query.value, query.bar)
        back = Query() if right else query._replace(at="wrong")
        yield "query returns", state._replace(query=back)


def equal_to_sql(state: State, config: Config) -> bool:
    """Whether some node serves, and exactly what SQL holds."""
    for node in state.nodes:
        generation = served(node, config.off)
        if generation:
            values = sql.visible(state.sql)
            joined = generation.documents[DERIVED]
            same = tuple(_value(d) for d in generation.documents[:2]) == values
            return same and (not config.derived or (joined is not None and joined.value == values))
    return False
