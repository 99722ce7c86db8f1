"""Statements of a unit of work, each run where it is quickest: on SQLite in the event loop, if it is short."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.aio.shielded import shielded
from diptych.sql.compiled import CompiledStatement
from diptych.sql.prepared import PreparedSelect
from diptych.sql.sqlite.connection import sqlite_under

Values = Mapping[str, Any]


async def select_few(
    connection: AsyncConnection, short: PreparedSelect, values: Values
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """The rows of a select that should be short."""
    sqlite = sqlite_under(connection)
    if sqlite is not None and short.may_run():
        try:
            with sqlite.in_the_loop(), sqlite.within_budget():
                rows = _sync(connection).execute(short.select, values).all()
        except DBAPIError as error:
            if getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
                raise
            short.mark_slow()
        else:
            short.mark_fast()
            return rows
    return (await execute(connection, short.select, values)).all()


def insert_here(
    connection: AsyncConnection,
    table: str,
    prepare: Callable[[sa.Dialect], CompiledStatement],
    values: Values,
) -> Sequence[Any] | None:
    """Inserts a row of the table in the event loop, past the engine, and returns it; None where it is not done."""
    sqlite = sqlite_under(connection)
    if sqlite is None or not sqlite.schema.is_quick("insert", table):
        return None
    (row,) = sqlite.fetch_here(prepare(connection.dialect), values)
    return row


async def change_row(
    connection: AsyncConnection,
    statement: sa.Executable,
    values: Values,
    *,
    kind: Literal["insert", "change"],
    table: str,
) -> sa.CursorResult[*tuple[Any, ...]]:
    """Inserts a row of the table, or changes or deletes the one that the statement finds by its key."""
    sqlite = sqlite_under(connection)
    if sqlite is not None and sqlite.schema.is_quick(kind, table):
        with sqlite.in_the_loop():
            return _sync(connection).execute(statement, values)
    return await execute(connection, statement, values)


async def execute(
    connection: AsyncConnection, statement: sa.Executable, values: Values | None = None
) -> sa.CursorResult[*tuple[Any, ...]]:
    """Like ``AsyncConnection.execute``, and on SQLite's writer to its end even if the caller is cancelled."""
    if sqlite_under(connection) is None:
        return await connection.execute(statement, values)
    # Cut off in the midst of it, SQLAlchemy would close the connection, and undo what other commands have done in the
    # same transaction.
    return await shielded(connection.execute(statement, values))


def _sync(connection: AsyncConnection) -> sa.Connection:
    return cast(sa.Connection, connection.sync_connection)  # as long as it is not closed
