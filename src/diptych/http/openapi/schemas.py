"""JSON Schema of what endpoints read and send."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import msgspec

from diptych.http.endpoints.compiled import Compiled, sent_type
from diptych.messages.plans import is_model
from diptych.read.answers import Document, Page
from diptych.schemas import first_paragraph

Schema = dict[str, Any]

PROBLEM: Schema = {
    "title": "Problem",
    "description": "Problem details (RFC 9457).",
    "type": "object",
    "properties": {
        "type": {"type": "string", "description": "A stable URN, or about:blank where the status is enough."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "Every faulty field.",
            "items": {
                "type": "object",
                "properties": {
                    "field": {"type": "string"},
                    "detail": {"type": "string"},
                    "pointer": {"type": "string", "description": "A JSON pointer into the body."},
                    "parameter": {"type": "string", "description": "The parameter of path or query string."},
                },
                "required": ["field", "detail"],
            },
        },
        "columns": {"type": "array", "items": {"type": "string"}, "description": "What is already taken."},
    },
    "required": ["type", "title", "status"],
}


class Schemas:
    """The schemas of all types of the ``endpoints``; ``ref_template`` says where components are."""

    def __init__(self, endpoints: Iterable[Compiled], ref_template: str) -> None:
        types: list[Any] = []
        for one in endpoints:
            types += [one.endpoint.message, item_type(sent_type(one))]
        models = [kind for kind in types if is_model(kind)]
        others = [kind for kind in types if not is_model(kind)]
        schemas, components = msgspec.json.schema_components(
            others, schema_hook=_opaque, ref_template=ref_template
        )
        of_models, definitions = _schemas_of_models(models, ref_template)
        of_models, definitions = renamed(of_models, definitions, components, ref_template)
        components, schemas = {**components, **definitions}, (*schemas, *of_models)
        self._types, self._schemas = [*others, *models], schemas
        self._components = {name: _clean(schema) for name, schema in components.items()}
        self._components["Problem"] = PROBLEM
        self._names = {ref_template.format(name=name): name for name in self._components}
        self.problem = {"$ref": ref_template.format(name="Problem")}

    def of(self, kind: Any) -> Schema:
        """Returns the schema of a type of the endpoints, most often a reference."""
        return self._schemas[self._types.index(kind)]

    def resolved(self, schema: Schema) -> Schema:
        """Returns the object schema behind a reference, or behind the one that may also be null."""
        for one in schema.get("anyOf", ()):
            if one != {"type": "null"}:
                return self.resolved(one)
        return self._components[self._names[schema["$ref"]]] if "$ref" in schema else schema

    def components(self, used: Any) -> dict[str, Schema]:
        """Returns the components to which ``used``, a part of a document, refers, directly or by other components."""
        found: dict[str, Schema] = {}
        waiting = list(_references(used))
        while waiting:
            name = self._names[waiting.pop()]
            if name not in found:
                found[name] = self._components[name]
                waiting += _references(found[name])
        return dict(sorted(found.items()))


def _schemas_of_models(models: Sequence[Any], ref_template: str) -> tuple[list[Schema], dict[str, Schema]]:
    """Returns the schemas of models of pydantic, and the definitions in them: two of one name have two names."""
    if not models:
        return [], {}
    from pydantic.json_schema import models_json_schema  # which is there, if there are models

    template = ref_template.replace("{name}", "{model}")
    found, whole = models_json_schema([(model, "validation") for model in models], ref_template=template)
    return [found[model, "validation"] for model in models], whole.get("$defs", {})


def renamed(
    parts: Any, components: Mapping[str, Schema], taken: Mapping[str, Schema], ref_template: str
) -> tuple[Any, dict[str, Schema]]:
    """Returns parts of a document, and components that they refer to, by names that no other schema has taken."""
    ours: dict[str, Any] = {"parts": parts, "components": dict(components)}
    for name in sorted(components):
        mine = ours["components"][name]
        if taken.get(name, mine) == mine:
            continue
        new = name
        while taken.get(new, mine) != mine or (new != name and new in ours["components"]):
            new += "_"
        old_ref, new_ref = (msgspec.json.encode(ref_template.format(name=one)) for one in (name, new))
        ours = msgspec.json.decode(msgspec.json.encode(ours).replace(old_ref, new_ref))
        ours["components"][new] = ours["components"].pop(name)
    return ours["parts"], ours["components"]


def item_type(kind: Any) -> Any:
    """Returns the type of the documents in a `Document` or a `Page`, or else the type itself without None."""
    if getattr(kind, "__origin__", kind) in (Document, Page):
        return next(iter(get_args(kind)), Any)
    return kind


def page_of(item: Schema) -> Schema:
    """Returns the schema of a page with such items."""
    return {
        "type": "object",
        "properties": {
            "items": {"type": "array", "items": item},
            "next": {
                "anyOf": [{"type": "string"}, {"type": "null"}],
                "description": "the cursor of the next page",
            },
            "previous": {
                "type": "string",
                "description": "the cursor of the page in front; none on the first",
            },
            "total": {"type": "integer", "description": "the number of all that are selected, if asked for"},
        },
        "required": ["items", "next"],
    }


def without_null(schema: Schema) -> Schema:
    """Returns the schema of a parameter: what is null in JSON is left out of a query string."""
    some = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    others = {name: value for name, value in schema.items() if name != "anyOf"}
    if others.get("default", ...) is None:
        del others["default"]
    return {**others, **some[0]} if len(some) == 1 else {**others, **({"anyOf": some} if some else {})}


def _opaque(kind: type) -> Schema:
    """Returns the schema of a type that only the application knows. (msgspec takes an empty one for none.)"""
    return {"title": kind.__name__}


def _clean(schema: Schema) -> Schema:
    """Returns a component without the indentation of its docstring."""
    if "description" not in schema:
        return schema
    return {**schema, "description": first_paragraph(schema["description"])}


def _references(part: Any) -> Iterable[str]:
    if isinstance(part, Mapping):
        for name, value in part.items():
            if name == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)
