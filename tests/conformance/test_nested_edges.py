"""Numbers at the edges of what databases and orders hold, in read models of their own, from both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, ClassVar

import msgspec
import pytest

from diptych import Diptych, ReadModel, UnreadableRowError, average, by, computed, field, total
from tests.catalogue import answered_by
from tests.configuration import configured
from tests.conformance.test_nested_extremes import Base, Sale, Shop
from tests.setaside import write_raw


class NumberDocument(msgspec.Struct):
    id: int
    number: int


class Numbers(ReadModel[Shop]):
    """All lists are by whole numbers."""

    key = Shop.id
    document = NumberDocument
    lists = (by(field("number")),)
    nested: ClassVar = {"number": total(Shop.sales, Sale.number)}


class RateDocument(msgspec.Struct):
    id: int
    price: Decimal
    free_rate: Decimal | None
    finest_rate: Decimal | None


class Rates(ReadModel[Shop]):
    key = Shop.id
    document = RateDocument
    lists = (by(field("price")), by(field("free_rate")), by(field("finest_rate")))
    nested: ClassVar = {
        "price": total(Shop.sales, Sale.price),
        "free_rate": average(Shop.sales, Sale.free, places=12),
        "finest_rate": average(Shop.sales, Sale.price, places=30),
    }


class Labels(ReadModel[Sale]):
    """Their function makes a text of any value."""

    key = Sale.id
    document = msgspec.defstruct("SaleLabel", [("id", int), ("label", str)])
    nested: ClassVar = {"label": computed(str, Sale.price)}


made: dict[type, ReadModel[Any]] = {}


class Handlers:
    def __init__(self, numbers: Numbers, rates: Rates, labels: Labels) -> None:
        made.update({type(model): model for model in (numbers, rates, labels)})


Both = tuple[Diptych, Callable[[type], list[Any]]]


@asynccontextmanager
async def _both(database_url: str, redis_url: str) -> AsyncIterator[Both]:
    """The application, and a function that returns a read model from Redis and from SQL, when Redis answers."""

    def application(url: str | None) -> Diptych:
        models: list[type[ReadModel[Any]]] = [Numbers, Rates, Labels]
        return Diptych(configured(database_url, url), models=Base, handlers=[Handlers], read_models=models)

    async with application(redis_url) as redis:
        from_redis = dict(made)
        async with application(None):
            from_sql = dict(made)
            yield redis, lambda kind: [from_redis[kind], from_sql[kind]]


async def _settled(app: Diptych) -> None:
    await app.catch_up()
    await answered_by(app, "redis")


async def _walk(model: Any, name: str) -> list[int]:
    found: list[int] = []
    after = None
    while len(found) < 20:
        page = msgspec.json.decode((await model.page(name, limit=1, after=after)).body)
        found += [item["id"] for item in page["items"]]
        after = page["next"]
        if after is None:
            break
    return found


async def _add(app: Diptych, shop: int, **columns: Any) -> None:
    await app.orm.create(Shop, id=shop)
    for column, values in columns.items():
        for value in values:
            await app.orm.create(Sale, shop_id=shop, **{column: value})


async def test_a_total_beyond_64_bits_is_set_aside_by_both_stores(database_url, valkey):
    async with _both(database_url, valkey.url) as (app, models):
        await _add(app, 1, number=[5])
        await _add(app, 2, number=[2**63 - 1, 2**63 - 1])
        await _add(app, 3, number=[7])
        await _settled(app)
        for model in models(Numbers):
            with pytest.raises(UnreadableRowError):
                await model.get(2)
            assert await _walk(model, "number") == [1, 3]


async def test_an_average_is_of_the_exact_sum(postgres_url, valkey):
    """★ A place with fewer digits than the average would be before it: the same page would follow for ever."""
    async with _both(postgres_url, valkey.url) as (app, models):
        await _add(app, 1, free=[Decimal("12345678901234567890.0000000009")])
        await _add(app, 2, free=[Decimal("-12345678901234567890.0000000009")])
        await _settled(app)
        for model in models(Rates):
            rates = [msgspec.json.decode((await model.get(shop)).body)["free_rate"] for shop in (1, 2)]
            assert rates == ["12345678901234567890.000000000900", "-12345678901234567890.000000000900"]
            assert await _walk(model, "free_rate") == [2, 1]


async def test_an_average_of_the_most_places_is_in_the_order_of_lists(postgres_url, valkey):
    """★ PostgreSQL took the power of ten for a whole number of 64 bits: no page of such a list came from SQL."""
    async with _both(postgres_url, valkey.url) as (app, models):
        await _add(app, 1, price=[Decimal(1), Decimal(1), Decimal(0)])
        await _add(app, 2, price=[Decimal(-1), Decimal(-1), Decimal(0)])
        await _add(app, 3, price=[Decimal(-3)])
        await _settled(app)
        for model in models(Rates):
            rates = [msgspec.json.decode((await model.get(shop)).body)["finest_rate"] for shop in (1, 2)]
            assert rates == ["0.666666666666666666666666666667", "-0.666666666666666666666666666667"]
            assert await _walk(model, "finest_rate") == [3, 2, 1]


async def test_a_number_beyond_any_that_is_there_is_found_nowhere(database_url, valkey):
    async with _both(database_url, valkey.url) as (app, models):
        await _add(app, 1, price=[Decimal(1)])
        await _settled(app)
        for model in models(Rates):
            for text in ("1E+400", "-1E+400", "1E-400", "1E+999999999", "-1E+999999999", "1E-999999999"):
                page = await model.page("price", where={"price": Decimal(text)})
                assert msgspec.json.decode(page.body)["items"] == []


async def test_a_field_computed_of_a_value_that_can_not_be_read_is_set_aside(database_url, valkey):
    async with _both(database_url, valkey.url) as (app, models):
        await _add(app, 1, price=[Decimal(1), Decimal(2)])
        is_sqlite = app.orm.database.name == "sqlite"
        value = "'abc'" if is_sqlite else "'NaN'"
        await write_raw(app, f"UPDATE sales SET price = {value} WHERE id = 1")
        await _settled(app)
        for model in models(Labels):
            if is_sqlite:
                with pytest.raises(UnreadableRowError) as caught:
                    await model.get(1)
                assert caught.value.field == "label"
            assert msgspec.json.decode((await model.get(2)).body)["label"] == "2.00"


async def test_a_number_is_found_by_whatever_is_that_number_as_in_a_column(database_url, valkey):
    async with _both(database_url, valkey.url) as (app, models):
        await _add(app, 1, number=[2], price=[Decimal("0.1")])
        await _settled(app)
        for kind, name, found, others in (
            (Numbers, "number", (2, 2.0, "2"), ("x", "", 2.5, True)),
            (Rates, "price", (0.1, "0.1", "0.10", Decimal("0.1")), ("x", "", True, float("nan"), "inf")),
        ):
            for model in models(kind):
                for value in (*found, *others):
                    page = await model.page(name, where={name: value})
                    assert len(msgspec.json.decode(page.body)["items"]) == (value in found), value
