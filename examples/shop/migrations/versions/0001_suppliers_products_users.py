"""Suppliers, products, users and roles."""

import sqlalchemy as sa
from alembic import op

from diptych import code_point_text

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "suppliers",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", code_point_text(100), nullable=False, unique=True),
    )
    op.create_table(
        "products",
        sa.Column("sku", code_point_text(40), primary_key=True),
        sa.Column("name", code_point_text(100), nullable=False),
        sa.Column("price", sa.Numeric(8, 2), nullable=False),
        sa.Column("stock", sa.Integer, nullable=False),
        sa.Column("supplier_id", sa.Integer, sa.ForeignKey("suppliers.id"), nullable=False),
        sa.CheckConstraint("stock >= 0", name="stock_is_not_negative"),
    )
    op.create_index("ix_products_name", "products", ["name", "sku"])
    op.create_index("ix_products_price", "products", ["price", "sku"])
    op.create_index("ix_products_supplier_name", "products", ["supplier_id", "name", "sku"])
    op.create_index("ix_products_supplier_price", "products", ["supplier_id", "price", "sku"])
    op.create_table(
        "users",
        sa.Column("name", code_point_text(40), primary_key=True),
        sa.Column("full_name", code_point_text(100), nullable=False),
    )
    op.create_table("roles", sa.Column("name", code_point_text(40), primary_key=True))
    user, role = (
        sa.ForeignKey("users.name", ondelete="CASCADE"),
        sa.ForeignKey("roles.name", ondelete="CASCADE"),
    )
    op.create_table(
        "user_roles",
        sa.Column("user_name", code_point_text(40), user, primary_key=True),
        sa.Column("role_name", code_point_text(40), role, primary_key=True),
    )
    op.create_index("ix_user_roles_role", "user_roles", ["role_name", "user_name"])


def downgrade() -> None:
    """Drops the tables."""
    for table in ("user_roles", "roles", "users", "products", "suppliers"):
        op.drop_table(table)
