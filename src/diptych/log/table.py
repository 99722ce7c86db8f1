"""The table of the change log: a row for each change, written in the change's own transaction and never altered.

The only exception is made at the application's request: rows and personal data may be kept for a limited time.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.types import UserDefinedType


class TransactionId(UserDefinedType[str]):
    """PostgreSQL's 64-bit transaction id, given by drivers as text."""

    cache_ok = True

    def get_col_spec(self, **_options: object) -> str:
        return "xid8"


METADATA = sa.MetaData()
"""Tables of diptych itself."""

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
"""Number of the transaction; PostgreSQL casts an ``xid8`` to a number only by way of text."""
