"""What the statements of the hinge are made of, in the words of each database: its clock and its snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from diptych.log.history import HISTORY
from diptych.log.table import LOG
from diptych.sql.sqlite.clock import NAME

Value = sa.ColumnElement[Any]


@dataclass(frozen=True)
class Dialect:
    """What each database has its own words for."""

    now: Value
    """Seconds of the Unix epoch, by the clock of the SQL server; it goes on within a transaction. On SQLite of the
    machine's clock (``sqlite_clock``): the epoch's about, and null until the database is adopted on this machine."""

    snapshot: Value
    """The snapshot of the statement, as text."""

    told: Value
    """The same where it is read often: on SQLite its number alone."""

    stamp: Value
    """``Snapshot.stamp`` of it."""

    greatest: Any
    """The function of the greatest of its arguments."""

    age: Value
    """How many seconds ago, by the same clock, a row of the log was recorded."""


def _postgresql() -> Dialect:
    snapshot = sa.func.pg_current_snapshot()
    xmax = sa.cast(sa.cast(sa.func.pg_snapshot_xmax(snapshot), sa.Text), sa.BigInteger)
    running = sa.select(sa.func.count()).select_from(sa.func.pg_snapshot_xip(snapshot)).scalar_subquery()
    now = sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)
    return Dialect(
        now=now,
        snapshot=sa.cast(snapshot, sa.Text),
        told=sa.cast(snapshot, sa.Text),
        stamp=_shifted(xmax) + 0xFFFF - sa.func.least(running, 0xFFFF),
        greatest=sa.func.greatest,
        age=now - sa.cast(sa.extract("epoch", LOG.c.recorded_at), sa.Double),
    )


def _sqlite() -> Dialect:
    sequence = sa.table("sqlite_sequence", sa.column("name", sa.Text), sa.column("seq", sa.BigInteger))
    # Not the highest position in the log: that row may have been deleted by its retention.
    last = sa.select(sequence.c.seq).where(sequence.c.name == LOG.name).scalar_subquery()
    number = sa.func.coalesce(last, 0, type_=sa.BigInteger) + 1
    written = sa.cast(number, sa.Text)
    now = sa.type_coerce(getattr(sa.func, NAME)(sa.select(HISTORY.c.clock).scalar_subquery()), sa.Double)
    return Dialect(
        now=now,
        snapshot=written + ":" + written + ":",
        told=number,
        stamp=_shifted(number) + 0xFFFF,
        greatest=sa.func.max,
        age=now - sa.type_coerce((sa.func.julianday(LOG.c.recorded_at) - 2440587.5) * 86400.0, sa.Double),
    )


def _shifted(number: Value) -> Value:
    return number * 0x10000


def text(name: str) -> sa.BindParameter[str]:
    """A parameter of this name."""
    return sa.bindparam(name, type_=sa.Text)


def whole(name: str) -> sa.BindParameter[int]:
    """A parameter of this name."""
    return sa.bindparam(name, type_=sa.BigInteger)


def seconds(name: str) -> sa.BindParameter[float]:
    """A parameter of this name: a time by SQL's clock, or a span of it."""
    return sa.bindparam(name, type_=sa.Double)


DIALECTS = {"postgresql": _postgresql(), "sqlite": _sqlite()}
