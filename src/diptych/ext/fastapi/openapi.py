"""FastAPI's OpenAPI document, completed."""

from __future__ import annotations

from typing import Any, get_origin

from fastapi import FastAPI

from diptych.ext.starlette.endpoints import ENDPOINT, path_of
from diptych.ext.starlette.paths import Found, found_routes
from diptych.http.openapi.document import REF_TEMPLATE
from diptych.http.openapi.merging import Refusal, complete
from diptych.read.answers import Document

_OF_FASTAPI = ("HTTPValidationError", "ValidationError")


def completed(document: dict[str, Any], app: FastAPI) -> None:
    """Completes the document of an application, in place, with endpoints, and with problems for FastAPI's errors."""
    routes = [found for found in found_routes(app) if hasattr(found.endpoint, ENDPOINT)]
    compiled = [(found, getattr(found.endpoint, ENDPOINT)) for found in routes]
    placed = [(getattr(found.route, "path_format", path_of(one)), one) for found, one in compiled]
    complete(document, placed, Refusal("422", _OF_FASTAPI[0]))
    for found in found_routes(app):
        if get_origin(model := getattr(found.route, "response_model", None)) is Document or model is Document:
            _never_null(document["paths"].get(found.route.path_format, {}), found)
    schemas = document["components"]["schemas"]
    for name in _OF_FASTAPI:  # which webhooks and callbacks may refer to, as may models of that name
        if (
            name in schemas
            and _refs_to(name, {**document, "components": {"schemas": {**schemas, name: {}}}}) == 0
        ):
            del schemas[name]


def _refs_to(name: str, part: Any) -> int:
    """Returns how many references to a schema a part of the document has."""
    if isinstance(part, list):
        return sum(_refs_to(name, one) for one in part)
    if not isinstance(part, dict):
        return int(part == REF_TEMPLATE.format(name=name))
    return sum(_refs_to(name, one) for one in part.values())


def _never_null(path: dict[str, Any], found: Found) -> None:
    """Takes null out of the answer of a route that returns a document: the one that is not there is a 404."""
    for method in found.methods:
        responses = path.get(method.lower(), {}).get("responses", {})
        for content in responses.get(str(found.route.status_code or 200), {}).get("content", {}).values():
            some = [one for one in content["schema"].get("anyOf", ()) if one != {"type": "null"}]
            if len(some) == 1:
                content["schema"] = some[0]
