"""SQL statements of the fence, their rows and parameters.

The conditions of a statement are complete: nothing is checked outside.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from diptych.fence.contract import FenceId, FenceRow
from diptych.log import Snapshot
from diptych.log.reading import LOG_STATEMENTS, LogStatements
from diptych.log.retention import Followers
from diptych.log.table import EXPRESSIONS, HISTORY, METADATA, Expressions, Value, seconds, text, whole
from diptych.redis import RedisIdentity
from diptych.sql.database import Values

FENCE = sa.Table(
    "diptych_fence",
    METADATA,
    # The migrations make and upgrade the table. Here are the columns that statements name.
    sa.Column("read_model", sa.Text, primary_key=True),
    sa.Column("declaration", sa.Text, primary_key=True),  # the fingerprint
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

NO_GENERATION = {"generation": "", "ready": False, "cursor": None, "cursor_stamp": 0}
"""Values of a row whose generation has ended."""

_row = FENCE.c
_is_named = sa.and_(_row.read_model == text("p_read_model"), _row.declaration == text("p_declaration"))
_is_of_generation = _row.generation == text("p_generation")
_is_of_incarnation = sa.and_(_row.run_id == text("p_run_id"), _row.replication_id == text("p_replication_id"))

IS_OF_GENERATION = sa.and_(_is_named, _is_of_generation)
"""Condition of the row with the names of ``key_values``."""

_is_as_ready = _row.ready == sa.bindparam("p_ready", type_=sa.Boolean)


class FenceStatements:
    """Statements over ``diptych_fence`` for a single dialect. Names of parameters begin with ``p_``.

    A row that a statement returns has the columns of ``rows``, with the history, the database and SQL's clock.
    """

    def __init__(self, dialect: Expressions, log: LogStatements) -> None:
        self._dialect = dialect
        self._insert = dialect.insert
        self._now = now = dialect.now
        self._is_lapsed = now > _row.lease_until
        self._nobody_builds = _row.building_until < now
        self._building_until = now + seconds("p_building_s")
        self._whole_row = _whole_row(dialect)

        self.rows = self._rows()
        """Every fence row, with the snapshot of the statement."""
        self.sight = self._sight(log)
        """``rows`` with the log's entries as one text; None where a second statement costs nothing."""
        self.leased = sa.select(_row.generation).where(sa.not_(self._is_lapsed))
        self.register = self._insert(FENCE).on_conflict_do_nothing()

        self.promise_if_due = self._promise().where(_row.lease_until < now + seconds("p_due_s"))
        self.promise_if_none_began = self._promise().where(_row.passes_started == whole("p_passes_started"))
        self.complete = self._complete()
        self.claim = self._claim()
        self.keep_building = self._keep_building()

        self.move_when_lapsed = self._move_when_lapsed()
        self.move_as_planned = self._move_as_planned()
        self.begin_rebuild = self._begin_rebuild()
        self.end_rebuild = sa.delete(FENCE).where(_is_named)
        # Not a row that was closed as abandoned: it has no generation.
        self.use_rebuild = sa.delete(FENCE).where(_is_named, _is_of_generation).returning(_row.generation)

        self.forget = self._forget()
        self.close_abandoned = self._close_abandoned()

    # Rows

    def _rows(self) -> sa.Select[Any]:
        # ★ Fence and snapshot are of one statement. Between two statements a lease could be promised, or a change be
        # committed, and be missed.
        return sa.select(*self._whole_row, self._dialect.told.label("snapshot"))

    def _sight(self, log: LogStatements) -> sa.Select[Any] | None:
        if log.entries_as_text is None:
            return None
        is_first = sa.func.row_number().over() == sa.literal_column("1")
        entries = sa.case((is_first, log.entries_as_text), else_=sa.null())
        return self.rows.add_columns(entries.label("entries"))

    # Passes

    def _promise(self) -> Any:
        until = self._now + seconds("p_lease_s")
        return (
            sa.update(FENCE)
            .where(_is_named, _is_of_incarnation, _is_of_generation, _is_as_ready)
            .where(sa.or_(sa.bindparam("p_at_work", type_=sa.Boolean), self._nobody_builds))
            .values(
                lease_until=self._dialect.greatest(_row.lease_until, until),
                passes_started=_row.passes_started + 1,
            )
            .returning(*self._whole_row)
        )

    def _complete(self) -> Any:
        completed, stamp = whole("p_passes_completed"), whole("p_cursor_stamp")
        is_ready = sa.bindparam("p_is_ready", type_=sa.Boolean)
        is_ahead = stamp > _row.cursor_stamp
        return (
            sa.update(FENCE)
            .where(_is_named, _is_of_incarnation, _is_of_generation)
            .values(
                # ★ Number and cursor never go back. Passes may overlap, and the pass that ends last may be the one
                # that read the log first: changes between the two readings would be taken for carried.
                passes_completed=self._dialect.greatest(_row.passes_completed, completed),
                cursor=sa.case((is_ahead, text("p_cursor")), else_=_row.cursor),
                cursor_stamp=sa.case((is_ahead, stamp), else_=_row.cursor_stamp),
                ready=sa.or_(_row.ready, is_ready),
                building_until=sa.case((is_ready, sa.literal(0.0)), else_=_row.building_until),
            )
            .returning(_row.generation)
        )

    def _claim(self) -> Any:
        return (
            sa.update(FENCE)
            .where(_is_named, _is_of_incarnation, _is_of_generation, _is_as_ready)
            .where(self._is_lapsed, self._nobody_builds)
            .values(building_until=self._building_until)
            .returning(*self._whole_row)
        )

    def _keep_building(self) -> Any:
        return (
            sa.update(FENCE)
            .where(_is_named, _is_of_generation)
            .values(building_until=self._building_until)
            .returning(_row.generation)
        )

    # Generations

    def _move(self) -> sa.Update:
        return sa.update(FENCE).values(
            run_id=text("p_new_run_id"),
            replication_id=text("p_new_replication_id"),
            generation=text("p_new_generation"),
            ready=sa.false(),
            building_until=self._building_until,
        )

    def _move_when_lapsed(self) -> Any:
        return (
            self._move()
            .where(_is_named, _is_of_generation, self._nobody_builds)
            # ★ While the lease stands, queries are answered from the old generation. Commands that were applied to
            # the new generation alone would be acknowledged.
            .where(self._is_lapsed)
            .values(cursor=self._dialect.snapshot, cursor_stamp=self._dialect.stamp)
            .returning(*self._whole_row)
        )

    def _move_as_planned(self) -> Any:
        return (
            # A keeper that carries a lot may be at work. Its pass finds the old marker gone.
            self._move()
            .where(_is_named, _is_of_generation, _is_of_incarnation, _is_as_ready)
            .values(cursor=text("p_cursor"), cursor_stamp=whole("p_cursor_stamp"))
            .returning(*self._whole_row)
        )

    def _begin_rebuild(self) -> Any:
        given = ("read_model", "declaration", "tables", "run_id", "replication_id", "generation")
        zeros = ("lease_until", "passes_started", "passes_completed")
        return (
            self._insert(FENCE)
            .values(
                **{name: text(f"p_{name}") for name in given},
                database="",
                **dict.fromkeys(zeros, sa.literal(0)),
                ready=sa.false(),
                building_until=self._building_until,
                cursor=self._dialect.snapshot,
                cursor_stamp=self._dialect.stamp,
            )
            .returning(*self._whole_row)
        )

    # Rows without a keeper

    def _forget(self) -> Any:
        return (
            sa.delete(FENCE)
            .where(_is_named, _is_of_generation, self._is_lapsed, self._nobody_builds)
            .where(_row.lease_until == seconds("p_lease_until"))
            .returning(_row.generation)
        )

    def _close_abandoned(self) -> sa.Update:
        latest = self._dialect.greatest(_row.lease_until, _row.building_until)
        return (
            sa.update(FENCE)
            .where(self._now > latest + seconds("p_age_s"))
            .where(_row.generation != "")
            .values(generation="", ready=sa.false(), cursor=None, cursor_stamp=0)
        )


def _whole_row(dialect: Expressions) -> tuple[Value, ...]:
    """Returns the columns of a fence row, the name and the database of the history, and SQL's clock."""
    history = sa.select(HISTORY.c.name).scalar_subquery().label("history")
    of_database = sa.select(HISTORY.c.database).scalar_subquery().label("of_database")
    return (*FENCE.columns, history, of_database, dialect.now.label("now"))


FENCE_STATEMENTS = {
    "postgresql": FenceStatements(EXPRESSIONS["postgresql"], LOG_STATEMENTS["postgresql"]),
    "sqlite": FenceStatements(EXPRESSIONS["sqlite"], LOG_STATEMENTS["sqlite"]),
}
"""The statements of each database, by the name of its dialect."""


def followers(database: str) -> Followers:
    """Returns the fence rows as followers of the change log. ``database`` is the name of the dialect."""
    return Followers(_row.cursor, _row.cursor_stamp, FENCE_STATEMENTS[database].close_abandoned)


# Rows and parameters


def fence_row_of(row: Values | RowMapping) -> FenceRow:
    """Returns the fence row in a row of ``FenceStatements.rows``."""
    return FenceRow(
        id=FenceId(row["read_model"], row["declaration"]),
        tables=frozenset(msgspec.json.decode(row["tables"])),
        incarnation=RedisIdentity(row["run_id"], row["replication_id"]),
        generation=row["generation"],
        ready=row["ready"],
        lease_until=row["lease_until"],
        building_until=row["building_until"],
        cursor=None if row["cursor"] is None else Snapshot.parse(row["cursor"]),
        passes_started=row["passes_started"],
        passes_completed=row["passes_completed"],
        history=row["history"],
        now=row["now"],
    )


def new_row(fence: FenceId, tables: Collection[str]) -> dict[str, Any]:
    """Returns the columns of a fence row with no generation and a lease in the past."""
    zeros = ("lease_until", "building_until", "cursor_stamp", "passes_started", "passes_completed")
    return {
        "read_model": fence.read_model,
        "declaration": fence.fingerprint,
        "tables": tables_as_json(tables),
        **dict.fromkeys(("run_id", "replication_id", "generation", "database"), ""),
        "ready": False,
        **dict.fromkeys(zeros, 0),
        "cursor": None,
    }


def key_values(row: FenceRow) -> dict[str, Any]:
    """Returns the parameters for the names of a row and of its generation."""
    return {
        "p_read_model": row.id.read_model,
        "p_declaration": row.id.fingerprint,
        "p_generation": row.generation,
    }


def incarnation_values(row: FenceRow) -> dict[str, Any]:
    """Returns the parameters of the row's incarnation."""
    return {"p_run_id": row.incarnation.run_id, "p_replication_id": row.incarnation.replication_id}


def tables_as_json(tables: Collection[str]) -> str:
    """Returns the column ``tables``."""
    return msgspec.json.encode(sorted(set(tables))).decode()
