"""Errors as problem details (RFC 9457), the same for every framework."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import quote

import msgspec

from diptych.errors import (
    ConflictError,
    ConstraintError,
    DatabaseBusyError,
    DatabaseUnavailableError,
    DuplicateError,
    Fault,
    InvalidMessage,
    InvalidValueError,
    StaleVersionError,
    UnavailableError,
    UnreadableRowError,
)
from diptych.http.errors import HttpError

__all__ = ["PROBLEM_JSON", "FieldError", "Problem", "invalid_fields", "problem_for", "status_problem"]

PROBLEM_JSON = "application/problem+json"

_URN = "urn:diptych:problem:"
_log = logging.getLogger("diptych.http")


class FieldError(msgspec.Struct, frozen=True):
    """A faulty field: its name (a dotted path), its place in the body (a JSON pointer), and the fault in words.

    >>> from diptych.http import FieldError
    >>> FieldError("author.name", "#/author/name", "must not be empty").pointer
    '#/author/name'
    """

    field: str
    pointer: str
    detail: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A problem document. `type` is a stable URN, or `about:blank` where the status is enough.

    `errors` names every faulty field, `columns` the columns whose value is already taken. `headers` are headers of
    the response and no part of the document.

    >>> from diptych.http import Problem
    >>> Problem(title="Not Found", status=404).json()
    b'{"type":"about:blank","title":"Not Found","status":404}'
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    errors: tuple[FieldError, ...] = ()
    columns: tuple[str, ...] = ()
    headers: dict[str, str] = {}

    def json(self) -> bytes:
        """Returns the document, of media type `application/problem+json`; empty members are left out."""
        members = msgspec.structs.asdict(self)
        del members["headers"]
        return msgspec.json.encode({name: value for name, value in members.items() if value})


def problem_for(error: Exception) -> Problem:
    """Returns the problem document for a client whose request ended with `error`.

    Faulty fields are 422, a taken value and any other refused constraint 409 (the request is sound, the state
    of the data is against it), an unavailable store 503 with `Retry-After`. A row that can't be shown is 500, and
    no error of the request's: it is logged where it is first met, not at each request. Any unforeseen error is 500:
    it is logged with its traceback, and the client sees nothing of it. Database texts never reach the client.

    >>> from diptych import Fault, InvalidMessage
    >>> from diptych.http import problem_for
    >>> problem = problem_for(InvalidMessage("AddBook", [Fault("title", "is missing")]))
    >>> problem.status, problem.errors
    (422, (FieldError(field='title', pointer='#/title', detail='is missing'),))
    """
    match error:
        case HttpError():
            return status_problem(error.status, error.detail, error.headers)
        case InvalidMessage() | InvalidValueError():
            return invalid_fields(error.faults)
        case DuplicateError():
            return _duplicate(error)
        case StaleVersionError():
            return _stale(error)
        case ConstraintError():
            return Problem(
                type=_URN + "constraint",
                title="The change breaks a rule of the data",
                status=409,
                detail="the database refused the change; nothing was changed",
                errors=_field_errors(Fault(column, "breaks a rule of the data") for column in error.columns),
                columns=error.columns,
            )
        case UnavailableError():
            return _unavailable(error)
        case UnreadableRowError():
            return _unreadable(error)
        case _:
            _log.error("a request failed with an unforeseen error", exc_info=error)
            return status_problem(500, "the server could not answer; the error was logged")


def status_problem(status: int, detail: str | None = None, headers: dict[str, str] | None = None) -> Problem:
    """Returns a problem with the meaning of its HTTP status, and no other."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:  # a status of the application's own
        title = "Error"
    return Problem(title=title, status=status, detail=detail, headers=headers or {})


def invalid_fields(faults: Iterable[Fault]) -> Problem:
    """Returns the problem of status 422 with all `faults`."""
    errors = _field_errors(faults)
    count = "one field is" if len(errors) == 1 else f"{len(errors)} fields are"
    return Problem(
        type=_URN + "invalid-fields",
        title="Some fields are wrong",
        status=422,
        detail=f"{count} wrong; see errors",
        errors=errors,
    )


def _duplicate(error: DuplicateError) -> Problem:
    taken = " and ".join(error.columns) or "value"
    return Problem(
        type=_URN + "duplicate",
        title="Already taken",
        status=409,
        detail=f"this {taken} is already taken; nothing was changed",
        errors=_field_errors(Fault(column, "is already taken") for column in error.columns),
        columns=error.columns,
    )


def _stale(error: StaleVersionError) -> Problem:
    return Problem(
        type=_URN + "stale-version",
        title="Changed meanwhile",
        status=409,
        detail="somebody has changed this since it was read; nothing was changed: read it again",
        errors=_field_errors(Fault(column, "is not the present version") for column in error.columns),
        columns=error.columns,
    )


def _unavailable(error: UnavailableError) -> Problem:
    match error:
        case DatabaseBusyError():
            detail = "the database is busy"
        case DatabaseUnavailableError():
            detail = "the database cannot be reached"
        case ConflictError():
            detail = "others keep changing the same data"
        case _:
            detail = "a store that this service needs cannot be used"
    return Problem(
        type=_URN + "unavailable",
        title="Unavailable",
        status=503,
        detail=f"{detail}; try again",
        headers={"Retry-After": str(max(1, error.retry_after_s))},
    )


def _unreadable(error: UnreadableRowError) -> Problem:
    what = f"its field {error.field} does" if error.field else "its fields together do"
    return Problem(
        type=_URN + "unreadable-row",
        title="Not readable as it is stored",
        status=500,
        detail=f"it is there, but {what} not fit what is shown of it; it can be shown again once it is changed",
    )


def _field_errors(faults: Iterable[Fault]) -> tuple[FieldError, ...]:
    return tuple(FieldError(field, _pointer(field), detail) for field, detail in faults)


def _pointer(field: str) -> str:
    """Returns the JSON pointer (RFC 6901, as a URI fragment) of a dotted path; "#" is the whole document."""
    steps = field.split(".") if field else []
    return "#" + "".join("/" + quote(step.replace("~", "~0").replace("/", "~1"), safe="~") for step in steps)
