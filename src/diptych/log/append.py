"""Appending to the change log: the columns of a change's row, and the statement writing the row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.log.change import Change, CommandContext
from diptych.log.expressions import EXPRESSIONS, Expressions
from diptych.log.table import LOG
from diptych.sql import execute
from diptych.sql.entity import MappedEntity
from diptych.sql.statements import PreparedInsert

IMAGE_FORMAT = 1
"""Format of ``image``, ``key`` and ``old_key``, written as ``version``."""

BOUND_COLUMNS = [
    column.name for column in LOG.columns if column.name not in ("position", "transaction", "recorded_at")
]
"""Columns with values of the change; the others are made by the database."""


def _insert(expressions: Expressions) -> PreparedInsert:
    statement = sa.insert(LOG).values(recorded_at=expressions.recorded_at)
    return PreparedInsert(statement.returning(*expressions.appended), BOUND_COLUMNS, inline=True, raw=True)


_INSERTS = {database: _insert(expressions) for database, expressions in EXPRESSIONS.items()}


async def append(
    connection: AsyncConnection, entity: MappedEntity, change: Change, context: CommandContext
) -> None:
    """Writes the log row of a change and sets the change's position, transaction and snapshot.

    To be called right after the change, in its transaction: the position is drawn while the row is locked, so
    the positions of one row are in the order of its commits.
    """
    values = metadata_columns(entity, change.kind, change.before, context)
    values |= image_columns(entity, change.image)
    row = await execute.insert(connection, _INSERTS[connection.dialect.name], values)
    change.position, change.transaction, change.snapshot = row


def metadata_columns(
    entity: MappedEntity, kind: str, before: Mapping[str, Any] | None, context: CommandContext
) -> dict[str, Any]:
    """Returns the columns of a log row apart from the image: kind of the change, changed row, and command."""
    return {
        "entity": entity.name,
        "table_name": entity.full_name,
        "old_key": None if before is None else _json(_picked(before, entity.identifying)),
        "kind": kind,
        "version": IMAGE_FORMAT,
        "command_id": context.command_id,
        "correlation_id": context.correlation_id,
        "actor": context.actor,
    }


def image_columns(entity: MappedEntity, image: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the columns with the row after the change (or a deleted row's last state): its key and its image."""
    return {"key": _json(_picked(image, entity.identifying)), "image": _json(image)}


def _picked(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _json(value: Mapping[str, Any]) -> str:
    # A value that JSON can't express (of an application's own type) is logged as its text: people read the log. So
    # are a float's infinity and NaN, which would become null and be read back as null.
    plain = {
        name: str(v) if isinstance(v, float) and not math.isfinite(v) else v for name, v in value.items()
    }
    return msgspec.json.encode(plain, enc_hook=str).decode()
