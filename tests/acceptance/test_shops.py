"""The example applications, on one database and one Valkey at once, behind each server and on each database."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

import httpx
import openapi_spec_validator
import pytest

from examples.fastapi_shop import app as fastapi_shop
from examples.litestar_shop import app as litestar_shop
from examples.shop.endpoints import ENDPOINTS
from tests.acceptance.serving import errors_of
from tests.acceptance.shops import FRAMEWORKS, SERVERS, ShopServer, migrate
from tests.servers import RedisServer

pytestmark = pytest.mark.timeout(300)

LINES = [{"sku": "LAMP", "quantity": 3}, {"sku": "BULB", "quantity": 7}]


class Shops(NamedTuple):
    """A client of each application."""

    fastapi: httpx.Client
    litestar: httpx.Client

    def get(self, path: str) -> Any:
        """The body of the answer, which both applications give with the same bytes and the same ETag."""
        answers = [client.get(path) for client in self]
        assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
        one, other = ((answer.content, answer.headers["etag"]) for answer in answers)
        assert one == other
        return answers[0].json()

    def refused(self, method: str, path: str, **sent: Any) -> httpx.Response:
        """The refusal, which is the same from both."""
        one, other = (client.request(method, path, **sent) for client in self)
        assert (one.status_code, one.json()) == (other.status_code, other.json())
        assert one.headers["content-type"] == other.headers["content-type"] == "application/problem+json"
        return one


@pytest.fixture(params=SERVERS)
def shops(request: pytest.FixtureRequest, database_url: str, valkey: RedisServer) -> Iterator[Shops]:
    """Both applications, of two workers each, on one database that Alembic has made."""
    migrate(database_url)
    settings = {"DATABASE_URL": database_url, "REDIS_URL": valkey.url, "DATABASE_POOL_SIZE": "3"}
    servers = [ShopServer(name, request.param, settings, workers=2) for name in FRAMEWORKS]
    with ExitStack() as exits:
        for server in servers:
            exits.callback(server.close)
        with ThreadPoolExecutor() as both:
            list(both.map(ShopServer.start, servers))
        yield Shops(*(exits.enter_context(httpx.Client(base_url=s.url, timeout=60)) for s in servers))


def add(client: httpx.Client, path: str, **fields: Any) -> str:
    """Adds something; returns where it is."""
    answer = client.post(path, json=fields)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def test_what_one_application_has_acknowledged_the_other_shows(shops: Shops) -> None:
    fastapi, litestar = shops
    fill(shops)
    is_shown_with_what_belongs_to_it(shops)
    ordering_keeps_the_stock(shops)
    lists_have_filters_and_totals(shops)
    refusals_are_the_same(shops)
    for client in (fastapi, litestar, fastapi):
        for stock in range(5):
            assert client.patch("/products/LAMP", json={"stock": stock}).status_code == 204
            assert shops.get("/products/LAMP")["stock"] == stock
    assert fastapi.get("/health").json()["status"] == "ok"


def fill(shops: Shops) -> None:
    fastapi, litestar = shops
    suppliers = [add(fastapi, "/suppliers", name="Lux"), add(litestar, "/suppliers", name="Noctua")]
    assert suppliers == ["/suppliers/1", "/suppliers/2"]
    lamp = {"sku": "LAMP", "name": "Desk lamp", "price": "9.9", "stock": 10, "supplier_id": 1}
    assert add(litestar, "/products", **lamp) == "/products/LAMP"
    add(fastapi, "/products", sku="BULB", name="Bulb", price="0.10", stock=100, supplier_id=1)
    add(fastapi, "/products", sku="FAN", name="Fan", price="20", supplier_id=2)
    for client, name in zip(shops, ("ann", "bob"), strict=True):
        add(client, "/users", name=name, full_name=name.title())
    for client, roles in zip(shops, (["clerk", "admin"], ["buyer", "admin"]), strict=True):
        assert client.put("/users/ann/roles", json={"roles": roles}).status_code == 204
        assert shops.get("/users/ann")["roles"] == sorted(roles)


def is_shown_with_what_belongs_to_it(shops: Shops) -> None:
    lamp = {"sku": "LAMP", "name": "Desk lamp", "price": "9.90", "stock": 10}
    assert shops.get("/products/LAMP") == lamp | {"supplier": {"id": 1, "name": "Lux"}}
    assert shops.get("/suppliers/1") == {"id": 1, "name": "Lux", "products": 2}
    assert shops.litestar.patch("/suppliers/1", json={"name": "Lumen"}).status_code == 204
    assert shops.get("/products/LAMP")["supplier"]["name"] == "Lumen"
    user = {"name": "ann", "full_name": "Ann", "roles": ["admin", "buyer"], "orders": 0}
    assert shops.get("/users/ann") == user


def ordering_keeps_the_stock(shops: Shops) -> None:
    fastapi, litestar = shops
    placed = litestar.post("/orders", json={"user": "ann", "lines": LINES})
    assert (placed.status_code, placed.json()) == (201, {"id": 1, "total": "30.40"})
    checked_out = fastapi.post("/checkout", json={"user": "ann", "lines": LINES})
    assert checked_out.status_code == 201
    assert checked_out.json() == shops.get("/orders/2")
    order = shops.get(placed.headers["location"])
    assert (order["user"], order["total"]) == ({"name": "ann", "full_name": "Ann"}, "30.40")
    assert order["lines"] == [
        {
            "quantity": 3,
            "price": "9.90",
            "amount": "29.70",
            "product": {"sku": "LAMP", "name": "Desk lamp"},
        },
        {"quantity": 7, "price": "0.10", "amount": "0.70", "product": {"sku": "BULB", "name": "Bulb"}},
    ]
    assert [shops.get(f"/products/{sku}")["stock"] for sku in ("LAMP", "BULB")] == [4, 86]
    wanted = {"user": "ann", "lines": [*LINES, {"sku": "LAMP", "quantity": 2}]}
    refused = shops.refused("POST", "/orders", json=wanted)
    assert refused.status_code == 409
    assert refused.json()["detail"] == "there are 4 of LAMP, and 5 were ordered; nothing was ordered"
    assert [shops.get(f"/products/{sku}")["stock"] for sku in ("LAMP", "BULB")] == [4, 86]
    assert fastapi.post("/orders/1/cancel").status_code == 204
    assert litestar.post("/orders/1/cancel").status_code == 204  # and puts nothing back again
    assert [shops.get(f"/products/{sku}")["stock"] for sku in ("LAMP", "BULB")] == [7, 93]
    assert shops.get("/orders/1")["state"] == "cancelled"
    assert shops.get("/users/ann")["orders"] == 1
    assert fastapi.patch("/products/LAMP", json={"price": "11"}).status_code == 204
    assert shops.get("/orders/2")["total"] == "30.40"


def lists_have_filters_and_totals(shops: Shops) -> None:
    def found(path: str, field: str) -> tuple[list[Any], int]:
        page = shops.get(f"{path}&count=true")
        return [item[field] for item in page["items"]], page["total"]

    assert found("/products?sort=name", "sku") == (["BULB", "LAMP", "FAN"], 3)
    assert found("/products?sort=price&price_from=0.10&price_to=11", "sku") == (["BULB", "LAMP"], 2)
    assert found("/products?sort=price&price_from=0.11&limit=1", "sku") == (["LAMP"], 2)
    assert found("/products?supplier=1&name=D", "sku") == (["LAMP"], 1)
    assert found("/products?supplier=2&sort=price", "sku") == (["FAN"], 1)
    assert found("/orders?user=ann", "id") == ([2, 1], 2)
    assert found("/orders?user=ann&state=placed", "id") == ([2], 1)
    assert found("/orders?state=cancelled", "total") == (["30.40"], 1)
    assert found("/orders?user=bob", "id") == ([], 0)
    assert found("/users?limit=1", "name") == (["ann"], 2)
    assert found("/suppliers?limit=5", "products") == ([2, 1], 2)
    first = shops.get("/products?limit=2")
    assert [item["sku"] for item in shops.get(f"/products?limit=2&after={first['next']}")["items"]] == ["FAN"]


def refusals_are_the_same(shops: Shops) -> None:
    lamp = {"sku": "LAMP", "name": "Another", "price": "9.999", "supplier_id": 9}
    assert errors_of(shops.refused("POST", "/products", json=lamp)) == {
        "price": "must have at most two decimal places"
    }
    faults = errors_of(shops.refused("POST", "/products", json=lamp | {"price": 9.9}))
    assert faults == {"supplier_id": "is not the id of a supplier"}
    taken = shops.refused("POST", "/products", json=lamp | {"price": 9.9, "supplier_id": 1})
    assert (taken.status_code, taken.json()["columns"]) == (409, ["sku"])
    unknown = {"user": "eve", "lines": [LINES[0], {"sku": "NONE", "quantity": 1}]}
    assert errors_of(shops.refused("POST", "/orders", json=unknown)) == {
        "user": "is not the name of a user",
        "lines.1.sku": "is not the sku of a product",
    }
    together = shops.refused("GET", "/products?sort=price&name=D")
    assert together.json()["errors"][0]["parameter"] == "name"
    for path in ("/products/NONE", "/orders/77", "/users/eve", "/suppliers/x", "/nothing"):
        assert shops.refused("GET", path).status_code == 404
    assert shops.refused("DELETE", "/products/LAMP").status_code == 405


def test_their_migrations_make_the_tables_of_the_models(database_url: str) -> None:
    migrate(database_url)
    assert migrate(database_url, "check") == "No new upgrade operations detected.\n"
    migrate(database_url, "downgrade", "base")


async def test_their_documents_have_all_routes() -> None:
    ours = {(one.method.lower(), one.path.replace(":int", "")) for one in ENDPOINTS}
    own = {("post", "/checkout"), ("get", "/health")}
    for app, routes in ((fastapi_shop.app, ours | own), (litestar_shop.app, ours)):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            document = (await client.get("/openapi.json")).json()
        openapi_spec_validator.validate(document)
        paths = document["paths"].items()
        assert {(method, path) for path, operations in paths for method in operations} == routes
