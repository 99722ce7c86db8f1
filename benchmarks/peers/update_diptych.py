"""Raw ASGI and diptych: one change in a command, over a table that a read model is made of, without Redis."""

from __future__ import annotations

import os

import msgspec

from benchmarks.peers.asgi import Receive, Scope, Send, run_lifespan
from benchmarks.peers.update import Answer, Base, NewProduct, Product, serve
from diptych import Command, ConfigService, Diptych, ORMService, ReadModel


class SetStock(Command[Product | None]):
    name: str
    stock: int


class AddProduct(Command[Product]):
    name: str
    maker: str
    stock: int


class Stock:
    def __init__(self, orm_service: ORMService) -> None:
        self.orm_service = orm_service

    async def set(self, command: SetStock) -> Product | None:
        return await self.orm_service.update(
            Product, command.name, "name", return_instance=True, stock=command.stock
        )

    async def add(self, command: AddProduct) -> Product:
        return await self.orm_service.create(
            Product, name=command.name, maker=command.maker, stock=command.stock
        )


class ProductDocument(msgspec.Struct):
    id: int
    name: str
    maker: str
    stock: int


class ProductReadModel(ReadModel[Product]):
    key = Product.name
    document = ProductDocument


config = ConfigService(environ={}, database_url=os.environ["DATABASE_URL"])
diptych = Diptych(config, models=Base, handlers=[Stock], read_models=[ProductReadModel])


async def change(name: str, stock: int) -> Answer | None:
    found = await diptych.execute(SetStock(name, stock))
    if found is None:
        return None
    return Answer(found.id, found.name, found.maker, found.stock, getattr(found, "attributes", None))


async def add(new: NewProduct) -> Answer:
    made = await diptych.execute(AddProduct(new.name, new.maker, new.stock))
    return Answer(made.id, made.name, made.maker, made.stock)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await run_lifespan(receive, send, diptych.start, diptych.stop)
    else:
        await serve(scope, receive, send, change, add)
