"""Litestar's OpenAPI document, completed."""

from __future__ import annotations

from litestar import Litestar
from litestar._openapi.plugin import OpenAPIPlugin
from litestar.routes import HTTPRoute

from diptych.http.openapi.merging import Refusal, complete

ENDPOINT = "diptych_endpoint"
"""Key in the `opt` of a handler: a function that returns the compiled endpoint that it answers for."""


def tell_endpoints(site: Litestar) -> None:
    """Completes the site's document with endpoints, and with problems for Litestar's errors."""
    placed = [
        (route.path_format, handler.opt[ENDPOINT]())
        for route in site.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if ENDPOINT in handler.opt
    ]
    for plugin in site.plugins:
        if isinstance(plugin, OpenAPIPlugin) and site.openapi_config is not None:
            # Litestar keeps the document that it makes.
            complete(plugin.provide_openapi_schema(), placed, Refusal("400", "Validation Exception"))
