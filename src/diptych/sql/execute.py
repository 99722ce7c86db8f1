"""Statements on the connection of a unit of work, each executed on the quickest way to its database.

Callers need not know the database: on SQLite short statements run in the event loop, and past the engine where it has
nothing to add; on PostgreSQL statements of direct types go to the driver.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoResultFound
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.aio.tasks import shielded
from diptych.sql.database import Values
from diptych.sql.entity import MappedEntity
from diptych.sql.postgres.driver import HOOKED, fetch_raw
from diptych.sql.sqlite.connection import sqlite_under
from diptych.sql.statements import PreparedSelect, PreparedWrite
from diptych.sql.view import View


async def fetch_few(
    connection: AsyncConnection, short: PreparedSelect, values: Values
) -> Sequence[Sequence[Any]]:
    """Returns the rows of a select expected to be short."""
    if short.is_direct and takes_raw_statements(connection):
        return await fetch_raw(connection, short.raw, values)
    sqlite = sqlite_under(connection)
    if sqlite is not None and short.may_run():
        compiled = short.compiled(connection.dialect)
        parameters = compiled.parameters(values)
        try:
            with sqlite.within_budget():
                rows = sqlite.fetch_here(compiled.text, parameters)
        except DBAPIError as error:
            if getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
                raise
            short.mark_slow()
        else:
            short.mark_fast()
            return compiled.loaded(rows)
    return (await execute(connection, short.select, values)).all()


Kind: TypeAlias = Literal["insert", "change"]
"""Kind of a write: whether rows may refer to the row by now."""


async def write(
    connection: AsyncConnection, kind: Kind, prepared: PreparedWrite, values: Values
) -> Sequence[Any]:
    """Writes a row and returns the columns returned by the statement. Raises ``NoResultFound`` without a row."""
    sqlite = sqlite_under(connection)
    if sqlite is not None and sqlite.schema.is_quick(kind, prepared.table):
        if prepared.inline:
            compiled = prepared.compiled(connection.dialect)
            return _one(compiled.loaded(sqlite.fetch_here(compiled.text, compiled.parameters(values))))
        with sqlite.in_the_loop():
            return _sync(connection).execute(prepared.statement, values).one()
    if prepared.raw is not None and takes_raw_statements(connection):
        return _one(await fetch_raw(connection, prepared.raw, values))
    return (await execute(connection, prepared.statement, values)).one()


def _one(rows: Sequence[Sequence[Any]]) -> Sequence[Any]:
    if not rows:
        raise NoResultFound("No row was found when one was required")
    return rows[0]


async def delete_row(
    connection: AsyncConnection, statement: sa.Executable, values: Values, table: str
) -> sa.CursorResult[*tuple[Any, ...]]:
    """Deletes the row of the table found by the statement."""
    sqlite = sqlite_under(connection)
    if sqlite is not None and sqlite.schema.is_quick("change", table):
        with sqlite.in_the_loop():
            return _sync(connection).execute(statement, values)
    return await execute(connection, statement, values)


async def execute(
    connection: AsyncConnection, statement: sa.Executable, values: Values | Sequence[Values] | None = None
) -> sa.CursorResult[*tuple[Any, ...]]:
    """Executes any statement like ``AsyncConnection.execute``; on SQLite's writer it can't be cut off."""
    if sqlite_under(connection) is None:
        return await connection.execute(statement, values)
    # Cut off in the midst of the statement, SQLAlchemy would close the connection, and undo the changes of other
    # commands in the same transaction.
    return await shielded(connection.execute(statement, values))


class CommandView(View):
    """The connection of a unit of work as a view: each statement sees the changes before it."""

    async def fetch(self, statement: sa.Select[Any], values: Values | None = None) -> Sequence[sa.Row[Any]]:
        """Returns the rows of a statement."""
        rows: Sequence[sa.Row[Any]] = (await execute(self._connection, statement, values)).all()
        return rows


def takes_raw_statements(connection: AsyncConnection) -> bool:
    """Returns whether ``fetch_raw`` can be used: the connection is PostgreSQL's, and its engine has no hooks."""
    sync = _sync(connection)
    return sync.dialect.name == "postgresql" and HOOKED not in sync.get_execution_options()


def _sync(connection: AsyncConnection) -> sa.Connection:
    return cast(sa.Connection, connection.sync_connection)  # as long as the connection is not closed


def is_logged_by_trigger(connection: AsyncConnection, kind: Kind, table: str) -> bool:
    """Returns whether a trigger has written the last entry of the change log, for this change.

    So on SQLite after a change of a captured row that does nothing else besides.
    """
    sqlite = sqlite_under(connection)
    return sqlite is not None and sqlite.schema.is_captured(table) and sqlite.schema.is_quick(kind, table)


def has_triggers(connection: AsyncConnection, entity: MappedEntity) -> bool:
    """Returns whether the database may have changed the row again after a statement, by a trigger."""
    sqlite = sqlite_under(connection)
    return entity.has_effects if sqlite is None else sqlite.schema.has_triggers(entity.table.name)
