"""The fence, and columns for passes over the change log."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "diptych_fence",
        sa.Column("read_model", sa.Text, primary_key=True),
        sa.Column("declaration", sa.Text, primary_key=True),
        sa.Column("tables", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False, server_default=""),
        sa.Column("replication_id", sa.Text, nullable=False, server_default=""),
        sa.Column("generation", sa.Text, nullable=False, server_default=""),
        sa.Column("ready", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("lease_until", sa.Double, nullable=False, server_default="0"),
        sa.Column("building_until", sa.Double, nullable=False, server_default="0"),
        sa.Column("cursor", sa.Text),
        sa.Column("cursor_stamp", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("passes_started", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("passes_completed", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("database", sa.Text, nullable=False, server_default=""),
    )
    op.add_column("diptych_log", sa.Column("table_name", sa.Text))
    if op.get_context().dialect.name == "postgresql":
        op.create_index("diptych_log_transaction", "diptych_log", ["transaction"])
