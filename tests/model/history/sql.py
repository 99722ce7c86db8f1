"""The databases of this model: their numbers, what happens to them, and how a history is adopted."""

from collections.abc import Iterator

from tests.model.history import redis
from tests.model.history.config import Config
from tests.model.history.state import NOTE, Database, Entry, Keeper, State, Step, with_database
from tests.model.sql import sees
from tests.model.state import Snapshot

SQL_LEASE = 2


def snapshot(database: Database) -> Snapshot:
    """What a statement sees now."""
    running = database.running
    return Snapshot(min((*running, database.transaction)), database.transaction, running)


def unseen(database: Database, off: frozenset[str]) -> tuple[Entry, ...]:
    """The committed changes of this history that the fence's cursor did not see."""
    return tuple(
        entry
        for entry in database.log
        if entry.value != NOTE
        and entry.transaction not in database.running
        and not sees(database.cursor, entry.transaction)
        and (entry.position >= database.first or "this-history" in off)
    )


def steps(state: State, config: Config) -> Iterator[Step]:
    """What is done to the first database, between the steps of everybody else."""
    database = state.databases[0]
    if state.budget.moves:
        budget = state.budget._replace(moves=state.budget.moves - 1)
        # Dumped and loaded into another server, whose transaction numbers are small; then a row is changed by SQL.
        kept = tuple(entry for entry in database.log if entry.transaction not in database.running)
        moved = database._replace(
            identity=database.identity + 10,
            log=kept,
            position=1 if config.counted_anew else database.position,
            transaction=2,
            running=(),
            values=(*database.values, state.fresh),
            lease=0 if config.ahead else database.lease,
        )
        killed = tuple(c._replace(at="done") if c.at == "open" else c for c in state.commands)
        if config.ahead:
            killed = tuple(c._replace(left=0) for c in killed)
        after = state._replace(budget=budget, fresh=state.fresh + 1, commands=killed)
        yield "the database is put elsewhere, and changed by SQL", with_database(after, 0, moved)
    if state.budget.returns and state.backup is None and not database.running:
        yield "the database is backed up", state._replace(backup=database)
    known = redis.find(state, database.generation)
    is_known = known and state.backup and known.number > state.backup.started
    if state.budget.returns and state.backup and is_known and state.lease is None:
        # The application was stopped for longer than a lease; what it knew is gone with its processes. That a pass
        # was made since the backup is an assumption.
        budget = state.budget._replace(returns=state.budget.returns - 1)
        back = state.backup._replace(bar=len(state.backup.values) - 1, lease=0)
        stopped = tuple(c if c.at == "begin" else c._replace(at="done") for c in state.commands)
        after = state._replace(budget=budget, commands=stopped, keepers=(Keeper(),) * len(state.keepers))
        yield "the database is put back to the backup", with_database(after, 0, back)


def adopted(state: State, config: Config, n: int) -> State | None:
    """The state once database n is known to be what its history says: nothing of the fence is used before.

    None if the adoption has to wait for those who have written to the log.
    """
    database = state.databases[n]
    if database.adopted == database.identity or "adopted" in config.off:
        return state
    if database.running and "adoption-lock" not in config.off:
        return None
    committed = [e.position for e in database.log if e.transaction not in database.running]
    first = 1 + max(committed, default=0)
    after = database._replace(
        adopted=database.identity,
        names=(*database.names, state.fresh),
        first=first,
        position=database.position if "sequence" in config.off else max(first, database.position),
        generation=0,
        cursor=Snapshot(0, 0, ()),
        lease=0 if "adoption-lease" in config.off else SQL_LEASE,
    )
    return with_database(state._replace(fresh=state.fresh + 1), n, after)
