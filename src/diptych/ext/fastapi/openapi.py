"""FastAPI's OpenAPI document, completed."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from diptych.ext.starlette.endpoints import ENDPOINT, path_of
from diptych.ext.starlette.paths import found_routes
from diptych.http.openapi.merging import Refusal, complete

_OF_FASTAPI = ("HTTPValidationError", "ValidationError")


def completed(document: dict[str, Any], app: FastAPI) -> None:
    """Completes the document of an application, in place, with endpoints, and with problems for FastAPI's errors."""
    routes = [found for found in found_routes(app) if hasattr(found.endpoint, ENDPOINT)]
    compiled = [(found, getattr(found.endpoint, ENDPOINT)) for found in routes]
    placed = [(getattr(found.route, "path_format", path_of(one)), one) for found, one in compiled]
    complete(document, placed, Refusal("422", _OF_FASTAPI[0]))
    for name in _OF_FASTAPI:
        document["components"]["schemas"].pop(name, None)
