"""What queries are answered with: documents, and the read models that say what is in them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from diptych import ReadModel, by, count, many, one, total
from examples.shop.models import Line, Order, Product, Role, State, Supplier, User


class SupplierName(Struct, frozen=True):
    """The supplier in the document of a product."""

    id: int
    name: str


class SupplierDocument(Struct, frozen=True):
    """A supplier, with the number of its products."""

    id: int
    name: str
    products: int


class ProductDocument(Struct, frozen=True):
    """A product with its supplier."""

    sku: str
    name: str
    price: Decimal
    stock: int
    supplier: SupplierName | None


class UserDocument(Struct, frozen=True):
    """A user with the names of the roles, and the number of orders that are not cancelled."""

    name: str
    full_name: str
    roles: list[str]
    orders: int


class UserName(Struct, frozen=True):
    """The user in the document of an order."""

    name: str
    full_name: str


class ProductName(Struct, frozen=True):
    """The product in a line of an order."""

    sku: str
    name: str


class LineDocument(Struct, frozen=True):
    """A line of an order; price and amount are those of the time when it was placed."""

    quantity: int
    price: Decimal
    amount: Decimal
    product: ProductName | None


class OrderDocument(Struct, frozen=True):
    """An order with its lines, their products and the exact total."""

    id: int
    state: State
    placed: datetime
    user: UserName | None
    lines: list[LineDocument]
    total: Decimal


class Suppliers(ReadModel[Supplier]):
    """A document for each supplier."""

    key = Supplier.id
    document = SupplierDocument
    nested = {"products": count(Supplier.products)}  # noqa: RUF012
    lists = (by(Supplier.name),)


class Products(ReadModel[Product]):
    """A document for each product."""

    key = Product.sku
    document = ProductDocument
    nested = {"supplier": one(Product.supplier)}  # noqa: RUF012
    lists = (
        by(Product.name, name="name"),
        by(Product.price, name="price"),
        by(Product.supplier_id, Product.name, name="supplier_name"),
        by(Product.supplier_id, Product.price, name="supplier_price"),
    )


class Users(ReadModel[User]):
    """A document for each user."""

    key = User.name
    document = UserDocument
    nested = {  # noqa: RUF012
        "roles": many(User.roles, Role.name, order=Role.name),
        "orders": count(User.orders, where=Order.state == State.PLACED),
    }
    lists = (by(User.name),)


class Orders(ReadModel[Order]):
    """A document for each order."""

    key = Order.id
    document = OrderDocument
    nested = {  # noqa: RUF012
        "user": one(Order.user),
        "lines": many(Order.lines, order=Line.number, nested={"product": one(Line.product)}),
        "total": total(Order.lines, Line.amount),
    }
    lists = (
        by(Order.placed.desc(), name="newest"),
        by(Order.state, Order.placed.desc(), name="state"),
        by(Order.user_name, Order.placed.desc(), name="user"),
        by(Order.user_name, Order.state, Order.placed.desc(), name="user_state"),
    )
