"""Reading of the change log by passes and by the ends of commands: the statements, and their reader."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Container, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import WiringError
from diptych.log import GAP, Change, Entry, LogPart, Snapshot
from diptych.log.table import EXPRESSIONS, LOG, OF_THIS_HISTORY, TRANSACTION, PostgresType, Value, text, whole
from diptych.sql.database import Database, Values
from diptych.sql.entity import MappedEntity
from diptych.sql.failures import translated_reading
from diptych.sql.view import View, moment_of, single_view_of, view_of

_LOGGED = (LOG.c.position, LOG.c.table_name, LOG.c.kind, LOG.c.old_key, LOG.c.key, LOG.c.image)
"""Columns of a whole change."""

_ENTRY = (*_LOGGED[:-1], LOG.c.version)
"""Columns of an entry: a change without its image."""

MOST_ENTRIES = 2000
"""Greatest number of entries in a sight."""


class LogStatements:
    """The statements for reading the log of a database.

    A pass executes ``first`` for the first part of a snapshot, and ``following`` for every later part. ``entries``
    gives the entries that a cursor has not seen. ``unseen`` tells whether there is a change of some tables that a
    cursor has not seen, and ``logged`` gives changes by their positions. ``entries_as_text`` makes a text of
    ``entries``; None where a second statement costs nothing. ``lagging`` gives the entries of some tables that a
    cursor has not seen, with their ages, and ``lag`` their number and the greatest age.

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
        self.first = with_snapshot(EXPRESSIONS[database].snapshot, unseen_changes.order_by(order))
        self.following = unseen_changes.where(seen, position > whole("p_last")).order_by(position)
        is_before = position <= whole("p_position")
        self.unseen: sa.Select[Any] = sa.select(position).where(unseen, of_tables, is_before).limit(1)
        is_asked_for = position.in_(_listed("p_positions", sa.BigInteger))
        self.logged = whole_change.where(is_asked_for).order_by(position)
        entry = sa.select(*_ENTRY, transaction.label("number"), EXPRESSIONS[database].age.label("age"))
        self.lagging = (
            entry.where(of_tables, unseen, LOG.c.kind != GAP).order_by(order).limit(whole("p_limit"))
        )
        lagging = self.lagging.subquery()
        number: Value = sa.func.count(lagging.c.position).label("number")
        self.lag: sa.Select[Any] = sa.select(number, sa.func.max(lagging.c.age).label("age"))
        self.is_unseen, self.seen, self.order = unseen, seen, order
        self.entries = entries
        self.entries_as_text = entries_as_text
        self.unseen_by = unseen_by
        self.cursor_values = cursor_values
        self.snapshot_values = snapshot_values


def _listed(name: str, kind: type[sa.types.TypeEngine[Any]]) -> sa.BindParameter[Any]:
    return sa.bindparam(name, expanding=True, type_=kind)


def with_snapshot(snapshot: Value, changes: sa.Select[Any]) -> sa.Select[Any]:
    """Returns the select of the snapshot and of these changes.

    ★ The snapshot and the rows are of one statement: with a later snapshot as the cursor, rows that were committed
    between the two would never be read. Where there are no rows there is still the snapshot.
    """
    tail, now = changes.subquery(), sa.select(snapshot.label("snapshot")).subquery()
    joined = now.outerjoin(tail, sa.true())
    return sa.select(now.c.snapshot, tail).select_from(joined).order_by(tail.c.position)


def _entry(transaction: Value) -> sa.Select[Any]:
    entry = sa.select(*_ENTRY, transaction.label("number"))
    # A row without a table is nobody's change, and must not count among the most that are read.
    return entry.limit(MOST_ENTRIES + 1).where(OF_THIS_HISTORY, LOG.c.table_name.is_not(None))


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


entries_from_json = msgspec.json.Decoder(list[Entry]).decode
"""Decodes the text of ``LogStatements.entries_as_text``."""


def entry_of(row: Values) -> Entry:
    """Returns the log entry in a row of ``LogStatements.entries``."""
    keys = row["old_key"], row["key"]
    return Entry(row["position"], row["number"], row["table_name"], row["kind"], *keys, row["version"])


class LogReader:
    """Reads the change log of a database, on the connections of the hinge.

    ``entity_of`` returns the mapped class of a table, by the table's name; None for a table without one. Methods that
    read raise ``DatabaseUnavailableError``; methods that return changes ``WiringError`` for such a table.
    """

    def __init__(self, database: Database, entity_of: Callable[[str], MappedEntity | None]) -> None:
        self._database = database
        self._entity_of = entity_of
        self._log = LOG_STATEMENTS[database.name]

    def view(self) -> contextlib.AbstractAsyncContextManager[View]:
        """Opens a view of the moment of its first statement. To be left soon: an open view holds VACUUM back."""
        return view_of(self._database)

    def moment(self) -> contextlib.AbstractAsyncContextManager[View]:
        """Opens a view for a few short statements, quickly. Raises ``NotAtOnceError`` where ``view`` is needed."""
        return moment_of(self._database)

    def single_view(self) -> contextlib.AbstractAsyncContextManager[View]:
        """Opens a view for one statement. A second one raises ``SecondStatementError``."""
        return single_view_of(self._database)

    async def changes(
        self,
        tables: Collection[str],
        cursor: Snapshot,
        limit: int,
        part: LogPart | None = None,
        view: View | None = None,
        *,
        skip: Container[int] = (),
    ) -> LogPart:
        """Returns the changes of these tables since ``cursor``, at most ``limit``, with their snapshot.

        With the ``part`` before: the changes after it, of the same snapshot. With a ``view``: the snapshot is that of
        the view. Changes at the positions ``skip`` are left out, unless a row has left its address.
        """
        entities = self._entities(tables)
        values = {"p_tables": sorted(entities), "p_limit": limit + 1, **self._log.cursor_values(cursor)}
        statement = self._log.first
        if part is not None:
            statement = self._log.following
            values |= {"p_last": part.last}
            values |= self._log.snapshot_values(part.snapshot)
        found = await self._found(statement, values, view)
        snapshot = Snapshot.parse(found[0]["snapshot"]) if part is None else part.snapshot
        logged = [row for row in found if row["position"] is not None]
        read = logged[:limit]
        # ★ A generation that has not ended with a gap was begun after it, and its rows were read after that.
        rows = (row for row in read if row["kind"] != GAP)
        told = [row for row in rows if row["position"] not in skip or _ends_an_address(row)]
        last = read[-1]["position"] if read else 0
        changes = self._decoded(told, entities)
        return LogPart(snapshot, changes, len(logged) > limit, last, len(read) - len(told))

    def identified(self, entries: Sequence[Entry]) -> list[Change]:
        """Returns these changes, of whose rows no more is known than the identifying columns."""
        logged = (
            {
                "table_name": entry.table,
                "kind": entry.kind,
                "old_key": entry.old_key,
                "key": entry.key,
                "image": None,
                "position": entry.position,
                "number": entry.transaction,
            }
            for entry in entries
        )
        return self._decoded(list(logged), self._entities({entry.table or "" for entry in entries}))

    async def logged(self, entries: Sequence[Entry]) -> list[Change]:
        """Returns these changes whole, in the order of positions, without changes forgotten by the log."""
        entities = self._entities({entry.table or "" for entry in entries})
        positions = {"p_positions": [entry.position for entry in entries]}
        async with self._reading() as connection:
            found = (await connection.execute(self._log.logged, positions)).mappings().all()
        return self._decoded(found, entities)

    async def last_position(self) -> int | None:
        """Returns the greatest position that any transaction has drawn, committed or not; None if SQL can't tell."""
        async with self._reading() as connection:
            found: int | None = await connection.scalar(
                sa.select(EXPRESSIONS[self._database.name].last_position)
            )
        return found

    async def _found(self, statement: sa.Select[Any], values: Values, view: View | None) -> list[RowMapping]:
        if view is not None:
            with translated_reading(self._database):
                return [row._mapping for row in await view.fetch(statement, values)]
        async with self._reading() as connection:
            return list((await connection.execute(statement, values)).mappings())

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        with translated_reading(self._database):
            async with self._database.keeper.connect() as connection:
                yield connection

    def _entities(self, tables: Collection[str]) -> dict[str, MappedEntity]:
        """Returns the mapped classes of these tables.

        Raises ``WiringError`` for a table without one: changes that are left out once would never be read.
        """
        found = {table: self._entity_of(table) for table in tables}
        unknown = sorted(table for table, entity in found.items() if entity is None)
        if unknown:
            raise WiringError([f"no mapped class of this process has the table {table}" for table in unknown])
        return {table: entity for table, entity in found.items() if entity is not None}

    def _decoded(
        self, logged: Collection[RowMapping | Values], entities: Mapping[str, MappedEntity]
    ) -> list[Change]:
        dialect = self._database.keeper.dialect
        return [_change_of(row, entities[row["table_name"]], dialect) for row in logged]


def _change_of(row: RowMapping | Values, entity: MappedEntity, dialect: sa.Dialect) -> Change:
    """Returns the change in a row of the log. Of a row blanked by retention, kind and position are left."""
    key = _image(entity, row["old_key"] or "{}")
    # An entry of keys alone has no image; nor has one that retention has blanked, whose key is empty.
    image = _image(entity, row["image"] or row["key"])
    if row["image"] is not None and not image.keys() >= set(entity.entry_columns):
        image = _image(entity, row["key"]) | image  # columns are left out of the images of this entity
    before, after = {
        "created": (None, image),
        "deleted": (key | image, None),
    }.get(row["kind"], (key, image))
    numbers = row["position"], row["number"]
    # An unknown kind tells no more than that the row at these addresses may have changed: it is read again.
    has_image = row["image"] is not None and row["kind"] in ("created", "updated", "deleted")
    return Change(entity.describe(dialect), before, after, *numbers, has_image=has_image)


def _image(entity: MappedEntity, text: str) -> dict[str, Any]:
    return entity.from_log(msgspec.json.decode(text))


def _ends_an_address(row: Values | RowMapping) -> bool:
    """Returns whether the change may have moved its row away from an address."""
    return bool(row["kind"] == "deleted" or (row["kind"] != "created" and row["old_key"] != row["key"]))
