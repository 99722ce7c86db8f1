"""Faults in the declaration of an endpoint, each with its remedy."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import inspect

from diptych.http.endpoints.endpoint import Endpoint
from diptych.http.front import faults_of_parameters
from diptych.http.paths import template_segments
from diptych.messages.kinds import QUERIES, fault_of_kind, is_message, result_type
from diptych.messages.plans import fields_of, unmakeable_in
from diptych.read.answers import Document, Page

PLACEHOLDER = re.compile(r"\{(\w+)\}")

_OF_COMMANDS = ("POST", "PUT", "PATCH", "DELETE")
_STATUSES = (200, 201, 202, 204)
_OBJECTS = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType, inspect.DictType)

_LISTS = (
    *(inspect.ListType, inspect.VarTupleType, inspect.TupleType, inspect.NamedTupleType, inspect.SetType),
    *(inspect.FrozenSetType, inspect.AnyType, inspect.CustomType),
)


def faults_of(endpoint: Endpoint) -> list[str]:
    """Returns all that is wrong with the declaration."""
    message = endpoint.message
    if not is_message(message):
        return [f"{endpoint}: {message!r} is no command and no query: an endpoint is of one of them"]
    if fault := fault_of_kind(message):
        return [f"{endpoint}: {fault}"]
    if field := unmakeable_in(message):
        return [
            f"{endpoint}: {field} can't be made of a request: write structs and dataclasses in structs and "
            "dataclasses, or make the message a model of pydantic with CommandOf or QueryOf, and give each field one "
            "name"
        ]
    try:
        template_segments(endpoint.path.partition("?")[0])
    except ValueError as error:
        return [f"{endpoint}: {error}"]
    return [
        *_of_method(endpoint),
        *_of_path(endpoint),
        *_of_body(endpoint),
        *_of_form(endpoint),
        *_of_answer(endpoint),
        *_of_location(endpoint),
        *_of_missing(endpoint),
    ]


def _of_method(endpoint: Endpoint) -> Iterator[str]:
    name = endpoint.message.__name__
    if issubclass(endpoint.message, QUERIES):
        if endpoint.method != "GET":
            yield f"{endpoint}: {name} is a query, which changes nothing: its method is GET"
    elif endpoint.method not in _OF_COMMANDS:
        yield f"{endpoint}: {name} is a command: its method is one of {', '.join(_OF_COMMANDS)}"


def _of_path(endpoint: Endpoint) -> Iterator[str]:
    template, is_limited, named = endpoint.path.partition("?")
    if not template.startswith("/"):
        yield f"{endpoint}: a path begins with a slash"
    elif template != "/" and "" in template[1:].split("/"):
        yield f"{endpoint}: a path has no empty segments, and ends without a slash"
    segments = template_segments(template)
    in_path = [segment.name for segment in segments if segment.name]
    if is_limited and endpoint.method not in ("GET", "DELETE"):
        yield f"{endpoint}: its fields come from the body: name no parameters behind a ?"
    names = [*in_path, *filter(None, named.split("&"))]
    yield from faults_of_parameters(endpoint, segments, endpoint.message, names)
    if endpoint.method not in ("GET", "DELETE"):
        return
    sent = {field.name for field in fields_of(endpoint.message) if field.name in names or not is_limited}
    yield from faults_of_parameters(endpoint, (), endpoint.message, sorted(sent - set(names)))
    for field in fields_of(endpoint.message):
        if field.required and field.name not in sent:
            yield f"{endpoint}: the field {field.name!r} has no default, and can't be sent: name it behind the ?"


def _of_body(endpoint: Endpoint) -> Iterator[str]:
    body = endpoint.body
    if body is None:
        return
    fields = {field.name: field for field in fields_of(endpoint.message)}
    in_path = {segment.name for segment in template_segments(endpoint.path.partition("?")[0])}
    if endpoint.method in ("GET", "DELETE"):
        yield f"{endpoint}: a {endpoint.method} has no body"
    elif body not in fields or body in in_path:
        yield f"{endpoint}: {endpoint.message.__name__} has no field {body!r} that could be its body"
    elif not _is_object(fields[body].plan.type):
        yield f"{endpoint}: the body is an object, and so the type of {body!r} has to be a struct"
    else:
        yield from (
            f"{endpoint}: the field {name!r} has no default, and is neither in the path nor in the body: add it to "
            f"the path, or to what {body!r} holds"
            for name, field in fields.items()
            if field.required and name not in in_path | {body}
        )


def _is_object(hint: Any) -> bool:
    return any(isinstance(one, _OBJECTS) for one in _kinds_of(hint))


def _may_be_list(hint: Any) -> bool:
    return any(isinstance(one, _LISTS) for one in _kinds_of(hint))


def _kinds_of(hint: Any) -> tuple[inspect.Type, ...]:
    kind = inspect.type_info(hint)
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def _of_form(endpoint: Endpoint) -> Iterator[str]:
    if not endpoint.form and (endpoint.override or endpoint.several):
        yield f"{endpoint}: override and several are of forms: set form=True"
    if endpoint.override_required and endpoint.override is None:
        yield f"{endpoint}: override_required needs the method that is to be named, override"
    if isinstance(endpoint.several, str):
        yield f"{endpoint}: several is a collection of names: write several=({endpoint.several!r},)"
    elif endpoint.form:
        yield from _of_several(endpoint)
    if endpoint.form and endpoint.method == "GET":
        yield f"{endpoint}: the form of a GET is its query string: leave form out"


def _of_several(endpoint: Endpoint) -> Iterator[str]:
    if endpoint.html is not None:  # which makes the fields of the message from those of the form
        return
    message, body = endpoint.message, endpoint.body
    fields = {field.name: field for field in fields_of(message)}
    if body is not None:
        plan = fields[body].plan if body in fields else None
        if plan is None or plan.struct is None:
            return
        fields = {field.name: field for field in fields_of(plan.struct)}
    in_path = {segment.name for segment in template_segments(endpoint.path.partition("?")[0])}
    for name in endpoint.several:
        if name not in fields or (body is None and name in in_path):
            yield f"{endpoint}: several names {name!r}, which no field of the form is"
        elif not _may_be_list(fields[name].plan.type):
            yield f"{endpoint}: several names {name!r}, and that field is one value: make it a list"


def _of_answer(endpoint: Endpoint) -> Iterator[str]:
    status, result = endpoint.status, result_type(endpoint.message)
    if status is not None and status not in _STATUSES:
        yield f"{endpoint}: {status} is no status of success: {', '.join(map(str, _STATUSES))}"
    if status == 204 and endpoint.answer is not None:
        yield f"{endpoint}: a 204 has no body, and so no answer"
    if endpoint.method == "GET" and status not in (None, 200):
        yield f"{endpoint}: what a GET has found is sent with 200"
    if endpoint.answer is not None:
        result = get_type_hints(endpoint.answer, include_extras=True).get("return", Any)
    if getattr(result, "__origin__", result) in (Document, Page) or status == 204:
        return
    try:
        msgspec.json.schema(result)
    except (TypeError, NotImplementedError) as error:
        yield (
            f"{endpoint}: {result!r} can't be sent as JSON ({error}): give the endpoint an answer, a function that "
            "makes of it what is sent, and says of what type that is"
        )


def _of_location(endpoint: Endpoint) -> Iterator[str]:
    if endpoint.location is None:
        return
    if endpoint.status != 201 and not endpoint.form:
        yield f"{endpoint}: a location is of what was made, with status=201, or of the page after a form"
    known = {"result", *(field.name for field in fields_of(endpoint.message))}
    yield from _unknown(
        endpoint, "location", endpoint.location, known | set(names_in_result(endpoint.message))
    )


def names_in_result(message: type) -> tuple[str, ...]:
    """Returns the names of the fields of a message's result: of a struct, a dataclass or a named tuple."""
    result = result_type(message)
    kinds = get_args(result) if get_origin(result) in (Union, types.UnionType) else (result,)
    return next((names for kind in kinds if isinstance(kind, type) and (names := names_of_fields(kind))), ())


def names_of_fields(kind: Any) -> tuple[str, ...]:
    """Returns the names of the fields of a struct, a dataclass or a named tuple, or of a value of one."""
    if hasattr(kind, "__struct_fields__"):
        return tuple(kind.__struct_fields__)
    return tuple(getattr(kind, "_fields", getattr(kind, "__dataclass_fields__", ())))


def _of_missing(endpoint: Endpoint) -> Iterator[str]:
    if endpoint.missing is not None:
        segments = template_segments(endpoint.path.partition("?")[0])
        yield from _unknown(endpoint, "missing", endpoint.missing, {one.name for one in segments if one.name})


def _unknown(endpoint: Endpoint, what: str, template: str, known: set[str]) -> Iterator[str]:
    for name in PLACEHOLDER.findall(template):
        if name not in known:
            yield f"{endpoint}: {what} names {name!r}; what is known is {', '.join(sorted(known)) or 'nothing'}"
    if what == "location" and re.search("[{}]", PLACEHOLDER.sub("", template)):
        yield f"{endpoint}: the location {template!r} has a brace that is not part of a {{name}}"
