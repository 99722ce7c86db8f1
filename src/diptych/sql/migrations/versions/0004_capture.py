"""Capture: the tables whose changes triggers log, and the token by which they know statements of ORMService."""

import sqlalchemy as sa
from alembic import context, op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "diptych_capture",
        sa.Column("table_name", sa.Text, primary_key=True),
        sa.Column("columns", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
    )
    token = context.config.attributes["token"]
    op.add_column("diptych_history", sa.Column("token", sa.Text, nullable=False, server_default=token))
    if op.get_context().dialect.name == "postgresql":
        # A backlog is read in the order of the positions, the smallest unseen ones first.
        op.create_index("diptych_log_unseen", "diptych_log", ["transaction", "position"])
        op.drop_index("diptych_log_transaction", "diptych_log")
