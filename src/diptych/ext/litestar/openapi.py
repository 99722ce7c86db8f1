"""Litestar's OpenAPI document, completed."""

from __future__ import annotations

from typing import Any

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
            document = plugin.provide_openapi_schema()  # which Litestar keeps
            complete(document, placed, Refusal("400", "Validation Exception"))
            _name_media_types(document)


def _name_media_types(document: dict[str, Any]) -> None:
    """Names the media type of each `Response[Document[…]]`: with a DTO, Litestar leaves it empty."""
    for path in document["paths"].values():
        for operation in path.values():
            for answer in operation["responses"].values():
                if "" in (content := answer.get("content", {})):
                    content["application/json"] = content.pop("")
