"""A request for an endpoint: what it asks becomes a message, and the message's result the answer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from diptych.app import Diptych
from diptych.errors import ConstraintError, Fault, InvalidMessage, InvalidValueError, UnavailableError
from diptych.http.answers import QUERY_HEADERS, Answer, answer_found, answer_headers, encoded, etag
from diptych.http.asgi import RequestReceive, RequestScope, prefers_html
from diptych.http.bodies import Fields, check_same_site, method_override, read_fields
from diptych.http.endpoints.checks import PLACEHOLDER, names_of_fields
from diptych.http.endpoints.compiled import Compiled
from diptych.http.endpoints.contradictions import contradicted
from diptych.http.endpoints.html import EndpointRequest
from diptych.http.endpoints.parameters import read_query_string
from diptych.http.errors import PLACES, NotFound, problem_for
from diptych.http.front import QUERY_ERROR
from diptych.http.invalid_request import InvalidRequest, names_in
from diptych.http.paths import WHOLE_NUMBER, encode_segment
from diptych.messages.message import build
from diptych.messages.validation import bounded, unknown_field
from diptych.read.answers import Document, Page

REFUSALS = (InvalidMessage, ConstraintError, UnavailableError)
"""Refusals after which a form is shown again, as it was sent."""

_NO_FIELDS = Fields({}, is_form=False)
_SHOWN = 80


async def endpoint_call(
    one: Compiled,
    diptych: Diptych,
    scope: RequestScope,
    receive: RequestReceive,
    path_params: Mapping[str, Any],
    *,
    same_site: bool = True,
) -> Answer:
    """Returns the answer to the request ``scope`` for an endpoint; ``path_params`` are decoded, and
    fields by their names: those of the endpoint's path, and of a prefix in front of it.

    Raises what the request is refused with, to be answered by `problem_for`: `HttpError`, `InvalidRequest`, and the
    errors of the handler. ``same_site`` may be False where requests of other sites have been refused already.
    """
    one = one.placed(path_params)
    in_path = {name: str(path_params[name]) for _, name in one.in_path}
    if not all(WHOLE_NUMBER(in_path[name]) for name in one.numbers):
        raise _not_found(one, in_path, None)
    if one.is_query:
        return await _answer_to_query(one, diptych, scope, in_path)
    if same_site:
        check_same_site(scope)
    parameters, in_query_string, faults = _query_string(one, scope)
    max_bytes = diptych.config.get("MAX_BODY_BYTES")
    endpoint = one.endpoint
    sent = await read_fields(
        scope, receive, max_bytes, keep_repeated=True, several=endpoint.several, forms=endpoint.form
    )
    request = EndpointRequest(scope, diptych, parameters | in_path, sent)
    try:
        command = _command(one, in_path | in_query_string, faults, sent)
        result = await _executed(one, diptych, command)
    except REFUSALS as error:
        if endpoint.html and sent.is_form and prefers_html(scope):
            shown = await endpoint.html.refused(request, problem_for(error))
            if shown is not None:
                return shown
        raise
    if _is_missing(one, result):
        raise _not_found(one, in_path, result)
    return await _answer_to_command(one, request, command, result)


async def _executed(one: Compiled, diptych: Diptych, command: Any) -> Any:
    try:
        return await diptych.execute(command)
    except (ConstraintError, InvalidValueError) as error:
        # The handler knows columns, and the client the fields of its request.
        setattr(error, PLACES, one.places)
        raise


async def _answer_to_query(
    one: Compiled, diptych: Diptych, scope: RequestScope, in_path: Mapping[str, str]
) -> Answer:
    html = one.endpoint.html if one.endpoint.html and prefers_html(scope) else None
    parameters, in_query_string, faults = _query_string(one, scope)
    request = EndpointRequest(scope, diptych, {**parameters, **in_path}, _NO_FIELDS)
    try:
        if QUERY_ERROR in scope:
            raise scope[QUERY_ERROR]
        query = _built(one, {**in_query_string, **in_path}, True, faults)
        if html is not None:
            query = html.query(query)
        found = await diptych.ask(query)
    except InvalidMessage as refusal:
        error = InvalidRequest.of_parameters(refusal)
        if html and (shown := await html.refused(request, problem_for(error))) is not None:
            return shown
        raise error from refusal
    if _is_missing(one, found):
        raise _not_found(one, in_path, found)
    if html and (page := await html.found(request, query, found)) is not None:
        return page
    value = found if one.endpoint.answer is None else one.endpoint.answer(query, found)
    if isinstance(value, Document | Page):
        return answer_found(scope, value, [])
    headers = answer_headers(found) if isinstance(found, Document | Page) else QUERY_HEADERS
    answer = Answer.json(value, headers=headers)
    tagged = [*answer.headers, (b"etag", etag(answer.body).encode())]
    return Answer(200, tagged, answer.body).unless_known(scope)


def _query_string(one: Compiled, scope: RequestScope) -> tuple[dict[str, str], dict[str, str], list[Fault]]:
    if one.method not in ("GET", "DELETE"):
        return {}, {}, []
    return read_query_string(scope.get("query_string", b""), one.in_query_string)


def _command(one: Compiled, parameters: Mapping[str, str], in_query_string: list[Fault], sent: Fields) -> Any:
    """Returns the command of a request, with the faults of its query string.

    Raises `InvalidMessage` with all that is wrong, and `NotFound`.
    """
    fields = _meant(one, sent)
    if fields.repeated:
        raise InvalidRequest(one.endpoint.message.__name__, fields.repeated, ())
    if one.endpoint.html is not None:
        fields = one.endpoint.html.fields(fields)
    values: dict[str, Any] = fields.values
    faults = in_query_string
    if one.endpoint.body is not None:
        values = {one.endpoint.body: values}
    elif one.method == "DELETE":
        faults = [*in_query_string, *map(unknown_field, values)]
        values = {}
    names = contradicted(one.endpoint.message, parameters, values, is_form=fields.is_form)
    faults = [*faults, *(Fault(name, "contradicts the path") for name in names)]
    places = (names_in(in_query_string) | parameters.keys()).difference(names)
    text = True if fields.is_form else [*parameters]
    return _built(one, {**values, **parameters}, text, faults, places)


def _meant(one: Compiled, sent: Fields) -> Fields:
    """Returns the fields of the body without `_method`, which has to name the endpoint's."""
    override = one.endpoint.override
    if override is None:
        return sent
    named, fields = method_override(sent, allowed=(override,))
    if named is None and one.endpoint.override_required:
        raise InvalidMessage("form", [Fault("_method", f"must be {override}, in a form")])
    return fields


def _built(
    one: Compiled,
    values: Mapping[str, Any],
    text: bool | Collection[str],
    faults: list[Fault],
    places: Iterable[str] = (),
) -> Any:
    """Returns the message. Raises `InvalidRequest` with the ``faults`` and those of its fields, or `NotFound`.

    ``places`` are the names of those that were sent as parameters.
    """
    message = one.endpoint.message
    try:
        built = build(message, values, text=text)
        found: tuple[Fault, ...] = ()
    except InvalidMessage as error:
        found = error.faults
    if not found and not faults:
        return built
    in_path = {name for _, name in one.in_path}
    if one.endpoint.missing is not None and not faults and in_path.issuperset(fault.field for fault in found):
        # No row can have what the path names.
        raise _not_found(one, values, None)
    faults = [*faults, *found]
    raise InvalidRequest(message.__name__, bounded(faults), places, one.endpoint.body)


def _is_missing(one: Compiled, found: Any) -> bool:
    if isinstance(found, Document):
        return not found
    return one.can_miss and (found is None or found is False)


def _not_found(one: Compiled, in_path: Mapping[str, Any], found: Any) -> NotFound:
    headers = answer_headers(found) if isinstance(found, Document) else {}
    if one.endpoint.missing is None:
        return NotFound(headers=headers)
    detail = PLACEHOLDER.sub(lambda name: _cut(str(in_path.get(name[1], ""))), one.endpoint.missing)
    return NotFound(detail, headers)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


async def _answer_to_command(one: Compiled, request: EndpointRequest, command: Any, result: Any) -> Answer:
    endpoint = one.endpoint
    if request.fields.is_form:
        if endpoint.html and (page := await endpoint.html.done(request, command, result)) is not None:
            return page
        if endpoint.location is not None:
            return Answer.see_other(_location(one, endpoint.location, command, result))
    headers = {}
    if endpoint.location is not None and one.status == 201:
        headers["Location"] = _location(one, endpoint.location, command, result)
    if one.status == 204:
        return Answer(204, [], b"")
    value = result if endpoint.answer is None else endpoint.answer(command, result)
    if isinstance(value, Document | Page):
        found = answer_found(request.scope, value, encoded(headers), False)
        return Answer(one.status, found.headers, found.body)
    return Answer.json(value, one.status, headers)


def _location(one: Compiled, template: str, command: Any, result: Any) -> str:
    """Returns the path with the values of the result's fields, or else of the command's, each as one segment."""

    in_result = names_of_fields(result)

    def value_of(name: str) -> Any:
        if name == "result":
            return result
        return getattr(result, name) if name in in_result else getattr(command, one.fields[name].attribute)

    return PLACEHOLDER.sub(lambda name: encode_segment(_text(value_of(name[1]))), template)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(msgspec.to_builtins(value))
