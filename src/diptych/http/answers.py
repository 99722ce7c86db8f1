"""Answers to queries over HTTP: status, headers and body. Stored bytes are sent unchanged."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from diptych.http.asgi import RequestScope
from diptych.http.caching import QUERY_HEADERS, SET_ASIDE, cache_status, etag, is_unchanged
from diptych.http.errors import NotFound
from diptych.http.problems import PROBLEM_JSON, Problem, problem_for
from diptych.read.answers import Document, Page, Served

__all__ = ["Answer", "Headers", "added_headers", "answer_found", "answer_problem", "answer_query"]

Headers: TypeAlias = list[tuple[bytes, bytes]]

_ENTRIES = 8192
_LONGEST = 1000
"""Number of bodies whose headers are remembered, and the greatest length of such a body in bytes: at most 15 MB, the
bodies included. A look-up hashes the body, so for a long body remembering saves nothing."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """An HTTP response: its status, its headers in ASGI's form (names in lower case), and its body.

    >>> from diptych.http import Answer
    >>> answer = Answer(200, [(b"content-type", b"application/json")], b"{}")
    >>> answer.text_headers()
    {'content-type': 'application/json'}
    """

    status: int
    headers: Headers
    body: bytes

    def text_headers(self) -> dict[str, str]:
        """Returns the headers as text by name, for the response classes of frameworks."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers}


class _HeadersOfBody(NamedTuple):
    """The headers of a body: sent with the body, sent without (status 304), and the value of `ETag` in both."""

    with_body: Headers
    without_body: Headers
    tag: str


def answer_query(scope: RequestScope, found: Document[Any] | Page[Any] | None) -> Answer:
    """Returns the JSON answer to the request ``scope`` from ``found``, the result of its query.

    The status is 200; 304, without a body, if the request's `If-None-Match` names the body's `ETag`; 404 with problem
    details if ``found`` is None or a `Document` without a body. The headers of a 200 are `Content-Type`,
    `Content-Length`, `ETag`, `Cache-Status`, `Vary`, `Cache-Control` and, for a page that leaves rows out,
    `Diptych-Set-Aside`.

    >>> from diptych import Document, Served
    >>> from diptych.http import answer_query
    >>> scope = {"type": "http", "method": "GET", "headers": []}
    >>> answer = answer_query(scope, Document(b'{"id":1}', Served("redis"), dict))
    >>> answer.status, answer.body
    (200, b'{"id":1}')
    >>> answer.text_headers()["cache-status"]
    'diptych; hit'
    >>> answer_query(scope, Document(None, Served("sql", "no-redis"), dict)).status
    404
    """
    if getattr(found, "body", None) is not None:
        return answer_found(scope, found, [])
    served = getattr(found, "served", None)
    return answer_problem(problem_for(NotFound()), [] if served is None else [_cache_status(served)])


def answer_found(scope: RequestScope, found: Any, added: Headers, is_conditional: bool = True) -> Answer:
    """Returns the answer with ``found``, a `Document` or a `Page` with a body; 304 if the client has that body.

    ``added`` are further headers. ``is_conditional`` may be False for a request without `If-None-Match`.
    """
    body = found.body
    headers_of = _remembered_headers if len(body) <= _LONGEST else _headers_of
    headers = headers_of(body, found.served, getattr(found, "set_aside", 0))
    # Each answer has a list of its own, since wrappers around an application may add to it.
    if is_conditional and is_unchanged(scope, headers.tag):
        return Answer(304, headers.without_body + added, b"")
    return Answer(200, headers.with_body + added, body)


def answer_problem(problem: Problem, added: Headers) -> Answer:
    """Returns the answer with ``problem`` as JSON; ``added`` are further headers."""
    body = problem.json()
    own = {**problem.headers, "Content-Type": PROBLEM_JSON, "Content-Length": str(len(body))}
    return Answer(problem.status, [*_OF_QUERIES, *added, *_encoded(own)], body)


def added_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Returns the ``headers`` without the names in `QUERY_HEADERS`, to be added to answers."""
    present = {name for name, _ in _OF_QUERIES}
    return [pair for pair in headers if pair[0] not in present]


def _encoded(headers: Mapping[str, str]) -> Headers:
    return [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]


_OF_QUERIES = _encoded(QUERY_HEADERS)


def _headers_of(body: bytes, served: Served, set_aside: int) -> _HeadersOfBody:
    tag = etag(body)
    always = [(b"etag", tag.encode()), _cache_status(served), *_OF_QUERIES]
    if set_aside:
        always.insert(0, (SET_ASIDE.lower().encode(), b"%d" % set_aside))
    of_body = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return _HeadersOfBody(of_body + always, always, tag)


# Equal bodies from the same store have equal headers, so nothing that is remembered can be stale.
_remembered_headers = functools.lru_cache(maxsize=_ENTRIES)(_headers_of)


def _cache_status(served: Served) -> tuple[bytes, bytes]:
    return b"cache-status", cache_status(served).encode()
