"""The tables of the shop. The migrations make them."""

from __future__ import annotations

import enum
from datetime import datetime
from decimal import Decimal

from sqlalchemy import CheckConstraint, Column, Computed, DateTime, Enum, ForeignKey, Index, Numeric, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from diptych import code_point_text


class Base(DeclarativeBase):
    """The declarative base of the shop."""


class State(enum.Enum):
    """What has become of an order."""

    PLACED = "placed"
    CANCELLED = "cancelled"


class Supplier(Base):
    """Who delivers products."""

    __tablename__ = "suppliers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(100), unique=True)
    products: Mapped[list[Product]] = relationship(back_populates="supplier")


class Product(Base):
    """What is sold."""

    __tablename__ = "products"
    __table_args__ = (CheckConstraint("stock >= 0", name="stock_is_not_negative"),)

    sku: Mapped[str] = mapped_column(code_point_text(40), primary_key=True)
    name: Mapped[str] = mapped_column(code_point_text(100))
    price: Mapped[Decimal] = mapped_column(Numeric(8, 2))
    stock: Mapped[int]
    supplier_id: Mapped[int] = mapped_column(ForeignKey(Supplier.id))
    supplier: Mapped[Supplier] = relationship(back_populates="products")


user_roles = Table(
    "user_roles",
    Base.metadata,
    Column("user_name", ForeignKey("users.name", ondelete="CASCADE"), primary_key=True),
    Column("role_name", ForeignKey("roles.name", ondelete="CASCADE"), primary_key=True),
)
Index("ix_user_roles_role", user_roles.c.role_name, user_roles.c.user_name)


class Role(Base):
    """What users may be."""

    __tablename__ = "roles"

    name: Mapped[str] = mapped_column(code_point_text(40), primary_key=True)


class User(Base):
    """Who orders."""

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(code_point_text(40), primary_key=True)
    full_name: Mapped[str] = mapped_column(code_point_text(100))
    roles: Mapped[list[Role]] = relationship(secondary=user_roles, passive_deletes=True)
    orders: Mapped[list[Order]] = relationship(back_populates="user")


class Order(Base):
    """What a user has ordered."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_name: Mapped[str] = mapped_column(ForeignKey(User.name))
    state: Mapped[State] = mapped_column(Enum(State, native_enum=False, length=20), default=State.PLACED)
    placed: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    user: Mapped[User] = relationship(back_populates="orders")
    lines: Mapped[list[Line]] = relationship(back_populates="order")


class Line(Base):
    """A product in an order, with its price at that time. The database computes the amount."""

    __tablename__ = "order_lines"

    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(ForeignKey(Product.sku), index=True)
    quantity: Mapped[int]
    price: Mapped[Decimal] = mapped_column(Numeric(8, 2))
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2), Computed("quantity * price", persisted=True))
    order: Mapped[Order] = relationship(back_populates="lines")
    product: Mapped[Product] = relationship()


# One index for each list of the read models, for pages from SQL, as `diptych check` proposes them.
Index("ix_products_name", Product.name, Product.sku)
Index("ix_products_price", Product.price, Product.sku)
Index("ix_products_supplier_name", Product.supplier_id, Product.name, Product.sku)
Index("ix_products_supplier_price", Product.supplier_id, Product.price, Product.sku)
Index("ix_orders_newest", Order.placed.desc(), Order.id)
Index("ix_orders_state", Order.state, Order.placed.desc(), Order.id)
Index("ix_orders_user", Order.user_name, Order.placed.desc(), Order.id)
Index("ix_orders_user_state", Order.user_name, Order.state, Order.placed.desc(), Order.id)
