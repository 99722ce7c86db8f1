"""The shop with Litestar. Serve it with `diptych run examples.litestar_shop.app:app`."""

from __future__ import annotations

from litestar import Litestar

from diptych.ext.litestar import DiptychPlugin, asgi_app, routes
from diptych.http import hot_routes
from examples.shop.application import create_shop
from examples.shop.endpoints import ENDPOINTS

site = Litestar(
    routes(ENDPOINTS, title="Shop", description="Products, suppliers, orders and users."),
    plugins=[DiptychPlugin(create_shop())],
    openapi_config=None,
)
app = asgi_app(site, hot=hot_routes(ENDPOINTS))
