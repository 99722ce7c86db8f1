"""The shop with FastAPI. Serve it with `diptych run examples.fastapi_shop.app:app`."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Response

from diptych import Diptych, Document, Health
from diptych.ext.fastapi import install, provide
from diptych.http import hot_routes
from examples.shop.application import create_shop
from examples.shop.endpoints import ENDPOINTS
from examples.shop.messages import PlaceOrder
from examples.shop.read_models import OrderDocument, Orders

app = FastAPI(title="Shop", description="Products, suppliers, orders and users.")
install(app, create_shop(), ENDPOINTS, hot=hot_routes(ENDPOINTS))

Shop = Annotated[Diptych, provide(Diptych)]
OrderPages = Annotated[Orders, provide(Orders)]


@app.post("/checkout", status_code=201, tags=["orders"])
async def check_out(command: PlaceOrder, shop: Shop, orders: OrderPages) -> Document[OrderDocument]:
    """Places an order, and answers with the order as queries show it."""
    placed = await shop.execute(command)
    return await orders.get(placed.id)


@app.get("/health", tags=["health"], responses={503: {"model": Health, "description": "SQL can't be used"}})
async def health(shop: Shop, response: Response) -> Health:
    """Says whether SQL and Redis can be used."""
    state = await shop.health()
    response.status_code = 200 if state.status == "ok" else 503
    return state
