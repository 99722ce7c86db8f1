"""The operations of endpoints in the OpenAPI document that a framework makes, and problems as they are sent."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from diptych.http.endpoints.compiled import Compiled
from diptych.http.errors import PROBLEM_JSON
from diptych.http.openapi.document import REF_TEMPLATE, Operations
from diptych.http.openapi.schemas import PROBLEM, renamed

_PROBLEM = {
    "description": "What is wrong, as problem details.",
    "content": {PROBLEM_JSON: {"schema": {"$ref": REF_TEMPLATE.format(name="Problem")}}},
}


_PARAMETER = re.compile(r"\{(\w+)")


class Refusal(NamedTuple):
    """The answer of a framework to an invalid request: the status, and a text that is in its response."""

    status: str
    text: str


def complete(document: dict[str, Any], endpoints: Iterable[tuple[str, Compiled]], refusal: Refusal) -> None:
    """Completes the document of a framework, in place; ``endpoints`` come with their paths in it.

    Operations that are not in the document stay away. Of their own the framework knows guards and tags.
    """
    paths = document["paths"]
    routes = [
        (path, one.placed(_PARAMETER.findall(path)))
        for path, one in endpoints
        if one.method.lower() in paths.get(path, {})  # it may not be meant to be shown
    ]
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    placed = {(path, one.method.lower()) for path, one in routes}
    others = [
        operation
        for path, methods in paths.items()
        for method, operation in methods.items()
        if (path, method) not in placed
    ]
    taken = {operation.get("operationId") for operation in others}
    operations = Operations([one for _, one in routes], REF_TEMPLATE, taken=taken)
    parts = _without_null([_PROBLEM, *(one for _, one in operations.of)])
    components = _without_null({**operations.components, "Problem": PROBLEM})
    (problem, *told), components = renamed(parts, components, schemas, REF_TEMPLATE)
    for path, one in routes:
        # What its guards answer stays; of the rest the endpoint knows better.
        known = paths[path][one.method.lower()].get("responses", {})
        if refusal.text in str(known.get(refusal.status)):
            del known[refusal.status]
    for (path, one), operation in zip(routes, told, strict=True):
        _put(paths[path], one.method.lower(), operation, _PARAMETER.findall(path))
    for operation in others:
        _tell_problems(operation, refusal, problem)
    schemas.update(components)
    document["components"]["schemas"] = dict(sorted(schemas.items()))


def _tell_problems(operation: dict[str, Any], refusal: Refusal, problem: dict[str, Any]) -> None:
    """Tells of the problems of a route of the application's own, in place of what the framework would send."""
    responses = operation.setdefault("responses", {})
    if refusal.text in str(responses.get(refusal.status)):
        del responses[refusal.status]
        responses["422"] = {**problem, "description": "Fields are faulty; each is named."}
    responses.setdefault("default", problem)


_KEPT = ("security", "tags", "deprecated", "callbacks", "servers", "externalDocs")


def _put(path: dict[str, Any], method: str, operation: dict[str, Any], in_path: Iterable[str]) -> None:
    known = path[method]
    kept = {
        name: value for name, value in known.items() if value and (name in _KEPT or name.startswith("x-"))
    }
    kept["responses"] = {**known.get("responses", {}), **operation["responses"]}
    mine = operation.get("parameters", [])
    names = {one["name"] for one in mine}
    parameters = [*mine, *(one for one in known.get("parameters", ()) if one["name"] not in names)]
    told = {one["name"] for one in parameters if one["in"] == "path"}
    # Of a parameter of a prefix that is no field, and that nothing asks for, nobody else tells.
    parameters += [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in in_path
        if name not in told
    ]
    path[method] = {**operation, **kept, **({"parameters": parameters} if parameters else {})}


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(one) for name, one in value.items() if one is not None}
    return [_without_null(one) for one in value] if isinstance(value, list) else value
