"""An application whose rows may be such that they fit no document, and what is done to them."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import (
    Command,
    ConfigService,
    Diptych,
    Document,
    ORMService,
    Page,
    Query,
    ReadModel,
    UnreadableRowError,
    by,
    code_point_text,
    join,
)
from diptych.health import ReadModelHealth
from tests.catalogue import answered_by
from tests.configuration import PATIENT_REDIS


class Base(DeclarativeBase):
    pass


class Kind(enum.Enum):
    LAMP = "lamp"
    CHAIR = "chair"


class Opaque:
    """What JSON has no word for."""


class Note(sa.types.TypeDecorator[Any]):
    """Text that may be loaded as something else."""

    impl = sa.Text
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        if value == "raises":
            raise RuntimeError("a secret of the row")
        return Opaque() if value == "object" else value


class Maker(Base):
    __tablename__ = "makers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.Text)


class Product(Base):
    __tablename__ = "products"

    id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(code_point_text(40), unique=True)
    name: Mapped[str] = mapped_column(sa.Text, default="x")
    kind: Mapped[str] = mapped_column(sa.Text, default="lamp")
    size: Mapped[str] = mapped_column(
        sa.Enum("small", "large", native_enum=False, create_constraint=False, length=40), default="small"
    )
    details: Mapped[Any] = mapped_column(sa.JSON, default=lambda: {"weight": 1})
    note: Mapped[Any] = mapped_column(Note, default="x")
    made: Mapped[datetime.date] = mapped_column(default=datetime.date(2024, 1, 2))
    tried: Mapped[datetime.datetime | None]
    maker_id: Mapped[int | None]


class Details(msgspec.Struct):
    weight: int


class ProductDocument(msgspec.Struct):
    sku: str
    name: Annotated[str, msgspec.Meta(max_length=10)]
    kind: Kind
    size: str
    details: Details
    note: Any
    made: datetime.date
    tried: datetime.datetime | None


class Products(ReadModel[Product]):
    key = Product.sku
    document = ProductDocument
    lists = (by(Product.sku), by(Product.made))


class MadeDocument(msgspec.Struct):
    sku: str
    maker: Annotated[str, msgspec.Meta(max_length=10)] | None
    name: Annotated[str, msgspec.Meta(max_length=10)]


class Made(ReadModel[Product]):
    """Joined, and with a list in the order of a column that its documents do not have."""

    key = Product.sku
    document = MadeDocument
    lists = (by(Product.made),)
    joined: ClassVar = {"maker": join(Maker.name, Product.maker_id, Maker.id)}


class Add(Command[None]):
    sku: str
    fields: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Change(Command[bool]):
    sku: str
    fields: Mapping[str, Any]


class Remove(Command[bool]):
    sku: str


class AddMaker(Command[int]):
    name: str


class NameMaker(Command[bool]):
    id: int
    name: str


class Get(Query[Document[Any]]):
    sku: str


class List(Query[Page[Any]]):
    limit: int = 50
    after: str | None = None


class Commands:
    def __init__(self, orm: ORMService) -> None:
        self.orm = orm

    async def add(self, command: Add) -> None:
        await self.orm.create(Product, sku=command.sku, **command.fields)

    async def change(self, command: Change) -> bool:
        return await self.orm.update(Product, command.sku, "sku", **command.fields)

    async def remove(self, command: Remove) -> bool:
        return await self.orm.delete(Product, command.sku, "sku")

    async def add_maker(self, command: AddMaker) -> int:
        return (await self.orm.create(Maker, name=command.name)).id

    async def name_maker(self, command: NameMaker) -> bool:
        return await self.orm.update(Maker, command.id, name=command.name)


class PlainQueries:
    def __init__(self, products: Products) -> None:
        self.models: list[ReadModel[Any]] = [products]

    async def get(self, query: Get) -> Document[Any]:
        return await self.models[0].get(query.sku)

    async def list(self, query: List) -> Page[Any]:
        return await self.models[0].page(limit=query.limit, after=query.after)


class Queries(PlainQueries):
    def __init__(self, products: Products, made: Made) -> None:
        self.models = [products, made]


class Cause(NamedTuple):
    """Raw SQL by which a row comes not to fit, and the field that it is."""

    field: str
    sqlite: str
    postgresql: str

    def of(self, database_url: str) -> str:
        return self.sqlite if database_url.startswith("sqlite") else self.postgresql


CAUSES = {
    "too long": Cause("name", *["name = 'longer than ten'"] * 2),
    "a JSON column without a field": Cause("details", *["details = '{\"height\": 1}'"] * 2),
    "JSON null": Cause("details", *["details = 'null'"] * 2),
    "unknown to the document's enum": Cause("kind", *["kind = 'table'"] * 2),
    "unknown to the column's enum": Cause("size", *["size = 'huge'"] * 2),
    "a type that returns an object": Cause("note", *["note = 'object'"] * 2),
    "a type that raises": Cause("note", *["note = 'raises'"] * 2),
    "a moment that Python can't have": Cause("tried", "tried = 'then'", "tried = '0044-03-15 10:00 BC'"),
    "an order value that Python can't have": Cause("made", "made = 'then'", "made = '0044-03-15 BC'"),
}

GOOD = (
    "name = 'x', kind = 'lamp', size = 'small', details = '{\"weight\": 1}', note = 'x', "
    "made = '2024-01-02', tried = NULL"
)
"""What mends a row, whatever the cause."""

NO_PLACE = "an order value that Python can't have"
"""The cause that leaves a row without a place in a list."""


def shop(database_url: str, redis_url: str | None = None, *, joined: bool = True, **settings: Any) -> Diptych:
    """The application, with its joined read model or without. A busy machine does not let its lease run out."""
    values: dict[str, Any] = {
        **PATIENT_REDIS,
        "redis_probe_interval_ms": 20,
        "lease_ms": 10_000,
    }
    values |= {"database_url": database_url, "redis_url": redis_url, **settings}
    return Diptych(
        ConfigService(environ={}, **values),
        models=Base,
        handlers=[Commands, Queries if joined else PlainQueries],
        read_models=[Products, Made] if joined else [Products],
    )


def read_models(app: Diptych, query: type[Query[Any]] = Get) -> list[ReadModel[Any]]:
    """The plain one, and the joined one if there is, as the application's own handler has them."""
    return app._run.bus.handler_of(query).__self__.models  # type: ignore[no-any-return,attr-defined]


async def health_of(app: Diptych) -> ReadModelHealth:
    """Of the plain read model."""
    return (await app.health()).read_models["Products"]


async def write_raw(app: Diptych, *statements: str) -> None:
    """Changes rows past diptych."""
    async with app.orm.database.writer.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


async def rebuild(app: Diptych) -> None:
    """Brings in what was written so."""
    for model in app.read_models:
        await app.rebuild(model)
    await answered_by(app, "redis")


class Walk(NamedTuple):
    """A list paged through: each page's body and how many it leaves out."""

    pages: list[tuple[bytes, int]]
    stores: set[str]

    @property
    def skus(self) -> list[str]:
        return [item["sku"] for body, _ in self.pages for item in msgspec.json.decode(body)["items"]]

    @property
    def set_aside(self) -> int:
        return sum(count for _, count in self.pages)


async def walk(model: ReadModel[Any], order: Any = None, limit: int = 2) -> Walk:
    """Pages through a list, to its end."""
    found: list[tuple[bytes, int]] = []
    stores: set[str] = set()
    after = None
    while True:
        page = await model.page(order, limit=limit, after=after)
        found.append((page.body, page.set_aside))
        stores.add(page.served.store)
        after = page.decode().next
        if after is None:
            return Walk(found, stores)
        assert len(found) < 100, "it comes to no end"


async def looked_up(model: ReadModel[Any], sku: str) -> tuple[Any, ...]:
    """What ``get`` gives: the body, or the facts of its error."""
    try:
        return ((await model.get(sku)).body,)
    except UnreadableRowError as error:
        return error.table, error.key, error.field, error.reason


async def compare(app: Diptych, sql: Diptych, skus: list[str]) -> None:
    """Fails unless both routes give the same, by key and by each list in pages of several sizes."""
    for model, by_sql in zip(read_models(app), read_models(sql), strict=True):
        for sku in skus:
            assert await looked_up(model, sku) == await looked_up(by_sql, sku)
        for order in model.lists:
            for limit in (1, 2, 500):
                from_redis, from_sql = await walk(model, order, limit), await walk(by_sql, order, limit)
                assert (from_redis.stores, from_sql.stores) == ({"redis"}, {"sql"})
                assert from_redis.pages == from_sql.pages
