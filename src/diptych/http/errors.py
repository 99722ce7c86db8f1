"""Errors of HTTP, refusals of requests, as a tree of classes; and all errors as problem details (RFC 9457).

    HttpError
    ├── BadRequest                400  cannot be understood
    │   └── ClientDisconnected    400  the client went away while sending; nobody sees the answer
    ├── CrossSite                 403  sent by a browser on behalf of another site's page
    ├── NotFound                  404
    ├── MethodNotAllowed          405  carries ``allow``
    ├── RequestTimeout            408  the body did not arrive in time
    ├── PayloadTooLarge           413  carries ``max_bytes``
    ├── UnsupportedMediaType      415  carries ``accepted``
    │   └── UnsupportedCoding     415  the body is compressed
    └── UnsupportedTransfer       501  the body is sent in another way than whole or in chunks

Their texts are shown to the client. The problem details are the same for every framework.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import ClassVar
from urllib.parse import quote

import msgspec

from diptych.errors import (
    ConflictError,
    ConstraintError,
    DatabaseBusyError,
    DatabaseUnavailableError,
    DiptychError,
    DuplicateError,
    Fault,
    InvalidMessage,
    InvalidValueError,
    StaleVersionError,
    UnavailableError,
    UnreadableRowError,
    steps_of,
)
from diptych.http.invalid_request import InvalidRequest, names_in
from diptych.http.titles import TITLES


class HttpError(DiptychError):
    """A request is refused with ``status``; the client is shown ``detail`` and sent ``headers``."""

    status: ClassVar[int]

    def __init__(self, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers: dict[str, str] = headers or {}


class BadRequest(HttpError):
    """The request cannot be understood: malformed JSON, a path with bytes other than UTF-8, and the like."""

    status = 400


class ClientDisconnected(BadRequest):
    """The client went away before its whole body was here; the received part must not be acted upon.

    ``in_chunks`` is True for a body of chunks: then a malformed chunk may be the reason too, of which servers do not
    tell the application.
    """

    def __init__(self, in_chunks: bool = False) -> None:
        super().__init__(
            "the body is not whole: a chunk is malformed, or the client disconnected"
            if in_chunks
            else "the client disconnected before the whole body was sent"
        )


class CrossSite(HttpError):
    """A browser sent an unsafe request on behalf of a page of some other site."""

    status = 403

    def __init__(self) -> None:
        super().__init__("this request was sent from another site's page; send it from a page of this site")


class NotFound(HttpError):
    """There is nothing under this path."""

    status = 404

    def __init__(
        self, detail: str = "there is nothing at this address", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail, headers)


class MethodNotAllowed(HttpError):
    """The path exists but not for this method; ``allow`` names the methods of the path."""

    status = 405

    def __init__(self, allow: Iterable[str]) -> None:
        self.allow = allow_header(allow)
        super().__init__(f"this address allows only: {self.allow}", {"Allow": self.allow})


class PayloadTooLarge(HttpError):
    """The body is longer than ``max_bytes``."""

    status = 413

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the body is longer than the {max_bytes} bytes that are read")
        self.max_bytes = max_bytes


class UnsupportedMediaType(HttpError):
    """The body has an unknown type, charset or coding; ``accepted`` names the accepted types."""

    status = 415

    def __init__(self, detail: str, accepted: Iterable[str]) -> None:
        self.accepted = tuple(accepted)
        super().__init__(detail, {"Accept": ", ".join(self.accepted)})


def allow_header(methods: Iterable[str]) -> str:
    """Returns the value of an `Allow` header for these methods, with HEAD beside GET, as served by `HeadAsGet`."""
    named = set(methods)
    return ", ".join(sorted(named | {"HEAD"} if "GET" in named else named))


PROBLEM_JSON = "application/problem+json"

_WITHOUT_BODY = ("GET", "HEAD", "DELETE")
_URN = "urn:diptych:problem:"
_log = logging.getLogger("diptych.http")


PLACES = "diptych_places"
"""Attribute of an error about columns: the fields of the request, by the names of attributes, if these are known."""


class FieldError(msgspec.Struct, frozen=True, omit_defaults=True):
    """A faulty field: its name (a dotted path), the fault in words, and where it was sent.

    ``pointer`` is a JSON pointer into the body, or else ``parameter`` the name of a parameter of the path or of the
    query string. Both are None where the place is not known.

    >>> from diptych.http import FieldError
    >>> FieldError("author.name", "must not be empty", pointer="#/author/name").pointer
    '#/author/name'
    """

    field: str
    detail: str
    pointer: str | None = None
    parameter: str | None = None


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


def problem_for(error: Exception, method: str = "") -> Problem:
    """Returns the problem document for a client whose request, of this `method`, ended with `error`.

    Faulty fields are 422, a taken value and any other refused constraint 409 (the request is sound, the state
    of the data is against it), an unavailable store 503 with `Retry-After`. A row that can't be shown is 500, and
    no error of the request's: it is logged where it is first met, not at each request. Any unforeseen error is 500:
    it is logged with its traceback, and the client sees nothing of it. Database texts never reach the client.

    Faulty fields were sent in the body, unless an `InvalidRequest` knows better, or the `method` is one of requests
    that have parameters alone: GET, HEAD and DELETE. Faults of columns are faults of an endpoint's fields; elsewhere
    they have a place in the body alone.

    >>> from diptych import Fault, InvalidMessage
    >>> from diptych.http import problem_for
    >>> problem = problem_for(InvalidMessage("AddBook", [Fault("title", "is missing")]))
    >>> problem.status, problem.errors
    (422, (FieldError(field='title', detail='is missing', pointer='#/title', parameter=None),))
    """
    match error:
        case HttpError():
            return status_problem(error.status, error.detail, error.headers)
        case InvalidRequest():
            return invalid_fields(_field_error_in(error, fault) for fault in error.faults)
        case InvalidMessage() if method in _WITHOUT_BODY:
            return problem_for(InvalidRequest(error.message, error.faults, names_in(error.faults)))
        case InvalidMessage():
            return invalid_fields(
                FieldError(*fault, pointer=pointer_to(*steps_of(fault))) for fault in error.faults
            )
        case InvalidValueError():
            return invalid_fields(_of_columns(error, error.faults, method))
        case ConstraintError():
            return _refused_change(error, method)
        case UnavailableError():
            return _unavailable(error)
        case UnreadableRowError():
            return _unreadable(error)
        case _:
            _log.error("a request failed with an unforeseen error", exc_info=error)
            return status_problem(500, "the server could not answer; the error was logged")


def status_problem(status: int, detail: str | None = None, headers: dict[str, str] | None = None) -> Problem:
    """Returns a problem with the meaning of its HTTP status, and no other."""
    return Problem(title=TITLES.get(status, "Error"), status=status, detail=detail, headers=headers or {})


def invalid_fields(found: Iterable[FieldError]) -> Problem:
    """Returns the problem of faulty fields."""
    errors = tuple(found)
    count = "one field is" if len(errors) == 1 else f"{len(errors)} fields are"
    return Problem(
        type=_URN + "invalid-fields",
        title="Some fields are wrong",
        status=422,
        detail=f"{count} wrong; see errors",
        errors=errors,
    )


def _refused_change(error: ConstraintError, method: str) -> Problem:
    match error:
        case DuplicateError():
            kind, title, fault = "duplicate", "Already taken", "is already taken"
            detail = f"this {' and '.join(error.columns) or 'value'} is already taken; nothing was changed"
        case StaleVersionError():
            kind, title, fault = "stale-version", "Changed meanwhile", "is not the present version"
            detail = "somebody has changed this since it was read; nothing was changed: read it again"
        case _:
            fault = "breaks a rule of the data"
            kind, title = "constraint", f"The change {fault}"
            detail = "the database refused the change; nothing was changed"
    return Problem(
        type=_URN + kind,
        title=title,
        status=409,
        detail=detail,
        errors=_of_columns(error, (Fault(column, fault) for column in error.columns), method),
        columns=error.columns,
    )


def _unavailable(error: UnavailableError) -> Problem:
    advice = "try again"
    match error:
        case DatabaseBusyError():
            detail = "the database is busy"
        case DatabaseUnavailableError(may_be_done=True):
            detail = "the database failed at the commit: the change may be there or not"
            advice = "look before you try again"
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
        detail=f"{detail}; {advice}",
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


def _of_columns(error: Exception, faults: Iterable[Fault], method: str) -> tuple[FieldError, ...]:
    """Returns the faults of columns, by the fields that the request is known to have.

    Where nobody knows them, a field of the body is likely to have the name of the column. Where the database does not
    tell the column, a fault is of "a value", and no field has that name.
    """
    places: Mapping[str, FieldError] | None = getattr(error, PLACES, None)
    if places is not None:
        found = ((places.get(name) or FieldError(name, ""), detail) for name, detail in faults)
        return tuple(msgspec.structs.replace(place, detail=detail) for place, detail in found)
    has_body = method not in _WITHOUT_BODY
    return tuple(
        FieldError(name, detail, pointer=pointer_to(name) if has_body and name.isidentifier() else None)
        for name, detail in faults
    )


def _field_error_in(error: InvalidRequest, fault: Fault) -> FieldError:
    steps, (field, detail) = steps_of(fault), fault
    first = steps[0] if steps else ""
    if field in error.parameters or first in error.parameters:
        parameter = first if first in error.parameters else field
        return FieldError(field, detail, parameter=parameter if steps else None)
    if steps and first == error.body:
        steps = steps[1:]
        field = ".".join(steps)
    return FieldError(field, detail, pointer=pointer_to(*steps))


def pointer_to(*steps: str) -> str:
    """Returns the JSON pointer (RFC 6901, as a URI fragment) of a path; "#", of no steps, is the whole document."""
    return "#" + "".join("/" + quote(step.replace("~", "~0").replace("/", "~1"), safe="~") for step in steps)
