"""The operations of endpoints in the OpenAPI document that a framework makes, and problems as they are sent."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from diptych.http.endpoints.compiled import Compiled
from diptych.http.errors import PROBLEM_JSON
from diptych.http.openapi.document import REF_TEMPLATE, Operations
from diptych.http.openapi.schemas import PROBLEM

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
    routes = [(path, one.placed(_PARAMETER.findall(path))) for path, one in endpoints]
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for path in document["paths"].values():
        for operation in path.values():
            _tell_problems(operation, refusal)
    operations = Operations([one for _, one in routes], REF_TEMPLATE)
    told, components = _renamed([one for _, one in operations.of], operations.components, schemas)
    for (path, one), operation in zip(routes, told, strict=True):
        _put(document["paths"].get(path, {}), one.method.lower(), operation, _PARAMETER.findall(path))
    schemas.update({**components, "Problem": PROBLEM})
    document["components"]["schemas"] = dict(sorted(schemas.items()))


def _tell_problems(operation: dict[str, Any], refusal: Refusal) -> None:
    """Tells of the problems of a route of the application's own, in place of what the framework would send."""
    responses = operation.setdefault("responses", {})
    if refusal.text in str(responses.get(refusal.status)):
        del responses[refusal.status]
        responses["422"] = {**_PROBLEM, "description": "Fields are faulty; each is named."}
    responses.setdefault("default", _PROBLEM)


def _put(path: dict[str, Any], method: str, operation: dict[str, Any], in_path: Iterable[str]) -> None:
    known = path.get(method)
    if known is None:  # it is not to be shown
        return
    kept = {name: known[name] for name in ("security", "tags", "deprecated") if known.get(name)}
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


def _renamed(
    operations: Any, components: dict[str, Any], taken: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Returns operations and components as frameworks tell them, without null, and with names that are not taken."""
    ours = _without_null({"operations": operations, "components": components})
    for name in sorted(components):
        if taken.get(name, ours["components"][name]) == ours["components"][name]:
            continue
        new = name
        while new in taken or new in ours["components"]:
            new += "_"
        text = msgspec.json.encode(ours).replace(_quoted_ref(name), _quoted_ref(new))
        ours = msgspec.json.decode(text)
        ours["components"][new] = ours["components"].pop(name)
    return ours["operations"], ours["components"]


def _quoted_ref(name: str) -> bytes:
    return msgspec.json.encode(REF_TEMPLATE.format(name=name))


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(one) for name, one in value.items() if one is not None}
    return [_without_null(one) for one in value] if isinstance(value, list) else value
