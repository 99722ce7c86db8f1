"""The history of the log: its database and its clock."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    history = op.create_table(
        "diptych_history",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("database", sa.Text, nullable=False),
        sa.Column("first_position", sa.BigInteger, nullable=False),
        sa.Column("clock", sa.Text, nullable=False),
    )
    # Of no database yet: the process that starts adopts it.
    op.bulk_insert(history, [{"id": 1, "name": "", "database": "", "first_position": 1, "clock": ""}])
