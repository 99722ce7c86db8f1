"""The statements of passes and commands to read the change log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from diptych.log.expressions import EXPRESSIONS, Value, text, whole
from diptych.log.history import OF_THIS_HISTORY
from diptych.log.snapshot import Snapshot
from diptych.log.table import LOG, TRANSACTION, TransactionId

_LOGGED = (LOG.c.position, LOG.c.table_name, LOG.c.kind, LOG.c.old_key, LOG.c.key, LOG.c.image)
"""Columns of a whole change."""

_ENTRY = _LOGGED[:-1]
"""Columns of an entry: a change without its image."""

MOST_ENTRIES = 2000
"""Greatest number of entries in a sight."""


@dataclass(frozen=True)
class _Words:
    """Conditions of a database, and their parameters, for changes seen by a cursor or snapshot."""

    unseen: Value
    """Condition for rows that the cursor has not seen."""

    unseen_entries: Sequence[sa.Select[Any]]
    """Selects that together give the entries that the cursor has not seen."""

    entries_as_text: Callable[[sa.FromClause], Value] | None
    """Aggregate that makes text of all entries; None where a second statement costs nothing."""

    seen_by_snapshot: Value
    """Condition for rows that the snapshot has seen."""

    unseen_by: Callable[[sa.ColumnElement[str], sa.ColumnElement[int]], Value]
    """Condition for rows not seen by a follower, of the columns with its cursor as text and the cursor's stamp."""

    transaction: Value
    order: Value
    """Order of the positions, in words that keep the planner to the right index."""

    cursor: Callable[[Snapshot], Mapping[str, Any]]
    snapshot: Callable[[Snapshot], Mapping[str, Any]]


class LogStatements:
    """The statements for reading the log of a database.

    A pass executes ``first`` for the first part of a snapshot, and ``following`` for every later part. ``entries``
    gives the entries that a cursor has not seen. ``unseen`` tells whether there is a change of some tables that a
    cursor has not seen, and ``logged`` gives changes by their positions. ``entries_as_text`` makes a text of
    ``entries``; None where a second statement costs nothing.

    Parameters are named ``p_…``; ``cursor_values`` and ``snapshot_values`` give those of a cursor and a snapshot.
    ``unseen_by`` gives the condition for rows that a follower has not seen.
    """

    def __init__(self, snapshot: Value, words: _Words) -> None:
        whole_change = sa.select(*_LOGGED, words.transaction.label("number"))
        of_tables = OF_THIS_HISTORY & LOG.c.table_name.in_(
            sa.bindparam("p_tables", expanding=True, type_=sa.Text)
        )
        unseen = whole_change.where(of_tables, words.unseen).limit(whole("p_limit"))
        tail = unseen.order_by(words.order).subquery()
        now = sa.select(snapshot.label("snapshot")).subquery()
        # ★ The snapshot and the rows are of one statement: with a later snapshot as the cursor, rows that were
        # committed between the two would never be read. Where there are no rows there is still the snapshot.
        self.first: sa.Select[Any] = (
            sa.select(now.c.snapshot, tail)
            .select_from(now.outerjoin(tail, sa.true()))
            .order_by(tail.c.position)
        )
        following = words.seen_by_snapshot, LOG.c.position > whole("p_last")
        self.following: sa.Select[Any] = unseen.where(*following).order_by(LOG.c.position)
        up_to = LOG.c.position <= whole("p_position")
        self.unseen: sa.Select[Any] = sa.select(LOG.c.position).where(words.unseen, of_tables, up_to).limit(1)
        positions = sa.bindparam("p_positions", expanding=True, type_=sa.BigInteger)
        self.logged: sa.Select[Any] = whole_change.where(LOG.c.position.in_(positions)).order_by(
            LOG.c.position
        )
        self.entries = _united(words.unseen_entries)
        as_text = words.entries_as_text
        self.entries_as_text = None if as_text is None else _listed(self.entries, as_text)
        self.unseen_by = words.unseen_by
        self.cursor_values = words.cursor
        self.snapshot_values = words.snapshot


def _united(parts: Sequence[sa.Select[Any]]) -> sa.Select[Any]:
    if len(parts) == 1:
        return parts[0]
    return sa.select(sa.union_all(*(part.subquery().select() for part in parts)).subquery())


def _listed(select: sa.Select[Any], as_text: Callable[[sa.FromClause], Value]) -> Value:
    """Returns all rows of the select as a single text."""
    entries = select.subquery()
    return sa.select(as_text(entries)).select_from(entries).scalar_subquery()


def _postgresql() -> _Words:
    def transaction_id(name: str) -> Value:
        return sa.cast(text(name), TransactionId)

    # ★ The whole cursor, not `transaction >= xmin`: that repeats everything behind a transaction that is open for
    # long, and after a rebuild it replays an earlier change of a row over the backfill, which is of a later one.
    is_later = LOG.c.transaction >= transaction_id("p_xmax")
    was_running = LOG.c.transaction == sa.any_(sa.cast(text("p_running"), _TransactionIds))
    entry = sa.select(*_ENTRY, TRANSACTION.label("number")).limit(MOST_ENTRIES + 1).where(OF_THIS_HISTORY)
    return _Words(
        unseen=sa.or_(is_later, was_running),
        # Apart, each in the order of the index: one condition with OR may become a scan of the whole log.
        unseen_entries=(entry.where(is_later).order_by(LOG.c.transaction), entry.where(was_running)),
        entries_as_text=_json_of_entries,
        seen_by_snapshot=_is_visible_in(text("p_snapshot")),
        unseen_by=lambda cursor, _stamp: sa.not_(_is_visible_in(cursor)),
        transaction=TRANSACTION,
        # Not by `position` alone: the planner would walk the whole log by that index for a few rows at its end.
        order=LOG.c.position + 0,
        cursor=lambda cursor: {
            "p_xmax": str(cursor.xmax),
            "p_running": "{" + ",".join(map(str, cursor.running)) + "}",
        },
        snapshot=lambda snapshot: {"p_snapshot": str(snapshot)},
    )


def _json_of_entries(entries: sa.FromClause) -> Value:
    columns = entries.c
    entry = sa.func.json_build_array(
        columns.position, columns.number, *(columns[column.name] for column in _ENTRY[1:])
    )
    return sa.cast(sa.func.json_agg(entry), sa.Text)


def _is_visible_in(snapshot: Value) -> Value:
    """Returns the condition for rows of the log seen by a snapshot of PostgreSQL, given as text."""
    return sa.func.pg_visible_in_snapshot(LOG.c.transaction, sa.cast(snapshot, _Snapshot), type_=sa.Boolean)


def _sqlite() -> _Words:
    unseen = LOG.c.position >= whole("p_xmax")
    entry = sa.select(*_ENTRY, LOG.c.position.label("number")).limit(MOST_ENTRIES + 1).where(OF_THIS_HISTORY)
    return _Words(
        unseen=unseen,
        unseen_entries=(entry.where(unseen).order_by(LOG.c.position),),
        entries_as_text=None,
        seen_by_snapshot=LOG.c.position < whole("p_snapshot_xmax"),
        unseen_by=lambda _cursor, stamp: LOG.c.position >= stamp.bitwise_rshift(16),
        transaction=LOG.c.position,
        order=LOG.c.position,
        cursor=lambda cursor: {"p_xmax": cursor.xmax},
        snapshot=lambda snapshot: {"p_snapshot_xmax": snapshot.xmax},
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
    "postgresql": LogStatements(EXPRESSIONS["postgresql"].snapshot, _postgresql()),
    "sqlite": LogStatements(EXPRESSIONS["sqlite"].snapshot, _sqlite()),
}
"""The statements for each database, by the name of its dialect."""
