"""Tests of the shop, on the database that `SHOP_DATABASE` names. They empty it."""

from collections.abc import AsyncIterator

import httpx
import pytest
import sqlalchemy as sa

from shop.main import app
from shop.models import engine

LAMP = {"name": "Lamp", "price": "12.50", "supplier": "Lux"}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with engine.begin() as connection:
        await connection.execute(sa.text("TRUNCATE products, suppliers RESTART IDENTITY"))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client,
    ):
        yield client


async def test_a_product_that_was_added_has_a_page(client: httpx.AsyncClient) -> None:
    added = await client.post("/products", json=LAMP)
    assert (added.status_code, added.json()) == (201, LAMP)
    page = await client.get(added.headers["Location"])
    assert (page.status_code, page.headers["Content-Type"]) == (200, "application/json")
    assert page.text == '{"name":"Lamp","price":"12.50","supplier":"Lux"}'


async def test_a_change_is_on_the_page_at_once(client: httpx.AsyncClient) -> None:
    page = (await client.post("/products", json=LAMP)).headers["Location"]
    for count in range(20):
        changed = {"name": f"Lamp {count}", "price": f"{count}.00", "supplier": f"Lux {count % 3}"}
        assert (await client.put(page, json=changed)).json() == changed
        assert (await client.get(page)).json() == changed


async def test_the_list_has_every_product_by_name(client: httpx.AsyncClient) -> None:
    for name in ("Torch", "Candle"):
        await client.post("/products", json={**LAMP, "name": name})
    assert (await client.get("/products")).json() == [{"id": 2, "name": "Candle"}, {"id": 1, "name": "Torch"}]


async def test_what_is_not_there_has_status_404(client: httpx.AsyncClient) -> None:
    assert (await client.get("/products/7")).status_code == 404
    assert (await client.put("/products/7", json=LAMP)).status_code == 404


async def test_a_price_below_nothing_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/products", json={**LAMP, "price": "-1"})).status_code == 422
