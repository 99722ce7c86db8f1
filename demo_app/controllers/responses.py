"""The shapes of answer that the controllers share."""

from __future__ import annotations

from typing import Any, TypeAlias

from litestar import Request, Response
from litestar.di import NamedDependency
from litestar.response import Redirect

from demo_app.flash import Flash, FlashKind
from demo_app.pages import book_path
from diptych import Diptych, Document, Page
from diptych.http import QUERY_HEADERS, NotFound, answer_headers, etag, is_unchanged

WebRequest: TypeAlias = Request[Any, Any, Any]
Catalogue: TypeAlias = NamedDependency[Diptych]
"""What a route asks for, by a parameter of the name `diptych`, to reach the catalogue."""


Found: TypeAlias = Document[Any] | Page[Any]
"""What a query has found, or a book's absence: a `Document` without a body."""


def query_headers(found: Found | None = None) -> dict[str, str]:
    """The headers of an answer to a query. `found` is None where no store was asked."""
    return dict(QUERY_HEADERS) if found is None else answer_headers(found)


def json_answer(
    body: bytes, status_code: int = 200, headers: dict[str, str] | None = None
) -> Response[bytes]:
    """JSON that is bytes already goes out as it is."""
    return Response(body, status_code=status_code, headers=headers, media_type="application/json")


def query_answer(request: WebRequest, found: Found) -> Response[Any]:
    """The JSON of a query; 304 without it if the client has just that."""
    body = found.body or b""
    headers = {**query_headers(found), "ETag": etag(body)}
    if is_unchanged(request.scope, headers["ETag"]):
        return Response(None, status_code=304, headers=headers)
    return json_answer(body, headers=headers)


def html_answer(page: str, status_code: int = 200, headers: dict[str, str] | None = None) -> Response[str]:
    """A page."""
    return Response(page, status_code=status_code, headers=headers, media_type="text/html")


def see_other(request: WebRequest, path: str, kind: FlashKind, title: str) -> Redirect:
    """After a form: to the page at `path`, which will say what happened to the book `title`."""
    return Redirect(path, status_code=303, cookies=[Flash(kind, title).cookie(request.scope["scheme"])])


def no_such_book(title: str, found: Found | None = None) -> NotFound:
    """There is no book of this title; `found` tells which store said so."""
    shown = title if len(title) <= 80 else f"{title[:80]}…"
    error = NotFound(f"there is no book “{shown}”")
    error.headers.update(query_headers(found))
    return error


__all__ = [
    "Catalogue",
    "WebRequest",
    "book_path",
    "html_answer",
    "json_answer",
    "no_such_book",
    "query_answer",
    "query_headers",
    "see_other",
]
