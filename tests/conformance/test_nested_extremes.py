"""Nested fields of values at the ends of what columns hold, and of values that columns should not hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from diptych import (
    Diptych,
    ReadModel,
    UnreadableRowError,
    average,
    between,
    by,
    count,
    field,
    many,
    maximum,
    total,
)
from tests.catalogue import answered_by
from tests.configuration import configured
from tests.setaside import write_raw


class Base(DeclarativeBase):
    pass


class Shop(Base):
    __tablename__ = "shops"

    id: Mapped[int] = mapped_column(primary_key=True)
    sales: Mapped[list[Sale]] = relationship()


class Sale(Base):
    __tablename__ = "sales"

    id: Mapped[int] = mapped_column(primary_key=True)
    shop_id: Mapped[int] = mapped_column(sa.ForeignKey(Shop.id), index=True)
    number: Mapped[int | None] = mapped_column(sa.BigInteger)
    price: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 2))
    free: Mapped[Decimal | None] = mapped_column(sa.Numeric())
    whole: Mapped[Decimal | None] = mapped_column(sa.Numeric(38, 0))
    note: Mapped[str | None] = mapped_column(sa.String(40))


class SaleDocument(msgspec.Struct):
    id: int
    note: str | None
    whole: Decimal | None


class ShopDocument(msgspec.Struct):
    id: int
    number: int
    number_rate: Decimal | None
    price: Decimal
    price_rate: Decimal | None
    free: Decimal
    free_rate: Decimal | None
    whole: Decimal
    most: Decimal | None
    sales: list[SaleDocument]
    sale_count: int


FIELDS = ("number", "number_rate", "price", "price_rate", "free", "free_rate", "whole", "most", "sale_count")


class ShopReadModel(ReadModel[Shop]):
    key = Shop.id
    document = ShopDocument
    lists = tuple(by(field(name), name=name) for name in FIELDS)
    nested = {  # noqa: RUF012
        "number": total(Shop.sales, Sale.number),
        "number_rate": average(Shop.sales, Sale.number, places=6),
        "price": total(Shop.sales, Sale.price),
        "price_rate": average(Shop.sales, Sale.price, places=2),
        "free": total(Shop.sales, Sale.free),
        "free_rate": average(Shop.sales, Sale.free, places=12),
        "whole": total(Shop.sales, Sale.whole),
        "most": maximum(Shop.sales, Sale.whole),
        "sales": many(Shop.sales, order=Sale.id.desc(), limit=5),
        "sale_count": count(Shop.sales),
    }


class Handlers:
    made: list[ShopReadModel] = []  # noqa: RUF012

    def __init__(self, shops: ShopReadModel) -> None:
        self.made.append(shops)


class Shops:
    """The read model from Redis, and from SQL."""

    def __init__(self, app: Diptych, redis: ShopReadModel, sql: ShopReadModel) -> None:
        self.app = app
        self.counts = True
        self._models = {"redis": redis, "sql": sql}

    async def add(self, shop: int, **columns: list[Any]) -> None:
        await self.app.orm.create(Shop, id=shop)
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        await self.app.orm.create_all(Sale, [{**row, "shop_id": shop} for row in rows])

    async def settled(self) -> None:
        await self.app.catch_up()
        await answered_by(self.app, "redis")

    async def get(self, shop: int) -> dict[str, Any]:
        await self.settled()
        bodies = []
        for store, model in self._models.items():
            found = await model.get(shop)
            assert found.served.store == store
            bodies.append(found.body)
        assert bodies[0] == bodies[1]
        return msgspec.json.decode(bodies[0] or b"null", type=dict[str, Any])

    async def ids(self, name: str, where: Any = None) -> list[int]:
        """Walks through a list with pages of two, forwards and backwards."""
        await self.settled()
        walks = [await self._walk(model, store, name, where) for store, model in self._models.items()]
        assert walks[0] == walks[1], name
        return walks[0][0]

    async def _walk(
        self, model: ShopReadModel, store: str, name: str, where: Any
    ) -> tuple[list[int], list[bytes]]:
        found: list[int] = []
        bodies: list[bytes] = []
        after: str | None = None
        while True:
            page = await model.page(name, where=where, limit=2, after=after, count=self.counts)
            assert page.served.store == store
            bodies.append(page.body)
            body = msgspec.json.decode(page.body)
            found += [item["id"] for item in body["items"]]
            if body["next"] is None:
                break
            after = body["next"]
        while body.get("previous"):
            page = await model.page(name, where=where, limit=2, before=body["previous"])
            bodies.append(page.body)
            body = msgspec.json.decode(page.body)
        return found, bodies


@pytest.fixture
async def shops(database_url: str, valkey: Any) -> AsyncIterator[Shops]:
    def application(redis_url: str | None) -> Diptych:
        config = configured(database_url, redis_url)
        return Diptych(config, models=Base, handlers=[Handlers], read_models=[ShopReadModel])

    async with application(valkey.url) as redis, application(None):
        sql = Handlers.made.pop()
        yield Shops(redis, Handlers.made.pop(), sql)


async def test_a_number_of_rows_counts_those_whose_value_is_null(shops):
    await shops.add(1, number=[None, 2, 4], price=[Decimal("1.00"), None, None])
    await shops.add(2, number=[None, None])
    await shops.app.orm.create(Shop, id=3)
    names = ("sale_count", "number", "number_rate", "price", "price_rate")
    found = [await shops.get(shop) for shop in (1, 2, 3)]
    assert [[each[name] for name in names] for each in found] == [
        [3, 6, "3.000000", "1.00", "1.00"],
        [2, 0, None, "0.00", None],
        [0, 0, None, "0.00", None],
    ]


async def test_numbers_of_the_same_rows_and_column_have_one_statement(postgres_url):
    """The number of sales is read with the first of the sums; the greatest value is no sum."""
    async with Diptych(
        configured(postgres_url), models=Base, handlers=[Handlers], read_models=[ShopReadModel]
    ) as app:
        statements: list[str] = []

        def note(query: Any) -> None:
            statements.append(query.query)

        sa.event.listen(
            app.orm.database.reader.sync_engine,
            "checkout",
            lambda connection, *_: connection.driver_connection.add_query_logger(note),
        )
        await app.orm.create(Shop, id=1)
        await Handlers.made.pop().get(1)
    assert sum("FROM sales" in each for each in statements) == 6  # number, price, free, whole, most, sales


async def test_averages_are_rounded_half_up_away_from_zero(shops):
    for shop, prices in enumerate(
        (["-0.12", "-0.13"], ["0.12", "0.13"], ["-0.01", "0.00"], ["0.01", "0.00"]), 1
    ):
        await shops.add(shop, price=[Decimal(price) for price in prices])
    assert [(await shops.get(shop))["price_rate"] for shop in range(1, 5)] == [
        "-0.13",
        "0.13",
        "-0.01",
        "0.01",
    ]
    assert await shops.ids("price_rate") == [1, 3, 4, 2]
    assert await shops.ids("price_rate", {"price_rate": Decimal("-0.13")}) == [1]


async def test_sums_of_whole_numbers_up_to_64_bits_and_beyond(shops):
    """A row whose total has no place in a list is set aside; the others are there."""
    most = 2**63 - 1
    await shops.add(1, number=[most, -1, 1])
    await shops.add(2, number=[most, most])
    await shops.add(3, number=[-most, -most, most, -1])
    await shops.add(4, number=[-(2**32), -1])
    assert [(await shops.get(shop))["number"] for shop in (1, 3, 4)] == [most, -(2**63), -(2**32) - 1]
    assert await _set_aside(shops, 2) == {"number"}
    assert await shops.ids("number", {"number": most}) == [1]
    for name in ("number", "number_rate", "sale_count"):
        assert set(await shops.ids(name)) == {1, 3, 4}


async def test_totals_of_more_digits_than_a_float(shops):
    for shop in range(1, 6):
        await shops.add(shop, price=[Decimal("9999999999.99")] * (1000 + shop))
    assert (await shops.get(1))["price"] == "10009999999989.99"
    assert await shops.ids("price") == [1, 2, 3, 4, 5]
    for shop in range(1, 6):
        value = Decimal("9999999999.99") * (1000 + shop)
        assert await shops.ids("price", {"price": value}) == [shop]
        assert await shops.ids("price", {"price": between(value)}) == list(range(shop, 6))


async def test_whole_numerics(shops):
    for shop in range(1, 6):
        await shops.add(shop, whole=[Decimal(9 * 10**14), Decimal(9 * 10**14 - shop)] * 10 + [Decimal(1)])
    assert (await shops.get(1))["whole"] == str(18 * 10**15 - 9)
    assert await shops.ids("whole") == [5, 4, 3, 2, 1]
    assert await shops.ids("most") == [1, 2, 3, 4, 5]
    assert await shops.ids("whole", {"whole": Decimal(18 * 10**15 - 9)}) == [1]


async def test_numerics_without_a_scale(shops):
    await shops.add(1, free=[Decimal("0.1"), Decimal("0.2"), Decimal("1000")])
    await shops.add(2, free=[Decimal("1000"), Decimal("9000")])
    await shops.add(3, free=[Decimal("0.0000000001")])
    await shops.add(4, free=[Decimal("-99999.5"), Decimal("99999.25")])
    assert [(await shops.get(shop))["free"] for shop in range(1, 5)] == ["1000.3", "10000", "1E-10", "-0.25"]
    assert (await shops.get(1))["free_rate"] == "333.433333333333"
    assert await shops.ids("free") == [4, 3, 1, 2]
    assert await shops.ids("free_rate") == [4, 3, 1, 2]


async def test_numerics_without_a_scale_have_all_their_digits_in_places_and_filters(shops):
    """★ A place with fewer digits than the total would be before it, and the same page would follow for ever."""
    if shops.app.orm.database.name == "sqlite":
        pytest.skip("SQLAlchemy rounds such numbers to ten digits there")
    tiny, great, greater = Decimal("1E-12"), Decimal(10**30), Decimal(10**30 + 1)
    for shop, number in enumerate((tiny, Decimal(1), great, greater, Decimal(2)), 1):
        await shops.add(shop, free=[number])
    assert await shops.ids("free") == [1, 2, 5, 3, 4]
    assert await shops.ids("free_rate") == [1, 2, 5, 3, 4]
    assert await shops.ids("free", {"free": tiny}) == [1]
    assert await shops.ids("free", {"free": greater}) == [4]


async def _set_aside(shops: Shops, shop: int) -> set[str]:
    await shops.settled()
    shops.counts = False  # SQL counts rows that have no place in a list
    found = set()
    for model in shops._models.values():
        with pytest.raises(UnreadableRowError) as caught:
            await model.get(shop)
        found.add(caught.value.field)
    return found


async def test_numbers_that_are_none_are_set_aside(shops):
    await shops.add(1, price=[Decimal(1)])
    await shops.add(2, price=[Decimal(2), Decimal(3)])
    await shops.add(3, price=[Decimal(4)])
    is_sqlite = shops.app.orm.database.name == "sqlite"
    for value in ("'abc'",) if is_sqlite else ("'NaN'",):
        await write_raw(shops.app, f"UPDATE sales SET price = {value} WHERE shop_id = 2 AND price = 3")
        assert await _set_aside(shops, 2) == {"price"}
        assert await shops.ids("sale_count") == [1, 3]
        assert await shops.ids("price") == [1, 3]
        assert await shops.ids("price_rate") == [1, 3]
        await write_raw(shops.app, f"UPDATE sales SET price = 3 WHERE price = {value}")
        assert (await shops.get(2))["price"] == "5.00"
        assert await shops.ids("price") == [1, 3, 2]


async def test_values_that_foreign_programs_left_in_sqlite(shops):
    if shops.app.orm.database.name != "sqlite":
        pytest.skip("PostgreSQL keeps columns to their types")
    for shop in (1, 2, 3):
        await shops.add(shop, number=[1], price=[Decimal(1)])
    await write_raw(shops.app, "UPDATE sales SET price = 1.005 WHERE shop_id = 1")
    await write_raw(shops.app, "UPDATE sales SET number = 'text' WHERE shop_id = 2")
    await write_raw(shops.app, "UPDATE sales SET number = 1.5 WHERE shop_id = 3")
    assert (await shops.get(1))["price"] == "1.00"
    assert await _set_aside(shops, 2) == {"number"}
    assert await _set_aside(shops, 3) == {"number"}
    assert await shops.ids("number") == [1]
    assert await shops.ids("number_rate") == [1]
    assert await shops.ids("price") == [1]
    await write_raw(
        shops.app, "UPDATE sales SET number = 2, price = 1, note = CAST(x'ff61' AS TEXT) WHERE shop_id = 3"
    )
    assert await _set_aside(shops, 3) == {"sales"}
    assert await shops.ids("number") == [1]
    await write_raw(shops.app, "UPDATE sales SET note = 'a' WHERE shop_id = 3")
    assert await shops.ids("number") == [1, 3]
