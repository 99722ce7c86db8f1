"""Litestar's exceptions as problem details."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)

from diptych.errors import Fault, PlacedFault
from diptych.http.asgi import RequestScope, list_elements
from diptych.http.errors import (
    BadRequest,
    MethodNotAllowed,
    NotFound,
    Problem,
    invalid_fields,
    problem_for,
    status_problem,
)
from diptych.http.invalid_request import InvalidRequest, names_in
from diptych.messages.models import faults_of
from diptych.messages.validation import worded

_DATA = "data"
"""Name of the parameter of a handler that is the body of the request."""

_IN_DATA = re.compile(rf"`\$\.{_DATA}(.*)`$")
_MISSING = "Missing required "


def problem_of(error: Exception, scope: RequestScope) -> Problem:
    """Returns the problem of a request ``scope`` that ended with ``error``.

    Litestar's own exceptions are put in our words: Litestar's show its inner structure, and differ by release.
    """
    match error:
        case NotFoundException():
            return problem_for(NotFound())
        case HTTPException(__cause__=OSError()) if _is_of_files(error):
            return problem_for(NotFound())
        case RecursionError() if _origin_of(error) == ("litestar.serialization.msgspec_hooks", "decode_json"):
            return problem_for(BadRequest("the JSON is nested too deeply"))
        case MethodNotAllowedException():
            allow = (error.headers or {}).get("allow", "GET")
            return problem_for(MethodNotAllowed(list_elements(allow)))
        case ValidationException(extra=list(found)) if all(isinstance(one, Mapping) for one in found):
            return _invalid(found, error.__cause__, scope)
        case ValidationException(__cause__=KeyError(args=(name,))) if error.detail.startswith(_MISSING):
            return _faulty((), [Fault(str(name), "is missing")])
        case ValidationException():
            return status_problem(422, error.detail)
        case HTTPException() if error.status_code < 500:
            return status_problem(error.status_code, error.detail, error.headers)
        case HTTPException() if error.status_code > 500:
            return status_problem(error.status_code, headers=error.headers)
        case _:
            return problem_for(error, scope["method"])


def _is_of_files(error: BaseException) -> bool:
    """Returns True for Litestar's error about a file that can't be read.

    Its name may be too long, or go through a file as if that were a folder. Litestar makes 500 or 401 of all but a
    file that is not there.
    """
    return _origin_of(error)[0] == "litestar.file_system"


def _origin_of(error: BaseException) -> tuple[str, str]:
    """Returns the names of the module and the function that an error comes from."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None:
        return "", ""
    return trace.tb_frame.f_globals.get("__name__", ""), trace.tb_frame.f_code.co_name


def _invalid(found: Iterable[Mapping[str, Any]], cause: Any, scope: RequestScope) -> Problem:
    """Returns the problem of what Litestar has ``found`` about parameters and the body, by the ``cause``."""
    fields = scope["route_handler"].parsed_fn_signature.parameters
    in_body: list[Fault] = []
    in_parameters: list[Fault] = []
    if (of_model := getattr(cause, "errors", None)) is not None:  # of pydantic, with paths within the model
        for one in of_model:
            (fault,) = faults_of([{**one, "loc": ()}], None)
            in_body.append(PlacedFault(map(str, one["loc"]), fault.detail))
        return _faulty(in_body, ())
    for one in found:
        name, detail = str(one.get("key", "")), worded(msgspec.ValidationError(one.get("message", "")))
        if _DATA not in fields or one.get("source", "body") != "body":
            in_parameters.append(Fault(_sent_name(name, fields), detail))
        elif one.get("message") == f"'{_DATA}'":
            return problem_for(BadRequest("the body is empty"))
        else:
            in_body.append(Fault(_path_in_body(name, cause), detail))
    return _faulty(in_body, in_parameters)


def _path_in_body(name: str, cause: Any) -> str:
    """Returns the dotted path of a fault; ``cause`` has the path of the first fault only.

    Litestar's ``name`` of it lacks the numbers of items, and is the same for the body and its field `data`.
    """
    told = _IN_DATA.search(str(cause))
    path = told[1] if told else "" if name == _DATA else name
    return ".".join(re.findall(r"[^.\[\]]+", path.partition("[...]")[0]))


def _sent_name(name: str, fields: Mapping[str, Any]) -> str:
    """Returns the name of a parameter in requests; ``name`` is that in the handler."""
    first = name.partition(".")[0]
    declared = getattr(fields.get(first), "kwarg_definition", None)
    return getattr(declared, "name", None) or first


def _faulty(in_body: Sequence[Fault], in_parameters: Sequence[Fault]) -> Problem:
    # A field of the body may have the name of a parameter.
    parts = [InvalidRequest("", in_body, ()), InvalidRequest("", in_parameters, names_in(in_parameters))]
    return invalid_fields(one for part in parts for one in problem_for(part).errors)
