"""FastAPI's OpenAPI document, completed: the operations of endpoints, and problems as they are sent."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI

from diptych.ext.starlette.endpoints import ENDPOINT, path_of
from diptych.ext.starlette.paths import Found, found_routes
from diptych.http.endpoints.compiled import Compiled
from diptych.http.errors import PROBLEM_JSON
from diptych.http.openapi.document import Operations
from diptych.http.openapi.schemas import PROBLEM

_REF = "#/components/schemas/{name}"
_OF_FASTAPI = ("HTTPValidationError", "ValidationError")
_PROBLEM = {
    "description": "What is wrong, as problem details.",
    "content": {PROBLEM_JSON: {"schema": {"$ref": _REF.format(name="Problem")}}},
}


def completed(document: dict[str, Any], app: FastAPI) -> None:
    """Completes the document of an application, in place."""
    routes = [found for found in found_routes(app) if hasattr(found.endpoint, ENDPOINT)]
    compiled = [getattr(found.endpoint, ENDPOINT) for found in routes]
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for path in document["paths"].values():
        for operation in path.values():
            _tell_problems(operation)
    for name in _OF_FASTAPI:
        schemas.pop(name, None)
    operations = Operations(compiled, _REF)
    told, components = _renamed([one for _, one in operations.of], operations.components, schemas)
    for found, one, operation in zip(routes, compiled, told, strict=True):
        _put(document["paths"], found, one, operation)
    schemas.update({**components, "Problem": PROBLEM})
    document["components"]["schemas"] = dict(sorted(schemas.items()))


def _tell_problems(operation: dict[str, Any]) -> None:
    """Tells of the problems of a route of the application's own, in place of the errors that FastAPI would send."""
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        responses["422"] = {**_PROBLEM, "description": "Fields are faulty; each is named."}
    responses.setdefault("default", _PROBLEM)


def _put(paths: dict[str, Any], found: Found, one: Compiled, operation: dict[str, Any]) -> None:
    """Puts the operation of an endpoint in the place of what FastAPI knows of its route: its guards and tags."""
    path, method = getattr(found.route, "path_format", path_of(one)), one.method.lower()
    known = paths.get(path, {}).get(method)
    if known is None:  # it is not to be shown
        return
    kept = {name: known[name] for name in ("security", "tags", "deprecated") if name in known}
    parameters = [*operation.get("parameters", ()), *known.get("parameters", ())]
    paths[path][method] = {**operation, **kept, **({"parameters": parameters} if parameters else {})}


def _renamed(
    operations: Any, components: dict[str, Any], taken: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Returns operations and components as FastAPI tells them, without null, and with names that are not taken."""
    ours = _without_null({"operations": operations, "components": components})
    for name in sorted(components):
        if taken.get(name, ours["components"][name]) == ours["components"][name]:
            continue
        new = name
        while new in taken or new in ours["components"]:
            new += "_"
        text = msgspec.json.encode(ours)
        text = text.replace(_quoted_ref(name), _quoted_ref(new))
        ours = msgspec.json.decode(text)
        ours["components"][new] = ours["components"].pop(name)
    return ours["operations"], ours["components"]


def _quoted_ref(name: str) -> bytes:
    return msgspec.json.encode(_REF.format(name=name))


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(one) for name, one in value.items() if one is not None}
    return [_without_null(one) for one in value] if isinstance(value, list) else value
