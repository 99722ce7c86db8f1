"""Reading of the change log by passes and by the ends of commands."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Container, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import WiringError
from diptych.fence.contract import Entry, FenceRow
from diptych.log.change import Change, LogPart
from diptych.log.reading import LOG_STATEMENTS
from diptych.log.snapshot import EVERYTHING, Snapshot
from diptych.sql.database import Database, Values
from diptych.sql.entity import MappedEntity
from diptych.sql.failures import translated_reading
from diptych.sql.view import View, view_of


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
        told = [row for row in read if row["position"] not in skip or _ends_an_address(row)]
        last = read[-1]["position"] if read else 0
        changes = self._decoded(told, entities)
        return LogPart(snapshot, changes, len(logged) > limit, last, len(read) - len(told))

    async def has_unseen(self, row: FenceRow, position: int | None) -> bool:
        """Returns whether the row's cursor lacks a change of the row's tables, up to this position."""
        if row.cursor is None:
            return True
        values = {"p_tables": sorted(row.tables), "p_position": position or EVERYTHING.xmax}
        async with self._reading() as connection:
            found = await connection.execute(
                self._log.unseen, {**values, **self._log.cursor_values(row.cursor)}
            )
            return found.first() is not None

    def identified(self, entries: Sequence[Entry]) -> list[Change]:
        """Returns these changes, of whose rows no more is known than the identifying columns."""
        logged = (
            {"table_name": e.table, "kind": e.kind, "old_key": e.old_key, "image": e.key, **_numbered(e)}
            for e in entries
        )
        return self._decoded(list(logged), self._entities({entry.table or "" for entry in entries}))

    async def logged(self, entries: Sequence[Entry]) -> list[Change]:
        """Returns these changes whole, in the order of positions, without changes forgotten by the log."""
        entities = self._entities({entry.table or "" for entry in entries})
        positions = {"p_positions": [entry.position for entry in entries]}
        async with self._reading() as connection:
            found = (await connection.execute(self._log.logged, positions)).mappings().all()
        return self._decoded(found, entities)

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
    image = _image(entity, row["image"] or "{}")
    before, after = {
        "created": (None, image),
        "deleted": (key | image, None),
    }.get(row["kind"], (key, image))
    return Change(entity.describe(dialect), before, after, row["position"], row["number"])


def _image(entity: MappedEntity, text: str) -> dict[str, Any]:
    return entity.from_log(msgspec.json.decode(text))


def _ends_an_address(row: Values | RowMapping) -> bool:
    """Returns whether the change may have moved its row away from an address."""
    return bool(row["kind"] == "deleted" or (row["kind"] != "created" and row["old_key"] != row["key"]))


def _numbered(entry: Entry) -> dict[str, int]:
    return {"position": entry.position, "number": entry.transaction}
