"""What the requests of all commands have in common: their fields, and the form that is shown again."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

import msgspec
from litestar import Response

from demo_app.controllers.responses import Catalogue, WebRequest, html_answer
from diptych import ConstraintError, Fault, InvalidMessage, UnavailableError, build
from diptych.http import (
    QUERY_HEADERS,
    Fields,
    Problem,
    method_override,
    prefers_html,
    problem_for,
    read_fields,
)

S = TypeVar("S", bound=msgspec.Struct)

REFUSALS = (InvalidMessage, ConstraintError, UnavailableError)
"""Refusals after which a form is shown again, as it was typed."""


class NoFields(msgspec.Struct):
    """The fields of a deletion."""


async def fields_of(request: WebRequest, diptych: Catalogue, several: Collection[str] = ()) -> Fields:
    """Returns the fields of the request's body; those of `several` may come more than once in a form."""
    max_bytes = diptych.config.get("MAX_BODY_BYTES")
    return await read_fields(request.scope, request.receive, max_bytes, keep_repeated=True, several=several)


def meant(fields: Fields, method: str | None, *, required: bool = True) -> Fields:
    """Returns the fields without `_method`, which has to name `method`; with None, all fields.

    Unless it is `required`, `_method` may be left out.
    """
    if method is None:
        return fields
    named, others = method_override(fields, allowed=(method,))
    if named is None and required:
        raise InvalidMessage("form", [Fault("_method", f"must be {method}, in a form")])
    return others


def built(kind: type[S], fields: Fields) -> S:
    """Returns the message with these fields. Raises `InvalidMessage` for faulty and for repeated ones."""
    if fields.repeated:
        raise InvalidMessage(kind.__name__, fields.repeated)
    return build(kind, fields.values, text=fields.is_form)


def problem_shown(error: Exception, request: WebRequest, fields: Fields) -> Problem:
    """Returns the problem to be shown to a person above the form. Raises the error for other clients."""
    if not (fields.is_form and prefers_html(request.scope)):
        raise error
    return problem_for(error)


def form_again(page: str, problem: Problem) -> Response[str]:
    """Returns the page with the form that is refused for this problem."""
    return html_answer(page, problem.status, {**QUERY_HEADERS, **problem.headers})
