"""The SQL server: transactions, snapshots and the fence."""

from tests.model.state import ABORTED, COMMITTED, OTHER, PUT, RUNNING, Fence, Row, Snapshot, Sql


def snapshot(sql: Sql) -> Snapshot:
    """What a statement sees now."""
    return snapshot_of(sql.transactions)


def snapshot_of(transactions: tuple[int, ...]) -> Snapshot:
    """As PostgreSQL takes it: `xmax` is one past the highest transaction that is over."""
    xmax = 1 + max((n for n, end in enumerate(transactions, 1) if end != RUNNING), default=0)
    xip = tuple(n for n, end in enumerate(transactions[: xmax - 1], 1) if end == RUNNING)
    return Snapshot(xip[0] if xip else xmax, xmax, xip)


def stamp(seen: Snapshot) -> tuple[int, int]:
    """Orders snapshots: a higher `xmax`, then fewer in progress (100 stands for more than there can be)."""
    return seen.xmax, 100 - len(seen.xip)


def sees(snapshot: Snapshot, transaction: int) -> bool:
    """Whether a transaction was over when the snapshot was taken."""
    return transaction < snapshot.xmax and transaction not in snapshot.xip


def visible(sql: Sql, xid: int = 0) -> tuple[int, int]:
    """The values of a and b (0: no row), as a statement now, or one of transaction `xid`, sees them."""
    values = [0, 0]
    for row in sql.log:
        if row.key != OTHER and (sql.transactions[row.xid - 1] == COMMITTED or row.xid == xid):
            values[row.key] = row.position if row.kind == PUT else 0
    return values[0], values[1]


def is_locked(sql: Sql, key: int, xid: int) -> bool:
    """Whether another open transaction holds the row of `key`."""
    return key != OTHER and any(
        row.key == key and row.xid != xid and sql.transactions[row.xid - 1] == RUNNING for row in sql.log
    )


def change(sql: Sql, xid: int, key: int, kind: int) -> tuple[Sql, Row]:
    """One flush: the transaction's number is drawn at its first change, the position while the row is locked."""
    transactions = sql.transactions
    if xid == 0:
        transactions = (*transactions, RUNNING)
        xid = len(transactions)
    row = Row(len(sql.log) + 1, xid, key, kind)
    return Sql((*sql.log, row), transactions, sql.fence), row


def end(sql: Sql, xid: int, *, committed: bool) -> Sql:
    """Commit, or roll back."""
    ends = list(sql.transactions)
    ends[xid - 1] = COMMITTED if committed else ABORTED
    return sql._replace(transactions=tuple(ends))


def rows_after(sql: Sql, cursor: Snapshot, off: frozenset[str]) -> tuple[Row, ...]:
    """The committed rows not known to be in."""
    running = () if "whole-cursor" in off else cursor.xip
    return tuple(
        row
        for row in sql.log
        if row.key != OTHER
        and sql.transactions[row.xid - 1] == COMMITTED
        and (row.xid >= cursor.xmax or row.xid in running)
    )


def identity(fence: Fence) -> tuple[int, int, int]:
    """The incarnation and generation that the fence shows."""
    return fence.run, fence.replication, fence.generation
