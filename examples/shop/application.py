"""Tables, handlers and read models put together."""

from __future__ import annotations

from diptych import ConfigService, Diptych
from examples.shop.catalogue import CatalogueCommands
from examples.shop.models import Base
from examples.shop.orders import OrderCommands
from examples.shop.queries import CatalogueQueries, OrderQueries
from examples.shop.read_models import Orders, Products, Suppliers, Users
from examples.shop.users import UserCommands


def create_shop(config: ConfigService | None = None) -> Diptych:
    """Returns the shop, not yet started; `config` defaults to the settings of the environment."""
    return Diptych(
        config,
        models=Base,
        handlers=[CatalogueCommands, OrderCommands, UserCommands, CatalogueQueries, OrderQueries],
        read_models=[Suppliers, Products, Users, Orders],
    )
