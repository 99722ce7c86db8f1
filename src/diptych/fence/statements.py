"""The statements of the fence: each is one, and says itself under which conditions it does anything."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from diptych.log.expressions import EXPRESSIONS, Expressions, Value, seconds, text, whole
from diptych.log.followers import Followers
from diptych.log.history import HISTORY
from diptych.log.reading import LOG_STATEMENTS, LogStatements
from diptych.log.table import METADATA

FENCE = sa.Table(
    "diptych_fence",
    METADATA,
    # The table is made and upgraded by the migrations; here are the columns that statements name.
    sa.Column("read_model", sa.Text, primary_key=True),
    sa.Column("declaration", sa.Text, primary_key=True),
    sa.Column("tables", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("replication_id", sa.Text, nullable=False),
    sa.Column("generation", sa.Text, nullable=False),
    sa.Column("ready", sa.Boolean, nullable=False),
    sa.Column("lease_until", sa.Double, nullable=False),
    sa.Column("building_until", sa.Double, nullable=False),
    sa.Column("cursor", sa.Text),
    sa.Column("cursor_stamp", sa.BigInteger, nullable=False),  # Snapshot.stamp of the cursor
    sa.Column("passes_started", sa.BigInteger, nullable=False),
    sa.Column("passes_completed", sa.BigInteger, nullable=False),
    sa.Column("database", sa.Text, nullable=False),  # of use to version 0002 alone
)

_row = FENCE.c


def _whole_row(dialect: Expressions) -> tuple[Value, ...]:
    """What a fence row is read with: the history that it is of, and SQL's clock."""
    history = sa.select(HISTORY.c.name).scalar_subquery().label("history")
    of_database = sa.select(HISTORY.c.database).scalar_subquery().label("of_database")
    return (*FENCE.columns, history, of_database, dialect.now.label("now"))


class FenceStatements:
    """The statements over ``diptych_fence`` of one database; the names of parameters begin with ``p_``."""

    rows: sa.Select[Any]
    """Every fence row, with the snapshot of the statement."""

    sight: sa.Select[Any] | None
    """The same with the log's entries, where a second statement is expensive."""

    def __init__(self, dialect: Expressions, insert: Any, log: LogStatements) -> None:
        the_row = sa.and_(_row.read_model == text("p_read_model"), _row.declaration == text("p_declaration"))
        generation = _row.generation == text("p_generation")
        incarnation = sa.and_(
            _row.run_id == text("p_run_id"), _row.replication_id == text("p_replication_id")
        )
        ready = _row.ready == sa.bindparam("p_ready", type_=sa.Boolean)
        nobody_builds = _row.building_until < dialect.now
        lapsed = dialect.now > _row.lease_until
        until = dialect.now + seconds("p_building_s")
        row = _whole_row(dialect)

        # ★ Fence and snapshot are of one statement: a lease that was promised, or a change that was committed,
        # between two statements would be missed.
        self.rows = sa.select(*row, dialect.told.label("snapshot"))
        self.sight = None
        if log.entries_as_text is not None:
            is_first = sa.func.row_number().over() == sa.literal_column("1")
            entries = sa.case((is_first, log.entries_as_text), else_=sa.null())
            self.sight = self.rows.add_columns(entries.label("entries"))
        self.leased = sa.select(_row.generation).where(sa.not_(lapsed))
        self.register = insert(FENCE).on_conflict_do_nothing()
        self.snapshot = sa.select(dialect.snapshot)

        promise = (
            sa.update(FENCE)
            .where(the_row, incarnation, generation, ready)
            .where(sa.or_(sa.bindparam("p_at_work", type_=sa.Boolean), nobody_builds))
            .values(
                lease_until=dialect.greatest(_row.lease_until, dialect.now + seconds("p_lease_s")),
                passes_started=_row.passes_started + 1,
            )
            .returning(*row)
        )
        self.promise_if_due = promise.where(_row.lease_until < dialect.now + seconds("p_due_s"))
        self.promise_if_none_began = promise.where(_row.passes_started == whole("p_passes_started"))

        stamp = whole("p_cursor_stamp")
        ahead = stamp > _row.cursor_stamp
        self.complete = (
            sa.update(FENCE)
            .where(the_row, incarnation, generation)
            .values(
                # ★ Neither ever goes back, since passes may overlap: the one that ends last may be the one that
                # read the log first, and changes between the two would be thought of as carried.
                passes_completed=dialect.greatest(_row.passes_completed, whole("p_passes_completed")),
                cursor=sa.case((ahead, text("p_cursor")), else_=_row.cursor),
                cursor_stamp=sa.case((ahead, stamp), else_=_row.cursor_stamp),
                ready=sa.or_(_row.ready, sa.bindparam("p_is_ready", type_=sa.Boolean)),
                building_until=sa.case(
                    (sa.bindparam("p_is_ready", type_=sa.Boolean), sa.literal(0.0)), else_=_row.building_until
                ),
            )
            .returning(_row.generation)
        )

        move = sa.update(FENCE).values(
            run_id=text("p_new_run_id"),
            replication_id=text("p_new_replication_id"),
            generation=text("p_new_generation"),
            ready=sa.false(),
            building_until=until,
        )
        self.move_when_lapsed = (
            move.where(the_row, generation, nobody_builds)
            # ★ While the lease stands, queries are answered from the old generation, and commands that were not
            # applied to it would be acknowledged because they were applied to the new one.
            .where(lapsed)
            .values(cursor=dialect.snapshot, cursor_stamp=dialect.stamp)
            .returning(*row)
        )
        self.move_as_planned = (
            # A keeper that carries much may be at it: its pass finds the old marker gone.
            move.where(the_row, generation, incarnation, ready)
            .values(cursor=text("p_cursor"), cursor_stamp=stamp)
            .returning(*row)
        )
        self.begin_rebuild = (
            insert(FENCE)
            .values(
                **{name: text(f"p_{name}") for name in ("read_model", "declaration", "tables", "run_id")},
                **{name: text(f"p_{name}") for name in ("replication_id", "generation")},
                database="",
                **dict.fromkeys(("lease_until", "passes_started", "passes_completed"), sa.literal(0)),
                ready=sa.false(),
                building_until=until,
                cursor=dialect.snapshot,
                cursor_stamp=dialect.stamp,
            )
            .returning(*row)
        )
        self.end_rebuild = sa.delete(FENCE).where(the_row)
        # Not if it was closed as abandoned: it has no generation then.
        self.use_rebuild = sa.delete(FENCE).where(the_row, generation).returning(_row.generation)
        self.keep_building = (
            sa.update(FENCE)
            .where(the_row, generation)
            .values(building_until=until)
            .returning(_row.generation)
        )
        self.claim = (
            sa.update(FENCE)
            .where(the_row, incarnation, generation, ready, lapsed, nobody_builds)
            .values(building_until=until)
            .returning(*row)
        )
        self.forget = (
            sa.delete(FENCE)
            .where(the_row, generation, lapsed, nobody_builds)
            .where(_row.lease_until == seconds("p_lease_until"))
            .returning(_row.generation)
        )
        self.close_abandoned = (
            sa.update(FENCE)
            .where(dialect.now > dialect.greatest(_row.lease_until, _row.building_until) + seconds("p_age_s"))
            .where(_row.generation != "")
            .values(generation="", ready=sa.false(), cursor=None, cursor_stamp=0)
        )


FENCE_STATEMENTS = {
    "postgresql": FenceStatements(EXPRESSIONS["postgresql"], postgresql.insert, LOG_STATEMENTS["postgresql"]),
    "sqlite": FenceStatements(EXPRESSIONS["sqlite"], sqlite.insert, LOG_STATEMENTS["sqlite"]),
}


def followers(database: str) -> Followers:
    """The fence rows as followers of the change log. ``database`` is the name of the dialect."""
    return Followers(_row.cursor, _row.cursor_stamp, FENCE_STATEMENTS[database].close_abandoned)
