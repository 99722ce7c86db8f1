"""The operation of an endpoint: its parameters, its body, and every answer that it may give."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

from diptych.http.bodies import FORM, JSON
from diptych.http.endpoints.compiled import Compiled, sent_type
from diptych.http.errors import PROBLEM_JSON
from diptych.http.openapi.schemas import Schema, Schemas, item_type, page_of, without_null
from diptych.read.answers import Document, Page

_TEXT = {"type": "string"}
_ETAG = {"description": "a hash of the bytes, for If-None-Match", "schema": _TEXT}
_CACHE_STATUS = {"description": "whether Redis answered, or why SQL did (RFC 9211)", "schema": _TEXT}
_SET_ASIDE = {"description": "how many rows the page leaves out, if any", "schema": {"type": "integer"}}
_RETRY_AFTER = {"description": "seconds", "schema": {"type": "integer"}}
_LOCATION = {"description": "the path of it", "schema": _TEXT}

_PROBLEMS = {
    400: "The request can't be read.",
    403: "A browser sent the request on behalf of another site.",
    404: "There is no such thing.",
    409: "The state of the data is against it: a value is taken, or somebody was faster.",
    413: "The body is too long.",
    415: "The media type of the body is not read.",
    422: "Fields are faulty; each is named.",
    500: "It is there, but can't be shown as it is stored.",
    503: "A store is away or busy. Try again.",
}


def operation_of(one: Compiled, schemas: Schemas, operation_id: str) -> dict[str, Any]:
    """Returns the OpenAPI operation of an endpoint."""
    endpoint = one.endpoint
    summary, description = _told(inspect.cleandoc(endpoint.message.__doc__ or ""))
    operation: dict[str, Any] = {
        "operationId": operation_id,
        "summary": endpoint.summary or summary or operation_id,
        "tags": list(endpoint.tags) or [one.template.strip("/").partition("/")[0] or "root"],
    }
    if description:
        operation["description"] = description
    if parameters := list(_parameters(one, schemas)):
        operation["parameters"] = parameters
    if body := _body(one, schemas):
        operation["requestBody"] = body
    answers = {**dict(_successes(one, schemas)), **dict(_refusals(one, schemas))}
    operation["responses"] = {str(status): answers[status] for status in sorted(answers)}
    return operation


_SENTENCE = re.compile(r"(.+?[.!?])(?=\s+[A-Z`]|\s*$|\n\n)", re.DOTALL)


def _told(docstring: str) -> tuple[str, str]:
    """Returns the first sentence of a docstring in one line, and the rest."""
    found = _SENTENCE.match(docstring)
    sentence = found[1] if found else docstring.partition("\n\n")[0]
    return " ".join(sentence.split()), docstring[len(sentence) :].strip()


def _parameters(one: Compiled, schemas: Schemas) -> Iterable[Schema]:
    properties = schemas.resolved(schemas.of(one.endpoint.message)).get("properties", {})
    for _, name in one.in_path:
        schema = without_null(properties[name])
        schema.pop("default", None)
        if schema.get("type") == "string":
            schema = {"minLength": 1, **schema}
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    for name in one.in_query_string:
        parameter = {"name": name, "in": "query", "schema": without_null(properties[name])}
        yield parameter | ({"required": True} if one.fields[name].required else {})


def _body(one: Compiled, schemas: Schemas) -> Schema | None:
    if one.method in ("GET", "DELETE"):
        return None
    endpoint = one.endpoint
    message = schemas.of(endpoint.message)
    schema = schemas.resolved(message)
    if endpoint.body is not None:
        message = schema["properties"][endpoint.body]
        if len((several := without_null(message)).get("anyOf", ())) > 1:
            return _one_of_several(one, several)
    whole = schemas.resolved(message)
    names = [name for name in whole.get("properties", {}) if endpoint.body or name in one.in_body]
    required = [name for name in whole.get("required", ()) if name in names]
    properties = {name: whole["properties"][name] for name in names}
    if not properties and not endpoint.override:
        return None
    exact = {"type": "object", "properties": properties, "additionalProperties": False}
    if "title" in whole:
        exact["title"] = whole["title"]
    if required:
        exact["required"] = required
    content: dict[str, Any] = {} if endpoint.override_required else {JSON: {"schema": exact}}
    if endpoint.form:
        content[FORM] = {"schema": _form(one, exact)}
    return {"required": bool(required or endpoint.override_required), "content": content}


def _one_of_several(one: Compiled, schema: Schema) -> Schema:
    """Returns the body that is one of several structs, told apart by a tag."""
    types = [*([] if one.endpoint.override_required else [JSON]), *([FORM] if one.endpoint.form else [])]
    schema = {name: value for name, value in schema.items() if name != "default"}
    return {"required": True, "content": {media_type: {"schema": schema} for media_type in types}}


def _form(one: Compiled, schema: Schema) -> Schema:
    """Returns the schema of a form, whose fields are texts, with the method that it names."""
    endpoint = one.endpoint
    properties = dict(schema["properties"])
    required = [name for name in schema.get("required", ()) if name not in endpoint.several]
    properties |= {name: {"type": "array", "items": _TEXT} for name in endpoint.several}
    if endpoint.override is not None:
        properties["_method"] = {"type": "string", "enum": [endpoint.override]}
        required += ["_method"] if endpoint.override_required else []
    return {**schema, "properties": properties, **({"required": required} if required else {})}


def _successes(one: Compiled, schemas: Schemas) -> Iterable[tuple[int, Schema]]:
    endpoint, sent = one.endpoint, sent_type(one)
    origin = getattr(sent, "__origin__", sent)
    headers: dict[str, Any] = {}
    if one.is_query:
        headers["ETag"] = _ETAG
        found = getattr(one.result, "__origin__", one.result)
        if found in (Document, Page):
            headers["Cache-Status"] = _CACHE_STATUS
        yield 304, {"description": "The client has it already.", "headers": dict(headers)}
        if found is Page:
            headers["Diptych-Set-Aside"] = _SET_ASIDE
    if endpoint.location is not None and one.status == 201:
        headers["Location"] = _LOCATION
    if endpoint.form and (endpoint.location is not None or endpoint.html is not None):
        redirect = {
            "description": "Done, by a form: the page to look at.",
            "headers": {"Location": _LOCATION},
        }
        yield 303, redirect
        if endpoint.override_required:  # which only a form can have
            return
    answer: Schema = {"description": _DONE[one.status]}
    if headers:
        answer["headers"] = headers
    if one.status != 204:
        item = schemas.of(item_type(sent))
        schema = page_of(item) if origin is Page else _present(item)
        answer["content"] = {JSON: {"schema": schema}}
        if endpoint.html is not None and one.is_query:
            answer["content"]["text/html"] = {"schema": _TEXT}
    yield one.status, answer


_DONE = {200: "Here it is.", 201: "It is there now.", 202: "It will be done.", 204: "Done."}


def _present(schema: Schema) -> Schema:
    """Returns the schema of what is sent: None is not sent, it is a 404."""
    some = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    return some[0] if len(some) == 1 else schema


def _refusals(one: Compiled, schemas: Schemas) -> Iterable[tuple[int, Schema]]:
    statuses = {400, 422, 503}
    if one.can_miss or one.endpoint.missing is not None or ":int}" in one.template:
        statuses.add(404)
    if not one.is_query:
        statuses |= {403, 409, 413, 415}
    elif getattr(one.result, "__origin__", one.result) is Document:
        statuses.add(500)
    for status in statuses:
        problem: Schema = {
            "description": _PROBLEMS[status],
            "content": {PROBLEM_JSON: {"schema": schemas.problem}},
        }
        if one.endpoint.html is not None:
            problem["content"]["text/html"] = {"schema": _TEXT}
        if status == 503:
            problem["headers"] = {"Retry-After": _RETRY_AFTER}
        if status == 415:
            problem["headers"] = {"Accept": {"description": "the media types that are read", "schema": _TEXT}}
        yield status, problem
