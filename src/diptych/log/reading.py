"""The statements of passes and commands to read the change log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from diptych.log.change import Snapshot
from diptych.log.table import EXPRESSIONS, LOG, OF_THIS_HISTORY, TRANSACTION, PostgresType, Value, text, whole

_LOGGED = (LOG.c.position, LOG.c.table_name, LOG.c.kind, LOG.c.old_key, LOG.c.key, LOG.c.image)
"""Columns of a whole change."""

_ENTRY = _LOGGED[:-1]
"""Columns of an entry: a change without its image."""

MOST_ENTRIES = 2000
"""Greatest number of entries in a sight."""


class LogStatements:
    """The statements for reading the log of a database.

    A pass executes ``first`` for the first part of a snapshot, and ``following`` for every later part. ``entries``
    gives the entries that a cursor has not seen. ``unseen`` tells whether there is a change of some tables that a
    cursor has not seen, and ``logged`` gives changes by their positions. ``entries_as_text`` makes a text of
    ``entries``; None where a second statement costs nothing.

    Parameters are named ``p_…``; ``cursor_values`` and ``snapshot_values`` give those of a cursor and a snapshot.
    ``unseen_by`` gives the condition for rows not seen by a follower, of the columns with its cursor as text and the
    cursor's stamp.

    Given are also the conditions for rows that the cursor has not seen (``unseen``) and that the snapshot has seen
    (``seen``), and the ``order`` of the positions, in words that keep the planner to the right index.
    """

    def __init__(
        self,
        database: str,
        *,
        unseen: Value,
        entries: sa.Select[Any],
        entries_as_text: Value | None,
        seen: Value,
        transaction: Value,
        order: Value,
        unseen_by: Callable[[sa.ColumnElement[str], sa.ColumnElement[int]], Value],
        cursor_values: Callable[[Snapshot], Mapping[str, Any]],
        snapshot_values: Callable[[Snapshot], Mapping[str, Any]],
    ) -> None:
        position = LOG.c.position
        whole_change = sa.select(*_LOGGED, transaction.label("number"))
        of_tables = OF_THIS_HISTORY & LOG.c.table_name.in_(_listed("p_tables", sa.Text))
        unseen_changes = whole_change.where(of_tables, unseen).limit(whole("p_limit"))
        self.first = _with_snapshot(EXPRESSIONS[database].snapshot, unseen_changes.order_by(order))
        self.following = unseen_changes.where(seen, position > whole("p_last")).order_by(position)
        is_before = position <= whole("p_position")
        self.unseen: sa.Select[Any] = sa.select(position).where(unseen, of_tables, is_before).limit(1)
        is_asked_for = position.in_(_listed("p_positions", sa.BigInteger))
        self.logged = whole_change.where(is_asked_for).order_by(position)
        self.entries = entries
        self.entries_as_text = entries_as_text
        self.unseen_by = unseen_by
        self.cursor_values = cursor_values
        self.snapshot_values = snapshot_values


def _listed(name: str, kind: type[sa.types.TypeEngine[Any]]) -> sa.BindParameter[Any]:
    return sa.bindparam(name, expanding=True, type_=kind)


def _with_snapshot(snapshot: Value, changes: sa.Select[Any]) -> sa.Select[Any]:
    """Returns the select of the snapshot and of these changes.

    ★ The snapshot and the rows are of one statement: with a later snapshot as the cursor, rows that were committed
    between the two would never be read. Where there are no rows there is still the snapshot.
    """
    tail, now = changes.subquery(), sa.select(snapshot.label("snapshot")).subquery()
    joined = now.outerjoin(tail, sa.true())
    return sa.select(now.c.snapshot, tail).select_from(joined).order_by(tail.c.position)


def _entry(transaction: Value) -> sa.Select[Any]:
    entry = sa.select(*_ENTRY, transaction.label("number"))
    return entry.limit(MOST_ENTRIES + 1).where(OF_THIS_HISTORY)


def _postgresql() -> LogStatements:
    # ★ The whole cursor, not `transaction >= xmin`: that repeats everything behind a transaction that is open for
    # long, and after a rebuild it replays an earlier change of a row over the backfill, which is of a later one.
    is_later = LOG.c.transaction >= sa.cast(text("p_xmax"), PostgresType("xid8"))
    was_running = LOG.c.transaction == sa.any_(sa.cast(text("p_running"), PostgresType("xid8[]")))
    # Apart, each in the order of the index: one condition with OR may become a scan of the whole log.
    entry = _entry(TRANSACTION)
    parts = entry.where(is_later).order_by(LOG.c.transaction), entry.where(was_running)
    entries = sa.select(sa.union_all(*(part.subquery().select() for part in parts)).subquery())
    return LogStatements(
        "postgresql",
        unseen=sa.or_(is_later, was_running),
        entries=entries,
        entries_as_text=_as_text(entries.subquery()),
        seen=_is_visible_in(text("p_snapshot")),
        unseen_by=lambda cursor, _stamp: sa.not_(_is_visible_in(cursor)),
        transaction=TRANSACTION,
        # Not by `position` alone: the planner would walk the whole log by that index for a few rows at its end.
        order=LOG.c.position + 0,
        cursor_values=lambda cursor: {
            "p_xmax": str(cursor.xmax),
            "p_running": "{" + ",".join(map(str, cursor.running)) + "}",
        },
        snapshot_values=lambda snapshot: {"p_snapshot": str(snapshot)},
    )


def _as_text(entries: sa.FromClause) -> Value:
    """Returns all entries as a single text."""
    columns = entries.c
    entry = sa.func.json_build_array(
        columns.position, columns.number, *(columns[column.name] for column in _ENTRY[1:])
    )
    return sa.select(sa.cast(sa.func.json_agg(entry), sa.Text)).select_from(entries).scalar_subquery()


def _is_visible_in(snapshot: Value) -> Value:
    """Returns the condition for rows of the log seen by a snapshot of PostgreSQL, given as text."""
    seen_by = sa.cast(snapshot, PostgresType("pg_snapshot"))
    return sa.func.pg_visible_in_snapshot(LOG.c.transaction, seen_by, type_=sa.Boolean)


def _sqlite() -> LogStatements:
    position = LOG.c.position
    unseen = position >= whole("p_xmax")
    return LogStatements(
        "sqlite",
        unseen=unseen,
        entries=_entry(position).where(unseen).order_by(position),
        entries_as_text=None,
        seen=position < whole("p_snapshot_xmax"),
        unseen_by=lambda _cursor, stamp: position >= stamp.bitwise_rshift(16),
        transaction=position,
        order=position,
        cursor_values=lambda cursor: {"p_xmax": cursor.xmax},
        snapshot_values=lambda snapshot: {"p_snapshot_xmax": snapshot.xmax},
    )


LOG_STATEMENTS = {"postgresql": _postgresql(), "sqlite": _sqlite()}
"""The statements for each database, by the name of its dialect."""
