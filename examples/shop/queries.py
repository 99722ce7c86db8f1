"""Handlers of queries."""

from __future__ import annotations

from typing import Any

from diptych import Document, Fault, InvalidMessage, Page, between, starts_with
from examples.shop.messages import (
    GetOrder,
    GetProduct,
    GetSupplier,
    GetUser,
    ListOrders,
    ListProducts,
    ListSuppliers,
    ListUsers,
)
from examples.shop.models import State
from examples.shop.read_models import (
    OrderDocument,
    Orders,
    ProductDocument,
    Products,
    SupplierDocument,
    Suppliers,
    UserDocument,
    Users,
)


class CatalogueQueries:
    """Answers with suppliers and products."""

    def __init__(self, suppliers: Suppliers, products: Products) -> None:
        self.suppliers, self.products = suppliers, products

    async def get_supplier(self, query: GetSupplier) -> Document[SupplierDocument]:
        """One supplier."""
        return await self.suppliers.get(query.id)

    async def list_suppliers(self, query: ListSuppliers) -> Page[SupplierDocument]:
        """A page of suppliers."""
        return await self.suppliers.page(**_turned(query))

    async def get_product(self, query: GetProduct) -> Document[ProductDocument]:
        """One product."""
        return await self.products.get(query.sku)

    async def list_products(self, query: ListProducts) -> Page[ProductDocument]:
        """A page of products. Raises `InvalidMessage` for a filter that does not go with the order."""
        where: dict[str, Any] = {} if query.supplier is None else {"supplier_id": query.supplier}
        name = query.sort if query.supplier is None else f"supplier_{query.sort}"
        others = ("price_from", "price_to") if query.sort == "name" else ("name",)
        faults = [
            Fault(other, f"can't be asked for together with sort={query.sort}")
            for other in others
            if getattr(query, other) is not None
        ]
        if faults:
            raise InvalidMessage("ListProducts", faults)
        if query.name is not None:
            where["name"] = starts_with(query.name)
        if query.price_from is not None or query.price_to is not None:
            where["price"] = between(query.price_from, query.price_to)
        return await self.products.page(name, where=where or None, **_turned(query))


class OrderQueries:
    """Answers with orders and users."""

    def __init__(self, orders: Orders, users: Users) -> None:
        self.orders, self.users = orders, users

    async def get_order(self, query: GetOrder) -> Document[OrderDocument]:
        """One order."""
        return await self.orders.get(query.id)

    async def list_orders(self, query: ListOrders) -> Page[OrderDocument]:
        """A page of orders."""
        asked = {"user": query.user, "state": query.state}
        name = "_".join(name for name, value in asked.items() if value is not None) or "newest"
        where: dict[str, Any] = {} if query.user is None else {"user_name": query.user}
        if query.state is not None:
            where["state"] = State(query.state)
        return await self.orders.page(name, where=where or None, **_turned(query))

    async def get_user(self, query: GetUser) -> Document[UserDocument]:
        """One user."""
        return await self.users.get(query.name)

    async def list_users(self, query: ListUsers) -> Page[UserDocument]:
        """A page of users."""
        return await self.users.page(**_turned(query))


def _turned(query: ListSuppliers | ListProducts | ListOrders | ListUsers) -> dict[str, Any]:
    """Returns what a query says of the page itself."""
    return {"limit": query.limit, "after": query.after, "before": query.before, "count": query.count}
