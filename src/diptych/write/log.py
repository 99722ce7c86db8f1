"""The change log: one row a change, written in the change's own transaction, never altered.

The only exception is what the application asked for: rows and personal data that are kept for a limited time.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.ports import Change, CommandContext

IMAGE_FORMAT = 1
"""The format of ``image``, ``key`` and ``old_key``, written as ``version``; a domain event has one of its own."""

_metadata = sa.MetaData()

LOG = sa.Table(
    "diptych_log",
    _metadata,
    # The table is made and upgraded by the migrations; here are the columns that statements name.
    sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
    sa.Column("entity", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("old_key", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("image", sa.Text),
    sa.Column("command_id", sa.Text, nullable=False),
    sa.Column("correlation_id", sa.Text),
    sa.Column("actor", sa.Text),
    sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
)

_APPEND = sa.insert(LOG).returning(LOG.c.position)


async def append(
    connection: AsyncConnection,
    change: Change,
    identifying: Sequence[str],
    context: CommandContext,
) -> None:
    """Writes the log row of a change and sets the change's position.

    To be called right after the change, in its transaction: the position is drawn while the row is locked, so
    the positions of one row are in the order of its commits. ``identifying`` are the columns by which the row is
    known: the primary key and all that is unique.
    """
    values = {
        "entity": change.entity.name,
        "key": _json(_picked(change.image, identifying)),
        "old_key": _json(_picked(change.before, identifying)) if change.before is not None else None,
        "kind": change.kind,
        "version": IMAGE_FORMAT,
        "image": _json(change.image),
        "command_id": context.command_id,
        "correlation_id": context.correlation_id,
        "actor": context.actor,
        "recorded_at": datetime.datetime.now(datetime.UTC),
    }
    change.position = (await connection.execute(_APPEND, values)).scalar_one()


async def forget(
    connection: AsyncConnection,
    *,
    rows_before: datetime.datetime | None,
    data_before: datetime.datetime | None,
) -> tuple[int, int]:
    """Deletes rows recorded before a time, and blanks the personal data of those before another.

    Returns how many rows were deleted and how many blanked. A blanked row keeps its position, entity, kind,
    command and time; image, keys and actor are gone.
    """
    deleted = blanked = 0
    if rows_before is not None:
        result = await connection.execute(sa.delete(LOG).where(LOG.c.recorded_at < rows_before))
        deleted = result.rowcount
    if data_before is not None:
        old = sa.and_(LOG.c.recorded_at < data_before, LOG.c.image.is_not(None))
        blank = sa.update(LOG).where(old).values(key="{}", old_key=None, image=None, actor=None)
        blanked = (await connection.execute(blank)).rowcount
    return deleted, blanked


def _picked(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _json(value: Mapping[str, Any]) -> str:
    # What JSON has no word for (an application's own types) is kept as its text: the log is to be read by people.
    return msgspec.json.encode(value, enc_hook=str).decode()
