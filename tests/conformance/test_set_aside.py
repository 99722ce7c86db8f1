"""A row that does not fit its document is set aside: both routes say so alike, and everything else goes on."""

from __future__ import annotations

import datetime
import logging
import time
from typing import Annotated, Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConfigService, Diptych, Query, ReadModel, UnreadableRowError, by
from tests.catalogue import answered_by, eventually, fence_row, stop_keeper
from tests.setaside import (
    CAUSES,
    GOOD,
    NO_PLACE,
    Add,
    AddMaker,
    Cause,
    Change,
    NameMaker,
    Product,
    Remove,
    compare,
    health_of,
    looked_up,
    read_models,
    rebuild,
    shop,
    walk,
    write_raw,
)

SKUS = ["a", "b", "c", "d"]

BEFORE_CHRIST = "tried = '0044-03-15 10:00 BC'"


@pytest.fixture
def redis_url(valkey):
    """One kind is enough: what is stored is the same."""
    return valkey.url


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
async def test_a_row_that_raw_sql_has_spoilt_is_set_aside_on_both_routes(
    cause: Cause, database_url, redis_url
):
    async with shop(database_url, redis_url) as app, shop(database_url) as sql:
        for sku in SKUS:
            await app.execute(Add(sku))
        await write_raw(app, f"UPDATE products SET {cause.of(database_url)} WHERE sku = 'b'")
        await rebuild(app)
        products, _ = read_models(app)
        assert (await looked_up(products, "b"))[:3] == ("products", "b", cause.field)
        listed = await walk(products)
        assert listed.skus == ["a", "c", "d"]
        assert listed.set_aside == 1
        await compare(app, sql, SKUS)


async def test_what_a_command_leaves_unfit_is_set_aside_at_once_and_healed_by_the_next(
    database_url, redis_url
):
    """The lease is long: a command that waited for a pass, or for its end, would take seconds."""
    async with (
        shop(database_url, redis_url, joined=False, lease_ms=60_000) as app,
        shop(database_url, joined=False) as sql,
    ):
        await answered_by(app, "redis")
        await stop_keeper(app)
        (products,) = read_models(app)
        for sku in SKUS:
            await app.execute(Add(sku))
        began = time.monotonic()
        await app.execute(Change("b", {"name": "longer than ten"}))
        assert await looked_up(products, "b") == ("products", "b", "name", "must have at most 10 characters")
        assert (await walk(products)).skus == ["a", "c", "d"]
        await app.execute(Change("b", {"kind": "chair"}))  # still too long
        assert (await health_of(app)).set_aside == 1
        await app.execute(Change("b", {"sku": "e"}))
        assert await looked_up(products, "b") == (None,)
        assert (await looked_up(products, "e"))[2] == "name"
        await compare(app, sql, [*SKUS, "e"])
        await app.execute(Change("e", {"name": "short"}))
        listed = await walk(products)
        assert (listed.skus, listed.set_aside, listed.stores) == (["a", "c", "d", "e"], 0, {"redis"})
        await app.execute(Change("e", {"name": "longer than ten"}))
        await app.execute(Remove("e"))
        assert await looked_up(products, "e") == (None,)
        assert (await walk(products)).set_aside == 0
        assert (await health_of(app)).set_aside == 0
        await compare(app, sql, [*SKUS, "e"])
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
async def test_a_spoilt_row_is_there_after_a_restart_and_healed_by_raw_sql_and_a_rebuild(
    cause: Cause, database_url, redis_url
):
    async with shop(database_url, redis_url) as app:
        for sku in SKUS:
            await app.execute(Add(sku))
        await write_raw(app, f"UPDATE products SET {cause.of(database_url)} WHERE sku IN ('b', 'c')")
        await rebuild(app)
    async with shop(database_url, redis_url) as app, shop(database_url) as sql:
        await answered_by(app, "redis")
        assert [(row.table, row.key, row.field) for row in (await health_of(app)).set_aside_rows] == [
            ("products", sku, cause.field) for sku in ("b", "c")
        ]
        await compare(app, sql, SKUS)
        await write_raw(
            app, f"UPDATE products SET {GOOD} WHERE sku = 'b'", "DELETE FROM products WHERE sku = 'c'"
        )
        await rebuild(app)
        for model in read_models(app):
            listed = await walk(model)
            assert (sorted(listed.skus), listed.set_aside) == (["a", "b", "d"], 0)
        assert (await health_of(app)).set_aside == 0
        await compare(app, sql, SKUS)


async def test_a_spoilt_row_of_a_joined_document_is_set_aside_by_passes(database_url, redis_url):
    """Of the row itself, and of the one that is joined: then all documents made from it."""
    async with shop(database_url, redis_url) as app, shop(database_url) as sql:
        await answered_by(app, "redis")
        maker = await app.execute(AddMaker("Lux"))
        for sku in SKUS:
            await app.execute(Add(sku, {"maker_id": maker if sku in "ab" else None}))
        made = read_models(app)[1]
        await app.execute(Change("c", {"name": "longer than ten"}))
        assert (await looked_up(made, "c"))[2] == "name"
        await app.execute(NameMaker(maker, "a name longer than ten"))
        assert (await walk(made)).skus == ["d"]
        await compare(app, sql, SKUS)
        await app.execute(NameMaker(maker, "Lux"))
        await app.execute(Change("c", {"name": "x"}))
        listed = await walk(made)
        assert (listed.skus, listed.set_aside) == (SKUS, 0)
        await compare(app, sql, SKUS)


async def test_a_page_of_spoilt_rows_alone_is_empty_and_goes_on(database_url, redis_url):
    async with shop(database_url, redis_url) as app, shop(database_url) as sql:
        for number in range(30):
            await app.execute(Add(f"{number:02}"))
        await write_raw(app, "UPDATE products SET kind = 'table' WHERE sku < '25'")
        await rebuild(app)
        products, _ = read_models(app)
        first = await products.page(limit=10)
        assert (first.decode().items, first.set_aside, first.served.store) == ([], 10, "redis")
        assert first.decode().next is not None
        assert (await walk(products, limit=10)).skus == [f"{number:02}" for number in range(25, 30)]
        await compare(app, sql, ["00", "29"])


async def test_rows_without_a_place_are_read_past(database_url, redis_url):
    """More of them than a page asks for, at the list's beginning and in its midst."""
    cause = CAUSES[NO_PLACE].of(database_url)
    async with shop(database_url, redis_url) as app, shop(database_url) as sql:
        for number in range(40):
            day = datetime.date(2024, 1, 1) + datetime.timedelta(days=number)
            await app.execute(Add(f"{number:02}", {"made": day}))
        await write_raw(app, f"UPDATE products SET {cause} WHERE sku < '15' OR sku > '30' AND sku < '39'")
        await rebuild(app)
        products, _ = read_models(app)
        in_order = await walk(products, by(Product.made), limit=3)
        assert in_order.skus == [f"{number:02}" for number in (*range(15, 31), 39)]
        assert in_order.set_aside == 0
        await compare(app, sql, ["00", "20", "39"])


@pytest.mark.parametrize("cause", [CAUSES[name] for name in ("too long", "a type that raises", NO_PLACE)])
async def test_it_is_named_once_and_passes_go_on(cause: Cause, database_url, redis_url, caplog):
    caplog.set_level(logging.INFO, "diptych")
    async with shop(database_url, redis_url, lease_ms=1000) as app, shop(database_url) as sql:
        for sku in SKUS:
            await app.execute(Add(sku))
        await write_raw(app, f"UPDATE products SET {cause.of(database_url)} WHERE sku = 'b'")
        await rebuild(app)
        caplog.clear()
        products, _ = read_models(app)
        passed = await fence_row(app)

        async def has_gone_on() -> bool:
            await looked_up(products, "b")
            await products.page()
            await looked_up(read_models(sql)[0], "b")
            row = await fence_row(app)
            return row.passes_started > passed.passes_started + 3

        await eventually(has_gone_on, "passes go on")
        await answered_by(app, "redis")
        # One line of the process whose queries are answered by SQL: it has not met the row before.
        told = [text for text in map(logging.LogRecord.getMessage, caplog.records) if "does not fit" in text]
        assert len(told) == 1
        assert "fail" not in caplog.text
        assert "not as it should be" not in caplog.text
        assert "Products: the row of products with the key b does not fit" in told[0]
        assert f": {cause.field} " in told[0]
        assert "a secret of the row" not in told[0]


UNLOADABLE = ("unknown to the column's enum", "a moment that Python can't have", NO_PLACE)
MENDED = {"size": "large", "tried": None, "made": datetime.date(2024, 1, 2)}


@pytest.mark.parametrize("cause", [CAUSES[name] for name in UNLOADABLE], ids=UNLOADABLE)
async def test_a_row_that_the_class_can_not_load_is_mended_or_deleted_by_a_command(
    cause: Cause, database_url, redis_url
):
    async with (
        shop(database_url, redis_url, joined=False, lease_ms=60_000) as app,
        shop(database_url, joined=False) as sql,
    ):
        for sku in SKUS:
            await app.execute(Add(sku))
        await write_raw(app, f"UPDATE products SET {cause.of(database_url)} WHERE sku IN ('b', 'c')")
        await rebuild(app)
        await stop_keeper(app)  # so what is seen is what the commands have brought in themselves
        change, find = app.execute(Change("b", {"name": "y"})), app.orm.get(Product, "b", "sku")
        for attempt in (change, find, app.orm.all(Product)):
            with pytest.raises(UnreadableRowError) as raised:
                await attempt
            assert (raised.value.table, raised.value.field) == ("products", cause.field)
        began = time.monotonic()
        assert await app.execute(Change("b", {cause.field: MENDED[cause.field], "name": "y"}))
        assert await app.execute(Remove("c"))
        assert time.monotonic() - began < 10
        (products,) = read_models(app)
        listed = await walk(products, by(Product.made))
        assert (listed.skus, listed.set_aside, listed.stores) == (["a", "b", "d"], 0, {"redis"})
        assert await looked_up(products, "c") == (None,)
        assert (await health_of(app)).set_aside == 0
        await compare(app, sql, SKUS)


class OfPostgres(DeclarativeBase):
    pass


class Reading(OfPostgres):
    """Types whose values the driver has no word for, or gives as something else."""

    __tablename__ = "readings"

    id: Mapped[int] = mapped_column(primary_key=True)
    host: Mapped[Any] = mapped_column(postgresql.INET, default="10.0.0.1")
    day: Mapped[datetime.date] = mapped_column(default=datetime.date(2024, 1, 2))
    moment: Mapped[datetime.datetime] = mapped_column(sa.DateTime(timezone=True), default=sa.func.now())
    time: Mapped[datetime.time] = mapped_column(default=datetime.time(1))
    lasts: Mapped[datetime.timedelta] = mapped_column(sa.Interval, default=datetime.timedelta(1))


class ReadingDocument(msgspec.Struct):
    id: int
    day: datetime.date
    moment: Annotated[datetime.datetime, msgspec.Meta(tz=True)]
    time: datetime.time
    lasts: datetime.timedelta


class Readings(ReadModel[Reading]):
    key = Reading.id
    document = ReadingDocument
    lists = (by(Reading.id), by(Reading.day))


class HostDocument(msgspec.Struct):
    id: int
    host: Any


class Hosts(ReadModel[Reading]):
    key = Reading.id
    document = HostDocument
    lists = (by(Reading.id),)


class AskReadings(Query[None]):
    pass


class ReadingQueries:
    def __init__(self, readings: Readings, hosts: Hosts) -> None:
        self.models = [readings, hosts]

    async def ask(self, query: AskReadings) -> None: ...


async def test_what_only_postgresql_can_hold_is_set_aside(postgres_url, redis_url):
    settings: dict[str, Any] = {
        "redis_query_timeout_ms": 2000,
        "redis_probe_interval_ms": 20,
        "lease_ms": 10_000,
    }
    spoilt = {
        2: ("day", "'0044-03-15 BC'"),
        3: ("moment", "'infinity'"),
        4: ("moment", "'0044-03-15 10:00 BC'"),
        5: ("time", "'24:00'"),
        6: ("lasts", "'3000000 years'"),
    }

    def readings(**more: Any) -> Diptych:
        config = ConfigService(environ={}, database_url=postgres_url, **settings, **more)
        return Diptych(config, models=OfPostgres, handlers=[ReadingQueries], read_models=[Readings, Hosts])

    async with readings(redis_url=redis_url) as app, readings() as sql:
        await answered_by(app, "redis")
        for _ in range(7):
            await app.orm.create(Reading)
        await write_raw(
            app,
            *(
                f"UPDATE readings SET {field} = {value} WHERE id = {id}"
                for id, (field, value) in spoilt.items()
            ),
        )
        await rebuild(app)
        (plain, hosts), (plain_sql, hosts_sql) = (read_models(one, AskReadings) for one in (app, sql))
        for id, (field, _) in spoilt.items():
            for model in (plain, plain_sql):
                with pytest.raises(UnreadableRowError) as raised:
                    await model.get(id)
                assert (raised.value.key, raised.value.field) == (id, field)
        for order in plain.lists:
            for limit in (1, 3, 500):
                from_redis, from_sql = await walk(plain, order, limit), await walk(plain_sql, order, limit)
                assert (from_redis.pages, from_redis.stores) == (from_sql.pages, {"redis"})
        pages = [await model.page() for model in (hosts, hosts_sql)]
        assert [(page.served.store, page.set_aside) for page in pages] == [("redis", 7), ("sql", 7)]
        assert pages[0].body == pages[1].body


async def test_a_numbered_page_with_a_row_that_the_driver_can_not_load_begins_at_its_offset(
    database_url, redis_url
):
    """★ Such a page is read column by column."""
    async with shop(database_url, redis_url) as app, shop(database_url) as sql:
        for sku in ("a", "b", "c", "d", "e"):
            await app.execute(Add(sku))
        spoilt = "name = CAST(x'ff' AS TEXT)" if database_url.startswith("sqlite") else BEFORE_CHRIST
        await write_raw(app, f"UPDATE products SET {spoilt} WHERE sku = 'd'")
        await rebuild(app)
        for each in (app, sql):
            products, _ = read_models(each)
            page = await products.page(limit=2, offset=2)
            assert [item["sku"] for item in msgspec.json.decode(page.body)["items"]] == ["c"]
            assert page.set_aside == 1
