"""What the pages of all endpoints have in common: messages after forms, and forms that are shown again."""

from __future__ import annotations

from typing import Any

from demo_app.flash import Flash, FlashKind
from diptych import Document, Page
from diptych.http import QUERY_HEADERS, Answer, EndpointRequest, Problem, answer_headers

NO_BOOK = "there is no book “{title}”"
NO_TAG = "there is no tag “{name}”"


def page_of(found: Document[Any] | Page[Any], page: str, flash: Flash | None = None) -> Answer:
    """Returns a page that shows what was found. A message on it is not shown again."""
    forget = {} if flash is None else {"Set-Cookie": Flash.FORGET}
    return Answer.page(page, headers={**answer_headers(found), **forget})


def form_again(page: str, problem: Problem) -> Answer:
    """Returns the page with the form that is refused for this problem."""
    return Answer.page(page, problem.status, {**QUERY_HEADERS, **problem.headers})


def see_other(request: EndpointRequest, path: str, kind: FlashKind, title: str) -> Answer:
    """Redirects from a form to the page at `path`, with a message for the page about the book, or tag, `title`."""
    return Answer.see_other(path, {"Set-Cookie": Flash(kind, title).cookie(request.scope["scheme"])})
