"""Handlers of commands on orders. Each method is a transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

import sqlalchemy as sa

from diptych import Fault, InvalidMessage, ORMService
from diptych.http import HttpError
from examples.shop.messages import CancelOrder, Placed, PlaceOrder
from examples.shop.models import Line, Order, Product, State, User


class NotEnoughStock(HttpError):
    """There is less of a product than was ordered; nothing was changed."""

    status = 409

    def __init__(self, sku: str, wanted: int, stock: int) -> None:
        super().__init__(f"there are {stock} of {sku}, and {wanted} were ordered; nothing was ordered")
        self.sku, self.wanted, self.stock = sku, wanted, stock


class OrderCommands:
    """Places and cancels orders, and keeps the stock."""

    def __init__(self, orm: ORMService) -> None:
        self.orm = orm

    async def place(self, command: PlaceOrder) -> Placed:
        """Raises `InvalidMessage` without such a user or product, and `NotEnoughStock`."""
        products = await self._products(command)
        await self._take_out(command, products)
        order = await self.orm.create(Order, user_name=command.user, placed=datetime.now(UTC))
        prices = [(line, products[line.sku].price) for line in command.lines]
        await self.orm.create_all(
            Line,
            [
                {
                    "order_id": order.id,
                    "number": number,
                    "sku": line.sku,
                    "quantity": line.quantity,
                    "price": price,
                }
                for number, (line, price) in enumerate(prices, 1)
            ],
        )
        return Placed(order.id, sum((line.quantity * price for line, price in prices), Decimal()))

    async def _products(self, command: PlaceOrder) -> Mapping[str, Product]:
        faults = []
        if await self.orm.get(User, command.user) is None:
            faults.append(Fault("user", "is not the name of a user"))
        # In one order for all commands: two that lock the same products don't wait for each other.
        skus = sorted({line.sku for line in command.lines})
        found = {sku: await self.orm.get(Product, sku) for sku in skus}
        for number, line in enumerate(command.lines):
            if found[line.sku] is None:
                faults.append(Fault(f"lines.{number}.sku", "is not the sku of a product"))
        if faults:
            raise InvalidMessage("PlaceOrder", faults)
        return {sku: product for sku, product in found.items() if product is not None}

    async def _take_out(self, command: PlaceOrder, products: Mapping[str, Product]) -> None:
        wanted = Counter[str]()
        for line in command.lines:
            wanted[line.sku] += line.quantity
        for sku, product in products.items():
            if product.stock < wanted[sku]:
                raise NotEnoughStock(sku, wanted[sku], product.stock)
            # Of two commands that have read the same stock, one is run again: see docs/reference/commands.md.
            await self.orm.update(Product, sku, stock=product.stock - wanted[sku])

    async def cancel(self, command: CancelOrder) -> bool:
        """The result is False without such an order."""
        order = await self.orm.get(Order, command.id)
        if order is None or order.state is State.CANCELLED:
            return order is not None
        await self.orm.update(Order, command.id, state=State.CANCELLED)
        ordered = sa.select(Line.sku, Line.quantity).where(Line.order_id == command.id).order_by(Line.sku)
        for line in (await self.orm.execute(ordered)).all():
            product = await self.orm.get(Product, line.sku)
            if product is not None:
                await self.orm.update(Product, line.sku, stock=product.stock + line.quantity)
        return True
