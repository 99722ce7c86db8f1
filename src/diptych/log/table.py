"""The change log: one row a change, written in the change's own transaction, never altered.

The only exception is what the application asked for: rows and personal data that are kept for a limited time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import UserDefinedType

from diptych.log.change import Change, CommandContext
from diptych.sql.compiled import CompiledStatement
from diptych.sql.entity import MappedEntity
from diptych.sql.execute import execute, insert_here
from diptych.sql.postgres.raw_statements import RawStatement

IMAGE_FORMAT = 1
"""The format of ``image``, ``key`` and ``old_key``, written as ``version``; a domain event has one of its own."""


class TransactionId(UserDefinedType[str]):
    """PostgreSQL's 64-bit transaction id, which drivers know as text."""

    cache_ok = True

    def get_col_spec(self, **_options: object) -> str:
        return "xid8"


METADATA = sa.MetaData()
"""The framework's own tables."""

LOG = sa.Table(
    "diptych_log",
    METADATA,
    # The table is made and upgraded by the migrations; here are the columns that statements name.
    sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
    sa.Column("transaction", TransactionId),
    sa.Column("table_name", sa.Text),
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

TRANSACTION = sa.cast(sa.cast(LOG.c.transaction, sa.Text), sa.BigInteger)
"""The transaction's number; nothing casts an ``xid8`` to a number at once."""

RECORDED_AT = sa.func.clock_timestamp()
"""When, by the clock of PostgreSQL's server: the log is forgotten by its age, and processes' clocks differ."""

# As the type of the column writes it.
_RECORDED_AT_HERE: sa.ColumnElement[str] = sa.literal_column("strftime('%Y-%m-%d %H:%M:%f000', 'now')")

# On SQLite transactions are one after the other: the position is a number for them too.
_APPEND = sa.insert(LOG).values(recorded_at=_RECORDED_AT_HERE).returning(LOG.c.position, LOG.c.position)

BOUND_COLUMNS = [
    column.name for column in LOG.columns if column.name not in ("position", "transaction", "recorded_at")
]
"""The columns that a change's log row is given; the others are the database's."""

TOLD = (
    LOG.c.position,
    TRANSACTION.label("number"),
    sa.cast(sa.func.pg_current_snapshot(), sa.Text).label("snapshot"),
)
"""What PostgreSQL tells of a row that was appended. Its transaction reads in one snapshot, this one."""

_APPEND_DIRECTLY = RawStatement(
    sa.insert(LOG).values(recorded_at=RECORDED_AT).returning(*TOLD), BOUND_COLUMNS
)


async def append(
    connection: AsyncConnection, entity: MappedEntity, change: Change, context: CommandContext
) -> None:
    """Writes the log row of a change and sets the change's position and transaction.

    To be called right after the change, in its transaction: the position is drawn while the row is locked, so
    the positions of one row are in the order of its commits.
    """
    values = metadata_columns(entity, change.kind, change.before, context) | image_columns(
        entity, change.image
    )
    written = insert_here(connection, LOG.name, _append_here, values)
    if written is None:
        if connection.dialect.name == "postgresql":
            (written,) = await _APPEND_DIRECTLY.fetch_within(connection, values)
            change.snapshot = written[2]
        else:
            written = (await execute(connection, _APPEND, values)).one()
    change.position, change.transaction = written[:2]


@functools.lru_cache(maxsize=16)
def _append_here(dialect: sa.Dialect) -> CompiledStatement:
    return CompiledStatement(_APPEND, dialect, [LOG.c.position.type] * 2, BOUND_COLUMNS)


def metadata_columns(
    entity: MappedEntity, kind: str, before: Mapping[str, Any] | None, context: CommandContext
) -> dict[str, Any]:
    """The columns of a log row that do not tell the row after the change: what was done to which row, and by whom."""
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
    """The columns that tell it (or, of a deleted one, its last state), and the columns by which it is known."""
    return {"key": _json(_picked(image, entity.identifying)), "image": _json(image)}


def _picked(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _json(value: Mapping[str, Any]) -> str:
    # What JSON has no word for (an application's own types) is kept as its text: the log is to be read by people.
    # So are a float's infinity and NaN, which would become null and be read back as such.
    plain = {
        name: str(v) if isinstance(v, float) and not math.isfinite(v) else v for name, v in value.items()
    }
    return msgspec.json.encode(plain, enc_hook=str).decode()
