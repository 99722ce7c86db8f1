"""Orders and their lines."""

import sqlalchemy as sa
from alembic import op

from diptych import code_point_text

revision = "0002"
down_revision = "0001"

NEWEST = sa.text("placed DESC")


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_name", code_point_text(40), sa.ForeignKey("users.name"), nullable=False),
        sa.Column("state", sa.Enum("PLACED", "CANCELLED", native_enum=False, length=20), nullable=False),
        sa.Column("placed", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_orders_newest", "orders", [NEWEST, "id"])
    op.create_index("ix_orders_state", "orders", ["state", NEWEST, "id"])
    op.create_index("ix_orders_user", "orders", ["user_name", NEWEST, "id"])
    op.create_index("ix_orders_user_state", "orders", ["user_name", "state", NEWEST, "id"])
    amount = sa.Computed("quantity * price", persisted=True)
    op.create_table(
        "order_lines",
        sa.Column("order_id", sa.Integer, sa.ForeignKey("orders.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("sku", code_point_text(40), sa.ForeignKey("products.sku"), nullable=False, index=True),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("price", sa.Numeric(8, 2), nullable=False),
        sa.Column("amount", sa.Numeric(12, 2), amount, nullable=False),
    )


def downgrade() -> None:
    """Drops the tables."""
    op.drop_table("order_lines")
    op.drop_table("orders")
