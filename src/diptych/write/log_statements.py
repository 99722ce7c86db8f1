"""The statements by which passes read the change log."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from diptych.write.fence_statements import FENCE
from diptych.write.log import LOG, TRANSACTION, TransactionId
from diptych.write.sql_words import WORDS, Value, Words, text, whole

_LOGGED = (LOG.c.position, LOG.c.table_name, LOG.c.kind, LOG.c.old_key, LOG.c.image)


class LogStatements:
    """The statements by which passes read the log: the ``first`` part of a snapshot and those ``following``."""

    first: sa.Select[Any]
    following: sa.Select[Any]
    seen_by_all: Value

    def __init__(
        self,
        words: Words,
        *,
        unseen: Value,
        same_snapshot: Value,
        transaction: Value,
        order: Value,
        unseen_by_fence: Value,
    ) -> None:
        logged = sa.select(*_LOGGED, transaction.label("number")).limit(whole("p_limit"))
        logged = logged.where(LOG.c.table_name.in_(sa.bindparam("p_tables", expanding=True, type_=sa.Text)))
        tail = logged.where(unseen).order_by(order).subquery()
        now = sa.select(words.snapshot.label("snapshot")).subquery()
        # ★ The snapshot and the rows are of one statement: with a later snapshot as the cursor, rows that were
        # committed between the two would never be read. Where there are no rows there is still the snapshot.
        self.first = (
            sa.select(now.c.snapshot, tail)
            .select_from(now.outerjoin(tail, sa.true()))
            .order_by(tail.c.position)
        )
        self.following = logged.where(unseen, same_snapshot, LOG.c.position > whole("p_last")).order_by(
            LOG.c.position
        )
        # ★ Else the change is deleted from the log before it was carried to Redis, and never is.
        self.seen_by_all = ~sa.exists().where(FENCE.c.cursor.is_not(None), unseen_by_fence)


def _postgresql(words: Words) -> LogStatements:
    def transaction_id(name: str) -> Value:
        return sa.cast(text(name), TransactionId)

    # ★ The whole cursor, not `transaction >= xmin`: that repeats everything behind a transaction that is open for
    # long, and after a rebuild it replays an earlier change of a row over the backfill, which is of a later one.
    unseen = sa.or_(
        LOG.c.transaction >= transaction_id("p_xmax"),
        LOG.c.transaction == sa.any_(sa.cast(text("p_running"), _TransactionIds)),
    )
    return LogStatements(
        words,
        unseen=unseen,
        same_snapshot=_visible(text("p_snapshot")),
        transaction=TRANSACTION,
        # Not by `position` alone: the planner would walk the whole log by that index for a few rows at its end.
        order=LOG.c.position + 0,
        unseen_by_fence=sa.not_(_visible(FENCE.c.cursor)),
    )


def _visible(snapshot: Value) -> Value:
    return sa.func.pg_visible_in_snapshot(LOG.c.transaction, sa.cast(snapshot, _Snapshot), type_=sa.Boolean)


def _sqlite(words: Words) -> LogStatements:
    return LogStatements(
        words,
        unseen=LOG.c.position >= whole("p_xmax"),
        same_snapshot=LOG.c.position < whole("p_snapshot_xmax"),
        transaction=LOG.c.position,
        order=LOG.c.position,
        unseen_by_fence=LOG.c.position >= FENCE.c.cursor_stamp.bitwise_rshift(16),
    )


class _Snapshot(TransactionId):
    cache_ok = True

    def get_col_spec(self, **_options: object) -> str:
        return "pg_snapshot"


class _TransactionIds(TransactionId):
    cache_ok = True

    def get_col_spec(self, **_options: object) -> str:
        return "xid8[]"


LOG_STATEMENTS = {
    "postgresql": _postgresql(WORDS["postgresql"]),
    "sqlite": _sqlite(WORDS["sqlite"]),
}
