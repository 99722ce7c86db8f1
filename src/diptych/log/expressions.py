"""SQL expressions of each database: for its clock, its snapshots, and new rows of the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from diptych.log.history import HISTORY
from diptych.log.table import LOG, TRANSACTION
from diptych.sql.sqlite.machine import NAME

Value = sa.ColumnElement[Any]


@dataclass(frozen=True)
class Expressions:
    """Expressions of a database for statements on the log and the fence: see ``EXPRESSIONS``."""

    now: Value
    """Time by the clock of the SQL server, in seconds of the Unix epoch; it goes on within a transaction.

    On SQLite by the machine's clock (``sql.sqlite.clock``): approximately the epoch's, and null until the database is
    adopted on this machine."""

    snapshot: Value
    """The snapshot of the statement, as text."""

    told: Value
    """The snapshot in its cheapest form, for frequent reads: on SQLite its number alone."""

    stamp: Value
    """``Snapshot.stamp`` of the snapshot."""

    greatest: Any
    """The function of the greatest of its arguments."""

    age: Value
    """Age of a row of the log by the same clock, in seconds."""

    recorded_at: Value
    """Present time for a new row of the log.

    On PostgreSQL by the server's clock: the log is forgotten by its age, and the clocks of processes differ."""

    appended: tuple[Value, ...]
    """Columns returned for a new row of the log: position, number of the transaction, snapshot of the transaction."""

    insert: Any
    """SQLAlchemy's ``insert`` of the dialect, which knows ``ON CONFLICT``."""


def _postgresql() -> Expressions:
    snapshot = sa.func.pg_current_snapshot()
    xmax = sa.cast(sa.cast(sa.func.pg_snapshot_xmax(snapshot), sa.Text), sa.BigInteger)
    running = sa.select(sa.func.count()).select_from(sa.func.pg_snapshot_xip(snapshot)).scalar_subquery()
    now = sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)
    return Expressions(
        now=now,
        snapshot=sa.cast(snapshot, sa.Text),
        told=sa.cast(snapshot, sa.Text),
        stamp=_shifted(xmax) + 0xFFFF - sa.func.least(running, 0xFFFF),
        greatest=sa.func.greatest,
        age=now - sa.cast(sa.extract("epoch", LOG.c.recorded_at), sa.Double),
        recorded_at=sa.func.clock_timestamp(),
        appended=(
            LOG.c.position,
            TRANSACTION.label("number"),
            sa.cast(snapshot, sa.Text).label("snapshot"),  # the transaction has a single snapshot
        ),
        insert=postgresql.insert,
    )


def _sqlite() -> Expressions:
    sequence = sa.table("sqlite_sequence", sa.column("name", sa.Text), sa.column("seq", sa.BigInteger))
    # Not the highest position in the log: that row may have been deleted by its retention.
    last = sa.select(sequence.c.seq).where(sequence.c.name == LOG.name).scalar_subquery()
    number = sa.func.coalesce(last, 0, type_=sa.BigInteger) + 1
    written = sa.cast(number, sa.Text)
    now = sa.type_coerce(getattr(sa.func, NAME)(sa.select(HISTORY.c.clock).scalar_subquery()), sa.Double)
    return Expressions(
        now=now,
        snapshot=written + ":" + written + ":",
        told=number,
        stamp=_shifted(number) + 0xFFFF,
        greatest=sa.func.max,
        age=now - sa.type_coerce((sa.func.julianday(LOG.c.recorded_at) - 2440587.5) * 86400.0, sa.Double),
        # As the type of the column writes a time.
        recorded_at=sa.literal_column("strftime('%Y-%m-%d %H:%M:%f000', 'now')"),
        # Writing transactions never run at the same time: the position is a number for them too.
        appended=(LOG.c.position, LOG.c.position.label("number"), sa.null().label("snapshot")),
        insert=sqlite.insert,
    )


def _shifted(number: Value) -> Value:
    return number * 0x10000


def text(name: str) -> sa.BindParameter[str]:
    """Returns a parameter of this name for text."""
    return sa.bindparam(name, type_=sa.Text)


def whole(name: str) -> sa.BindParameter[int]:
    """Returns a parameter of this name for a whole number."""
    return sa.bindparam(name, type_=sa.BigInteger)


def seconds(name: str) -> sa.BindParameter[float]:
    """Returns a parameter of this name for a time by SQL's clock, or a span of time."""
    return sa.bindparam(name, type_=sa.Double)


EXPRESSIONS = {"postgresql": _postgresql(), "sqlite": _sqlite()}
"""The expressions of each database, by the name of its dialect."""
