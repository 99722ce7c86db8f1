"""The primary key of each entry's row as text, and the format of the triggers that each captured table has."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    # Null in entries of earlier versions of diptych, which may run beside this one.
    op.add_column("diptych_log", sa.Column("row_id", sa.Text))
    op.add_column("diptych_log", sa.Column("old_row_id", sa.Text))
    op.add_column("diptych_capture", sa.Column("format", sa.Integer, nullable=False, server_default="1"))
