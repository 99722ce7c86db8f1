"""Handlers of commands on suppliers and products. Each method is a transaction."""

from __future__ import annotations

from msgspec import UNSET
from msgspec.structs import asdict

from diptych import Fault, InvalidMessage, ORMService
from examples.shop.messages import Added, AddProduct, AddSupplier, ChangeProduct, RenameSupplier
from examples.shop.models import Product, Supplier


class CatalogueCommands:
    """Changes suppliers and products."""

    def __init__(self, orm: ORMService) -> None:
        self.orm = orm

    async def add_supplier(self, command: AddSupplier) -> Added:
        """The result is the id of the supplier."""
        return Added((await self.orm.create(Supplier, name=command.name)).id)

    async def rename_supplier(self, command: RenameSupplier) -> bool:
        """The result is False without such a supplier."""
        return await self.orm.update(Supplier, command.id, name=command.changes.name)

    async def add_product(self, command: AddProduct) -> bool:
        """Raises `InvalidMessage` without such a supplier, and `DuplicateError`."""
        await self._check_supplier(command.supplier_id, "AddProduct", "supplier_id")
        await self.orm.create(Product, **asdict(command))
        return True

    async def change_product(self, command: ChangeProduct) -> bool:
        """The result is False without such a product. Raises `InvalidMessage` without such a supplier."""
        changes = {name: value for name, value in asdict(command.changes).items() if value is not UNSET}
        if not await self.orm.update(Product, command.sku, **changes):
            return False
        if command.changes.supplier_id is not UNSET:
            await self._check_supplier(command.changes.supplier_id, "ChangeProduct", "changes.supplier_id")
        return True

    async def _check_supplier(self, supplier_id: int, message: str, field: str) -> None:
        if await self.orm.get(Supplier, supplier_id) is None:
            raise InvalidMessage(message, [Fault(field, "is not the id of a supplier")])
