"""Answers as responses of Starlette, and every error as problem details."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from diptych.http.answers import Answer, answer_problem, answer_query
from diptych.http.asgi import Scope
from diptych.http.errors import MethodNotAllowed, NotFound, Problem, allow_header, problem_for, status_problem
from diptych.read.answers import Document, Page

METHODS = "diptych.methods"
"""Scope key: a function that returns the methods of the path of a request."""

OTHERS = "diptych.others"
"""Attribute of the handler of errors: headers of an answer to OPTIONS for a path, by the path's methods."""


def response_of(answer: Answer) -> Response:
    """Returns an answer as a response."""
    response = Response(answer.body, answer.status)
    response.raw_headers = [*answer.headers]
    return response


def respond(request: Request, found: Document[Any] | Page[Any] | None) -> Response:
    """Returns the response with what a query has found: the stored bytes, as by `diptych.http.answer_query`.

    >>> from diptych import Document, Served
    >>> from diptych.ext.starlette import respond
    >>> from starlette.requests import Request
    >>> request = Request({"type": "http", "method": "GET", "headers": []})
    >>> response = respond(request, Document(b'{"id":1}', Served("redis"), dict))
    >>> response.status_code, response.body, response.headers["cache-status"]
    (200, b'{"id":1}', 'diptych; hit')
    """
    return response_of(answer_query(request.scope, found))


async def answer_error(request: Request, error: Exception) -> Response:
    """Answers an exception with problem details; OPTIONS for a path with its methods."""
    if isinstance(error, HTTPException):
        if error.status_code == 405:
            return _method_not_allowed(request.scope, error)
        if error.status_code < 200 or error.status_code in (204, 304):  # which have no body
            return Response(status_code=error.status_code, headers=error.headers)
        return response_of(problem_answer(_problem_of(error)))
    return response_of(problem_answer(problem_for(error, request.method)))


def problem_answer(problem: Problem) -> Answer:
    """Returns the answer with a problem."""
    return answer_problem(problem, [])


def _method_not_allowed(scope: Scope, error: HTTPException) -> Response:
    methods_at: Callable[[Scope], Mapping[str, Iterable[tuple[bytes, bytes]]]] = scope[METHODS]
    methods = methods_at(scope)
    if not methods:  # of a mounted application, such as one of static files
        allowed = (error.headers or {}).get("Allow", "").split(",")
        methods = {name: [] for each in allowed if (name := each.strip()) not in ("", "HEAD", "OPTIONS")}
    if scope["method"] != "OPTIONS":
        return response_of(problem_answer(problem_for(MethodNotAllowed([*methods, "OPTIONS"]))))
    headers = [pair for added in methods.values() for pair in added]
    allow = (b"allow", allow_header([*methods, "OPTIONS"]).encode("ascii"))
    return response_of(Answer(204, [allow, *headers], b""))


def _problem_of(error: HTTPException) -> Problem:
    """Puts an exception of the framework's in our words; what the application says stays."""
    status, headers = error.status_code, dict(error.headers or {})
    said = error.detail if isinstance(error.detail, str) else msgspec.json.encode(error.detail).decode()
    if said in _phrases(status):
        if status == 404:
            return problem_for(NotFound())
        return status_problem(status, headers=headers)
    return status_problem(status, said, headers)


def _phrases(status: int) -> tuple[str, ...]:
    """Returns what the framework says of a status by itself."""
    try:
        return ("", HTTPStatus(status).phrase)
    except ValueError:
        return ("",)
