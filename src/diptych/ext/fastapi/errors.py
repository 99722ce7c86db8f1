"""FastAPI's errors of invalid requests as problem details."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response

from diptych.errors import Fault, InvalidMessage, PlacedFault, steps_of
from diptych.ext.starlette.problems import problem_answer, response_of
from diptych.http.bodies import JSON
from diptych.http.errors import (
    BadRequest,
    Problem,
    UnsupportedMediaType,
    invalid_fields,
    problem_for,
)
from diptych.http.invalid_request import InvalidRequest
from diptych.messages.models import faults_of, steps_in
from diptych.messages.validation import bounded

_NO_JSON = "json_invalid"


async def answer_invalid(_: Request, error: Exception) -> Response:
    """Answers a request that FastAPI found not valid: 422 with every fault, 400 for malformed JSON, 415."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for these alone
    return response_of(problem_answer(_problem_of(error)))


def _problem_of(error: RequestValidationError) -> Problem:
    errors = [_placed(one) for one in error.errors()]
    if any(one["type"] == _NO_JSON for one in errors):
        reason = errors[0].get("ctx", {}).get("error", "it is malformed")
        return problem_for(BadRequest(f"the JSON cannot be read: {reason}"))
    if isinstance(error.body, bytes) and any(one["loc"][0] == "body" for one in errors):
        return problem_for(UnsupportedMediaType("only JSON is read here", (JSON,)))
    of_body = [{**one, "loc": one["loc"][1:]} for one in errors if one["loc"][0] == "body"]
    # The members of a union may find the same fault.
    in_body = list(dict.fromkeys(fault for one in of_body for fault in _faults_of_message(one, error.body)))
    others = [one for one in of_body if not _is_of_message(one)]
    if error.body is None:  # as of an error that the application has made
        in_body += [PlacedFault(map(str, one["loc"]), _detail(one)) for one in others]
    else:
        in_body += faults_of(others, error.body)
    elsewhere = [one for one in errors if one["loc"][0] != "body"]
    in_parameters = [PlacedFault([_parameter(one)], _detail(one)) for one in elsewhere]
    # A field of the body may have the name of a parameter.
    names = {fault.field for fault in in_parameters}
    parts = [InvalidRequest("", bounded(in_body), ()), InvalidRequest("", in_parameters, names)]
    found = [one for part in parts for one in problem_for(part).errors]
    return invalid_fields(found)


def _parameter(error: Mapping[str, Any]) -> str:
    """Returns the name. Behind it there may be the number of one of its values, or a type of several."""
    return str(error["loc"][min(1, len(error["loc"]) - 1)])


_PLACES = ("body", "query", "path", "header", "cookie")


def _placed(error: Any) -> Mapping[str, Any]:
    """Returns an error with the place where its value was sent: one of the application's own may lack it."""
    whole = {
        "type": "",
        "msg": "is not valid",
        "loc": (),
        **(error if isinstance(error, Mapping) else {"msg": error}),
    }
    loc = tuple(whole["loc"])
    return {**whole, "loc": loc if loc[:1] and loc[0] in _PLACES else ("body", *loc)}


def _is_of_message(error: Mapping[str, Any]) -> bool:
    return isinstance(error.get("ctx", {}).get("error"), InvalidMessage)


def _faults_of_message(error: Mapping[str, Any], body: Any) -> Iterator[Fault]:
    """Yields what `build` has found, where it made a message."""
    if _is_of_message(error):
        place = steps_in(error, body)
        for fault in error["ctx"]["error"].faults:
            yield PlacedFault((*place, *steps_of(fault)), fault.detail)


def _detail(error: Mapping[str, Any]) -> str:
    (fault,) = faults_of([error], None)
    return fault.detail
