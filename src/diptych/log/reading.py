"""The statements by which passes read the change log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from diptych.log.dialect import DIALECTS, Dialect, Value, text, whole
from diptych.log.history import OF_THIS_HISTORY
from diptych.log.table import LOG, TRANSACTION, TransactionId

_LOGGED = (LOG.c.position, LOG.c.table_name, LOG.c.kind, LOG.c.old_key, LOG.c.key, LOG.c.image)


_ENTRY = (LOG.c.position, LOG.c.table_name, LOG.c.kind, LOG.c.old_key, LOG.c.key)

MOST_ENTRIES = 2000
"""How many entries a sight gives at most."""


class LogStatements:
    """The statements that read the log.

    A pass executes ``first`` for the first part of a snapshot, and ``following`` for every later part. ``entries``
    gives the entries that a cursor has not seen. ``unseen`` tells whether there is a change of some tables that a
    cursor has not seen, and ``logged`` gives changes by their positions. ``entries_as_text`` makes one text of
    ``entries``; None where a second statement costs nothing.
    """

    first: sa.Select[Any]
    following: sa.Select[Any]
    entries: sa.Select[Any]
    unseen: sa.Select[Any]
    logged: sa.Select[Any]

    def __init__(
        self,
        dialect: Dialect,
        *,
        unseen: Value,
        unseen_parts: Sequence[sa.Select[Any]],
        same_snapshot: Value,
        transaction: Value,
        order: Value,
        as_text: Callable[[sa.FromClause], Value] | None,
    ) -> None:
        whole_change = sa.select(*_LOGGED, transaction.label("number"))
        of_tables = OF_THIS_HISTORY & LOG.c.table_name.in_(
            sa.bindparam("p_tables", expanding=True, type_=sa.Text)
        )
        logged = whole_change.limit(whole("p_limit")).where(of_tables)
        tail = logged.where(unseen).order_by(order).subquery()
        now = sa.select(dialect.snapshot.label("snapshot")).subquery()
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
        self.unseen = sa.select(LOG.c.position).where(unseen, of_tables).limit(1)
        self.unseen = self.unseen.where(LOG.c.position <= whole("p_position"))
        self.logged = whole_change.order_by(LOG.c.position).where(
            LOG.c.position.in_(sa.bindparam("p_positions", expanding=True, type_=sa.BigInteger))
        )
        self.entries = _together(unseen_parts)
        self.entries_as_text = None if as_text is None else _listed(self.entries, as_text)


def _together(parts: Sequence[sa.Select[Any]]) -> sa.Select[Any]:
    if len(parts) == 1:
        return parts[0]
    return sa.select(sa.union_all(*(part.subquery().select() for part in parts)).subquery())


def _listed(select: sa.Select[Any], as_text: Callable[[sa.FromClause], Value]) -> Value:
    """All rows of the select, as one text."""
    entries = select.subquery()
    return sa.select(as_text(entries)).select_from(entries).scalar_subquery()


def _postgresql(dialect: Dialect) -> LogStatements:
    def transaction_id(name: str) -> Value:
        return sa.cast(text(name), TransactionId)

    # ★ The whole cursor, not `transaction >= xmin`: that repeats everything behind a transaction that is open for
    # long, and after a rebuild it replays an earlier change of a row over the backfill, which is of a later one.
    is_later = LOG.c.transaction >= transaction_id("p_xmax")
    was_running = LOG.c.transaction == sa.any_(sa.cast(text("p_running"), _TransactionIds))
    entry = sa.select(*_ENTRY, TRANSACTION.label("number")).limit(MOST_ENTRIES + 1).where(OF_THIS_HISTORY)
    return LogStatements(
        dialect,
        unseen=sa.or_(is_later, was_running),
        # Apart, each in the order of the index: one condition with OR may become a scan of the whole log.
        unseen_parts=(entry.where(is_later).order_by(LOG.c.transaction), entry.where(was_running)),
        as_text=lambda entries: sa.cast(
            sa.func.json_agg(
                sa.func.json_build_array(
                    entries.c.position, entries.c.number, *(entries.c[c.name] for c in _ENTRY[1:])
                )
            ),
            sa.Text,
        ),
        same_snapshot=is_visible_in(text("p_snapshot")),
        transaction=TRANSACTION,
        # Not by `position` alone: the planner would walk the whole log by that index for a few rows at its end.
        order=LOG.c.position + 0,
    )


def is_visible_in(snapshot: Value) -> Value:
    """Condition for rows of the log that a snapshot of PostgreSQL, given as text, saw."""
    return sa.func.pg_visible_in_snapshot(LOG.c.transaction, sa.cast(snapshot, _Snapshot), type_=sa.Boolean)


def _sqlite(dialect: Dialect) -> LogStatements:
    unseen = LOG.c.position >= whole("p_xmax")
    entry = sa.select(*_ENTRY, LOG.c.position.label("number")).limit(MOST_ENTRIES + 1).where(OF_THIS_HISTORY)
    return LogStatements(
        dialect,
        unseen=unseen,
        unseen_parts=(entry.where(unseen).order_by(LOG.c.position),),
        as_text=None,
        same_snapshot=LOG.c.position < whole("p_snapshot_xmax"),
        transaction=LOG.c.position,
        order=LOG.c.position,
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
    "postgresql": _postgresql(DIALECTS["postgresql"]),
    "sqlite": _sqlite(DIALECTS["sqlite"]),
}
