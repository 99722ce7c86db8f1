"""Answers to queries and problems as ASGI messages: bytes that are stored already are sent as they are."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TypeAlias

from diptych.http.asgi import Message, Scope
from diptych.http.caching import QUERY_HEADERS, cache_status, etag, is_unchanged
from diptych.http.problems import PROBLEM_JSON, Problem
from diptych.read.model import Served

__all__ = ["Answers", "Headers"]

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

_QUERY_HEADERS: Headers = [(name.lower().encode(), value.encode()) for name, value in QUERY_HEADERS.items()]


class Answers:
    """Makes the two messages of each answer to a query: its start and its body. ``headers`` are on all of them."""

    def __init__(self, headers: Headers = ()) -> None:
        present = {name for name, _ in _QUERY_HEADERS}
        self._headers = [*_QUERY_HEADERS, *(pair for pair in headers if pair[0] not in present)]
        self._headers_of = functools.lru_cache(maxsize=64)(self._made_headers_of)

    def found(self, body: bytes, served: Served, scope: Scope) -> tuple[Message, Message]:
        """The JSON of a document or a page, or 304 if the client has just that."""
        tag = etag(body)
        headers = [*self._headers_of(served), (b"etag", tag.encode())]
        if _is_conditional(scope) and is_unchanged(scope, tag):
            return _answer(304, headers, b"")
        headers += (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))
        return _answer(200, headers, body)

    def problem(self, problem: Problem) -> tuple[Message, Message]:
        """A problem as JSON."""
        body = problem.json()
        own = {**problem.headers, "Content-Type": PROBLEM_JSON, "Content-Length": str(len(body))}
        pairs = ((name.lower().encode(), value.encode("latin-1")) for name, value in own.items())
        return _answer(problem.status, [*self._headers, *pairs], body)

    def _made_headers_of(self, served: Served) -> Headers:
        return (*self._headers, (b"cache-status", cache_status(served).encode()))


def _answer(status: int, headers: Headers, body: bytes) -> tuple[Message, Message]:
    start = {"type": "http.response.start", "status": status, "headers": headers}
    return start, {"type": "http.response.body", "body": body}


def _is_conditional(scope: Scope) -> bool:
    for name, _ in scope["headers"]:  # noqa: SIM110 - a generator takes longer than the loop
        if name == b"if-none-match":
            return True
    return False
