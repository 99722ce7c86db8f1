"""Entries of the change log, written in the transaction of their changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.log import GAP, IMAGE_FORMAT, KEY_FORMAT, Change, CommandContext
from diptych.log.row_id import row_id
from diptych.log.table import EXPRESSIONS, LOG, Expressions, Value
from diptych.sql import execute
from diptych.sql.entity import MappedEntity
from diptych.sql.statements import PreparedWrite

BOUND_COLUMNS = [
    column.name for column in LOG.columns if column.name not in ("position", "transaction", "recorded_at")
]
"""Columns of a new row with values of the change, from ``row_values``; the others are made by the database."""


def _insert(expressions: Expressions) -> PreparedWrite:
    statement = sa.insert(LOG).values(recorded_at=expressions.recorded_at)
    return PreparedWrite(statement.returning(*expressions.appended), BOUND_COLUMNS, inline=True, raw=True)


def _completion() -> PreparedWrite:
    """Returns the statement that completes the last entry of a trigger with values that only the command knows."""
    sequence = sa.table("sqlite_sequence", sa.column("name", sa.Text), sa.column("seq", sa.BigInteger))
    last = sa.select(sequence.c.seq).where(sequence.c.name == LOG.name).scalar_subquery()
    statement = sa.update(LOG).where(LOG.c.position == last)
    return PreparedWrite(statement.returning(*EXPRESSIONS["sqlite"].appended), BOUND_COLUMNS, inline=True)


_COMPLETION = _completion()
_INSERTS = {database: _insert(expressions) for database, expressions in EXPRESSIONS.items()}


async def append(
    connection: AsyncConnection, entity: MappedEntity, change: Change, context: CommandContext
) -> Change:
    """Writes the log row of a change. Returns the change with its position, transaction and snapshot.

    To be called right after the change, in its transaction: the position is drawn while the row is locked, so
    the positions of one row are in the order of its commits.
    """
    values = row_values(entity, change.kind, change.before, change.image, context)
    kind: execute.Kind = "insert" if change.before is None else "change"
    # On SQLite, where triggers can't tell diptych's own statements, the entry is there already.
    is_there = execute.is_logged_by_trigger(connection, kind, entity.table.name)
    prepared = _COMPLETION if is_there else _INSERTS[connection.dialect.name]
    row = await execute.write(connection, "insert", prepared, values)
    change.position, change.transaction, change.snapshot = row
    return change


async def append_all(
    connection: AsyncConnection, entity: MappedEntity, changes: Sequence[Change], context: CommandContext
) -> list[Change]:
    """Writes the log rows of many changes on PostgreSQL, right after the changes, as ``append`` does for one."""
    expressions = EXPRESSIONS["postgresql"]
    statement = sa.insert(LOG).values(recorded_at=expressions.recorded_at)
    statement = statement.returning(*expressions.appended, sort_by_parameter_order=True)
    values = [row_values(entity, each.kind, each.before, each.image, context) for each in changes]
    rows = await execute.execute(connection, statement, values)
    for change, row in zip(changes, rows.all(), strict=True):
        change.position, change.transaction, change.snapshot = row
    return list(changes)


def append_in_statement(changed: sa.FromClause, made: Mapping[str, sa.ColumnElement[str]]) -> sa.CTE:
    """Returns PostgreSQL's insert of the log row for a row ``changed`` by the same statement.

    Values of columns not ``made`` by the statement are parameters of their columns' names: see ``row_values``.
    """
    values: dict[str, Value] = {
        name: made.get(name, sa.bindparam(name, type_=LOG.c[name].type)) for name in BOUND_COLUMNS
    }
    expressions = EXPRESSIONS["postgresql"]
    values["recorded_at"] = expressions.recorded_at
    # ★ The position is drawn for a row returned by the change, so while that row is locked: the positions of one row
    # are in the order of its commits.
    rows = sa.select(*values.values()).select_from(changed)
    appended = sa.insert(LOG).from_select(list(values), rows, include_defaults=False)
    return appended.returning(*expressions.appended).cte("diptych_logged")


def row_values(
    entity: MappedEntity,
    kind: str,
    before: Mapping[str, Any] | None,
    image: Mapping[str, Any] | None,
    context: CommandContext,
) -> dict[str, Any]:
    """Returns the values of ``BOUND_COLUMNS`` for a change.

    ``image`` is the row after the change, or a deleted row's last state. Without it the statement makes ``key``,
    ``image`` and ``row_id`` itself.
    """
    values = {
        "entity": entity.name,
        "table_name": entity.full_name,
        "old_key": None if before is None else _json(_picked(before, entity.entry_columns)),
        "kind": kind,
        "version": IMAGE_FORMAT if entity.image_columns else KEY_FORMAT,
        "image": None,
        "command_id": context.command_id,
        "correlation_id": context.correlation_id,
        "actor": context.actor,
        "row_id": None,
        "old_row_id": None,
    }
    if image is not None:
        values["row_id"] = row_id(entity.row_id, image)
        if before is not None and (old := row_id(entity.row_id, before)) != values["row_id"]:
            values["old_row_id"] = old
        values["key"] = _json(_picked(image, entity.entry_columns))
        if entity.image_columns:
            values["image"] = _json(_picked(image, entity.image_columns))
    return values


def gap_entries(database: str, tables: Mapping[str, str]) -> sa.Insert:
    """Returns the insertion of an entry of kind ``gap`` for each of these tables, with their entities' names."""
    values = {"key": "{}", "old_key": "{}", "kind": GAP, "version": KEY_FORMAT, "command_id": ""}
    recorded_at = EXPRESSIONS[database].recorded_at
    rows = [{"table_name": table, "entity": entity} for table, entity in sorted(tables.items())]
    return sa.insert(LOG).values([{**values, **row, "recorded_at": recorded_at} for row in rows])


def _picked(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _json(value: Mapping[str, Any]) -> str:
    # A value that JSON can't express (of an application's own type) is logged as its text: people read the log. So
    # are a float's infinity and NaN, which would become null and be read back as null.
    plain = {
        name: str(v) if isinstance(v, float) and not math.isfinite(v) else v for name, v in value.items()
    }
    return msgspec.json.encode(plain, enc_hook=str).decode()


# Entries of triggers, which name their command


def naming(context: CommandContext) -> dict[str, str]:
    """Returns the settings of a transaction on PostgreSQL by which triggers name the command in their entries."""
    values = {"command": context.command_id, "correlation": context.correlation_id, "actor": context.actor}
    return {f"diptych.{name}": value for name, value in values.items() if value}


async def position_before(connection: AsyncConnection) -> int:
    """Returns the position after which ``name_entries`` names the command: triggers of SQLite know of no command."""
    if connection.dialect.name != "sqlite":
        return 0
    return int((await execute.execute(connection, _LAST_POSITION)).scalar_one())


async def name_entries(connection: AsyncConnection, after: int, context: CommandContext) -> None:
    """Names the command in the entries that triggers of SQLite have written after a position."""
    if connection.dialect.name == "sqlite":
        named = sa.update(LOG).where(LOG.c.position > after, LOG.c.command_id == "")
        values = {"command_id": context.command_id, "correlation_id": context.correlation_id}
        await execute.execute(connection, named.values(**values, actor=context.actor))


_LAST_POSITION = sa.select(sa.func.coalesce(sa.func.max(LOG.c.position), 0))
