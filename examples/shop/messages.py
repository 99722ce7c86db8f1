"""Commands and queries of the shop."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from diptych import Command, Document, Page, Query
from examples.shop.fields import Id, Limit, Name, Price, Quantity, Roles, Sku, Stock, Title
from examples.shop.read_models import OrderDocument, ProductDocument, SupplierDocument, UserDocument


class Added(Struct, frozen=True):
    """The id of what was added."""

    id: int


class AddSupplier(Command[Added]):
    """Adds a supplier."""

    name: Title


class NewName(Struct, frozen=True):
    """Another name."""

    name: Title


class RenameSupplier(Command[bool]):
    """Gives a supplier another name, in all of its products."""

    id: Id
    changes: NewName


class AddProduct(Command[bool]):
    """Adds a product of a supplier."""

    sku: Sku
    name: Title
    price: Price
    supplier_id: Id
    stock: Stock = 0


class ProductChanges(Struct, frozen=True):
    """New values for fields of a product; fields left out stay as before."""

    name: Title | UnsetType = UNSET
    price: Price | UnsetType = UNSET
    supplier_id: Id | UnsetType = UNSET
    stock: Stock | UnsetType = UNSET


class ChangeProduct(Command[bool]):
    """Changes a product. Orders that were placed keep their prices."""

    sku: str
    changes: ProductChanges


class NewLine(Struct, frozen=True):
    """How many of which product are ordered."""

    sku: Sku
    quantity: Quantity


class Placed(Struct, frozen=True):
    """The id of a new order, and what it costs."""

    id: int
    total: Decimal


class PlaceOrder(Command[Placed]):
    """Places an order, and takes its products out of the stock.

    409 if there is not enough of a product: then nothing is ordered.
    """

    user: Name
    lines: Annotated[list[NewLine], Meta(min_length=1, max_length=50)]


class CancelOrder(Command[bool]):
    """Cancels an order, and puts its products back into the stock. An order that is cancelled stays so."""

    id: Id


class AddUser(Command[bool]):
    """Adds a user, without roles."""

    name: Name
    full_name: Title


class NewRoles(Struct, frozen=True):
    """The names of roles."""

    roles: Roles


class SetRoles(Command[bool]):
    """Gives a user these roles and no others."""

    name: str
    changes: NewRoles


class GetSupplier(Query[Document[SupplierDocument]]):
    """Asks for a supplier."""

    id: Id


class ListSuppliers(Query[Page[SupplierDocument]]):
    """Asks for a page of the suppliers, by name."""

    limit: Limit = 20
    after: str | None = None
    before: str | None = None
    count: bool = False


class GetProduct(Query[Document[ProductDocument]]):
    """Asks for a product."""

    sku: str


class ListProducts(Query[Page[ProductDocument]]):
    """Asks for a page of the products, of all suppliers or of one.

    `name` is the beginning of a name, for products sorted by name; `price_from` and `price_to` are for products
    sorted by price.
    """

    limit: Limit = 20
    after: str | None = None
    before: str | None = None
    supplier: Id | None = None
    sort: Literal["name", "price"] = "name"
    name: str | None = None
    price_from: Price | None = None
    price_to: Price | None = None
    count: bool = False


class GetUser(Query[Document[UserDocument]]):
    """Asks for a user."""

    name: str


class ListUsers(Query[Page[UserDocument]]):
    """Asks for a page of the users, by name."""

    limit: Limit = 20
    after: str | None = None
    before: str | None = None
    count: bool = False


class GetOrder(Query[Document[OrderDocument]]):
    """Asks for an order."""

    id: Id


class ListOrders(Query[Page[OrderDocument]]):
    """Asks for a page of the orders, the newest first, of all users or of one."""

    limit: Limit = 20
    after: str | None = None
    before: str | None = None
    user: str | None = None
    state: Literal["placed", "cancelled"] | None = None
    count: bool = False
