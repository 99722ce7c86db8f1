"""The kinds of responses, for all controllers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from litestar import Request, Response
from litestar.di import NamedDependency
from litestar.response import Redirect

from demo_app.flash import Flash, FlashKind
from demo_app.pages import book_path, tag_path
from diptych import Diptych, Document, Page
from diptych.http import NotFound, answer_headers, answer_query

WebRequest: TypeAlias = Request[Any, Any, Any]
Catalogue: TypeAlias = NamedDependency[Diptych]
"""The catalogue, for a route that has a parameter of the name `diptych`."""

Found: TypeAlias = Document[Any] | Page[Any]
"""The result of a query; a `Document` without a body says that there is no such book or tag."""


def json_answer(
    body: bytes, status_code: int = 200, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    """Returns a response whose JSON is bytes already."""
    return Response(body, status_code=status_code, headers=dict(headers or {}), media_type="application/json")


def query_answer(request: WebRequest, found: Found) -> Response[bytes]:
    """Returns the JSON of a query, or 304 if the client has the same bytes."""
    answer = answer_query(request.scope, found)
    return json_answer(answer.body, answer.status, answer.text_headers())


def html_answer(page: str, status_code: int = 200, headers: Mapping[str, str] | None = None) -> Response[str]:
    """Returns a page."""
    return Response(page, status_code=status_code, headers=dict(headers or {}), media_type="text/html")


def see_other(request: WebRequest, path: str, kind: FlashKind, title: str) -> Redirect:
    """Redirects from a form to the page at `path`, with a message for the page about the book, or tag, `title`."""
    return Redirect(path, status_code=303, cookies=[Flash(kind, title).cookie(request.scope["scheme"])])


def no_such_book(title: str, found: Found | None = None) -> NotFound:
    """Returns the error for the title of no book; `found` names the store in the headers."""
    return _not_found(f"there is no book “{_cut(title)}”", found)


def no_such_tag(name: str, found: Found | None = None) -> NotFound:
    """Returns the error for the name of no tag; `found` names the store in the headers."""
    return _not_found(f"there is no tag “{_cut(name)}”", found)


def no_such_review(title: str, review_id: str) -> NotFound:
    """Returns the error for what is no review of the book of this title."""
    return _not_found(f"there is no review “{_cut(review_id)}” of a book “{_cut(title)}”")


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"


def _not_found(detail: str, found: Found | None = None) -> NotFound:
    error = NotFound(detail)
    if found is not None:
        error.headers.update(answer_headers(found))
    return error


__all__ = [
    "Catalogue",
    "WebRequest",
    "book_path",
    "html_answer",
    "json_answer",
    "no_such_book",
    "no_such_review",
    "no_such_tag",
    "query_answer",
    "see_other",
    "tag_path",
]
