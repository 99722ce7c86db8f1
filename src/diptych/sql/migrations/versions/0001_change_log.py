"""The change log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import UserDefinedType

revision = "0001"
down_revision = None


class _TransactionId(UserDefinedType[str]):
    """PostgreSQL's 64-bit transaction id; never wraps around."""

    cache_ok = True

    def get_col_spec(self, **_options: object) -> str:
        return "xid8"


def upgrade() -> None:
    is_postgres = op.get_context().dialect.name == "postgresql"
    position = (
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), primary_key=True)
        if is_postgres
        # AUTOINCREMENT: the position of a deleted row must never be drawn again.
        else sa.Column("position", sa.Integer, primary_key=True, autoincrement=True)
    )
    transaction = (
        sa.Column(
            "transaction", _TransactionId, server_default=sa.text("pg_current_xact_id()"), nullable=False
        )
        if is_postgres
        else sa.Column("transaction", sa.BigInteger)  # SQLite orders transactions by position
    )
    op.create_table(
        "diptych_log",
        position,
        transaction,
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
        sqlite_autoincrement=True,
    )
