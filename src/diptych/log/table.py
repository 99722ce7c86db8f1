"""The change log in SQL: its tables, the clock and the snapshots of each database, and the log's new rows.

The log has a row for each change, written in the change's own transaction and never altered. The only exception is
made at the application's request: rows and personal data may be kept for a limited time.

The history of the log: numbers of transactions mean nothing outside their database. After a dump is restored
elsewhere, rows are copied, or an SQLite file is put in the place of a different file, the log holds rows with numbers
of some former database, and the fence rows vouch for documents made from former rows. So the single row of
``diptych_history`` records the identity of the database in which the log was begun. A process that finds the identity
changed adopts the database: see ``fence/adoption.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import UserDefinedType

from diptych.sql.sqlite.machine import NAME

Value = sa.ColumnElement[Any]


class PostgresType(UserDefinedType[str]):
    """A type of PostgreSQL's whose values drivers give and take as text, such as 64-bit transaction ids."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_options: object) -> str:
        return self.name


class _AnyBytes(sa.Text):
    """Text of SQLite, where a text may be of any bytes: triggers write them into the log, and no driver loads them.

    ★ They are read as bytes; what is no text is shown as U+FFFD. Else a single row that somebody has written so would
    keep every pass from reading the log.
    """

    cache_ok = True

    def column_expression(self, colexpr: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.type_coerce(sa.cast(colexpr, sa.LargeBinary), self)

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], str | None]:
        return lambda value: value.decode("utf-8", "replace") if isinstance(value, bytes) else value


_TEXT_OF_ROWS = sa.Text().with_variant(_AnyBytes(), "sqlite")

METADATA = sa.MetaData()
"""Tables of diptych itself. Migrations make and upgrade these; here are the columns that statements name."""

LOG = sa.Table(
    "diptych_log",
    METADATA,
    sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
    sa.Column("transaction", PostgresType("xid8")),
    sa.Column("table_name", sa.Text),
    sa.Column("entity", sa.Text, nullable=False),
    sa.Column("key", _TEXT_OF_ROWS, nullable=False),
    sa.Column("old_key", _TEXT_OF_ROWS),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("image", sa.Text),
    sa.Column("command_id", sa.Text, nullable=False),
    sa.Column("correlation_id", sa.Text),
    sa.Column("actor", sa.Text),
    sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("row_id", _TEXT_OF_ROWS),
    sa.Column("old_row_id", _TEXT_OF_ROWS),
)

TRANSACTION = sa.cast(sa.cast(LOG.c.transaction, sa.Text), sa.BigInteger)
"""Number of the transaction; PostgreSQL casts an ``xid8`` to a number only by way of text."""

HISTORY = sa.Table(
    "diptych_history",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),  # there is a single row
    sa.Column("name", sa.Text, nullable=False),  # random bits, new with each adoption
    sa.Column("database", sa.Text, nullable=False),  # `Database.identity` when the database was adopted
    sa.Column("first_position", sa.BigInteger, nullable=False),  # of the log's rows of this history
    sa.Column("clock", sa.Text, nullable=False),  # SQLite: the machine's clock of all times in the fence
    sa.Column(
        "token", sa.Text, nullable=False
    ),  # random bits, by which triggers know statements of ORMService
)


# Not by `position` alone: PostgreSQL's planner would use its index, and walk the whole log of this history.
OF_THIS_HISTORY = LOG.c.position + 0 >= sa.select(HISTORY.c.first_position).scalar_subquery()
"""Condition for rows of the log that belong to the present history of the database.

★ Readers with a cursor read only these rows. All other rows have numbers of a former database: numbers greater than
the present ones would be read again by every pass, and put old states over the rows; and again on the day when the
present numbers reach them.
"""


# Expressions


@dataclass(frozen=True)
class Expressions:
    """Expressions of a database for statements on the log and the fence: see ``EXPRESSIONS``.

    ``now`` is the time by the clock of the SQL server, in seconds of the Unix epoch; it goes on within a transaction.
    On SQLite it is by the machine's clock (``sql.sqlite.machine``): approximately the epoch's, and null until the
    database is adopted on this machine. ``age`` is the age of a row of the log by the same clock, in seconds.

    ``snapshot`` is the snapshot of the statement, as text, ``stamp`` its ``Snapshot.stamp``, and ``told`` the
    snapshot in its cheapest form, for frequent reads: on SQLite its number alone. ``greatest`` is the function of the
    greatest of its arguments, ``insert`` SQLAlchemy's ``insert`` of the dialect, which knows ``ON CONFLICT``.

    ``last_position`` is the greatest position that has been drawn, null if that can't be told. ``recorded_at`` is the
    present time for a new row of the log: on PostgreSQL by the server's clock, since the log is forgotten by its age,
    and the clocks of processes differ. ``appended`` are the columns returned for a new row: position, number of the
    transaction, snapshot of the transaction.
    """

    now: Value
    snapshot: Value
    told: Value
    stamp: Value
    greatest: Any
    age: Value
    last_position: Value
    recorded_at: Value
    appended: tuple[Value, ...]
    insert: Any


def _postgresql() -> Expressions:
    snapshot = sa.func.pg_current_snapshot()
    xmax = sa.cast(sa.cast(sa.func.pg_snapshot_xmax(snapshot), sa.Text), sa.BigInteger)
    running = sa.select(sa.func.count()).select_from(sa.func.pg_snapshot_xip(snapshot)).scalar_subquery()
    now = sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)
    return Expressions(
        now=now,
        snapshot=sa.cast(snapshot, sa.Text),
        told=sa.cast(snapshot, sa.Text),
        stamp=xmax * 0x10000 + 0xFFFF - sa.func.least(running, 0xFFFF),
        greatest=sa.func.greatest,
        age=now - sa.cast(sa.extract("epoch", LOG.c.recorded_at), sa.Double),
        last_position=_last_position(),
        recorded_at=sa.func.clock_timestamp(),
        appended=(
            LOG.c.position,
            TRANSACTION.label("number"),
            sa.cast(snapshot, sa.Text).label("snapshot"),  # the transaction has a single snapshot
        ),
        insert=postgresql.insert,
    )


def _last_position() -> Value:
    sequence = sa.func.pg_get_serial_sequence(LOG.name, "position")
    last = sa.func.pg_sequence_last_value(sa.cast(sequence, PostgresType("regclass")))
    # Without the right PostgreSQL raises an error before 18.
    return sa.case((sa.func.has_sequence_privilege(sequence, "USAGE, SELECT"), last), else_=sa.null())


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
        stamp=number * 0x10000 + 0xFFFF,
        greatest=sa.func.max,
        age=now - sa.type_coerce((sa.func.julianday(LOG.c.recorded_at) - 2440587.5) * 86400.0, sa.Double),
        # As the type of the column writes a time.
        last_position=sa.func.coalesce(last, 0, type_=sa.BigInteger),
        recorded_at=sa.literal_column("strftime('%Y-%m-%d %H:%M:%f000', 'now')"),
        # Writing transactions never run at the same time: the position is a number for them too.
        appended=(LOG.c.position, LOG.c.position.label("number"), sa.null().label("snapshot")),
        insert=sqlite.insert,
    )


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
