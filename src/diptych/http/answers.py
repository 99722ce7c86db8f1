"""Answers to queries and problems as ASGI messages: bytes that are stored already are sent as they are."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from diptych.http.asgi import Message, Scope
from diptych.http.caching import QUERY_HEADERS, SET_ASIDE, cache_status, etag, is_unchanged
from diptych.http.problems import PROBLEM_JSON, Problem
from diptych.read.answers import Served

__all__ = ["Answers", "Headers"]

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

_KEPT = 8192
_LONGEST_KEPT = 1000
"""The headers of how many bodies are kept, and how long those may be, in bytes: 15 MB at most, bodies included. To
find them takes a hash of the body, too; of a long one that saves nothing."""


class _Made(NamedTuple):
    """The headers of a body: all of them, those that its absence has too, and the tag that is among both."""

    whole: Headers
    without_body: Headers
    tag: str


_QUERY_HEADERS: Headers = [(name.lower().encode(), value.encode()) for name, value in QUERY_HEADERS.items()]


class Answers:
    """Makes the two messages of each answer to a query: its start and its body. ``headers`` are on all of them."""

    def __init__(self, headers: Headers = ()) -> None:
        present = {name for name, _ in _QUERY_HEADERS}
        self._headers = [*_QUERY_HEADERS, *(pair for pair in headers if pair[0] not in present)]
        # The same bytes have the same headers: of documents that are asked again and again they are made once.
        self._kept = functools.lru_cache(maxsize=_KEPT)(self._made)

    def found(
        self, body: bytes, served: Served, scope: Scope, is_conditional: bool = True, set_aside: int = 0
    ) -> tuple[Message, Message]:
        """The JSON of a document or a page, or 304 if the client has just that.

        Whether it has is not looked for if the request is not ``is_conditional``: it has no `If-None-Match`.
        ``set_aside`` is how many rows the page leaves out.
        """
        is_short = len(body) <= _LONGEST_KEPT
        made = (self._kept if is_short else self._made)(body, served, set_aside)
        if is_conditional and is_unchanged(scope, made.tag):
            return _answer(304, made.without_body, b"")
        return _answer(200, made.whole, body)

    def problem(self, problem: Problem) -> tuple[Message, Message]:
        """A problem as JSON."""
        body = problem.json()
        own = {**problem.headers, "Content-Type": PROBLEM_JSON, "Content-Length": str(len(body))}
        pairs = ((name.lower().encode(), value.encode("latin-1")) for name, value in own.items())
        return _answer(problem.status, [*self._headers, *pairs], body)

    def _made(self, body: bytes, served: Served, set_aside: int) -> _Made:
        tag, status = etag(body), cache_status(served)
        always = ((b"etag", tag.encode()), (b"cache-status", status.encode()), *self._headers)
        if set_aside:
            always = ((SET_ASIDE.lower().encode(), b"%d" % set_aside), *always)
        of_body = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
        return _Made((*of_body, *always), always, tag)


def _answer(status: int, headers: Headers, body: bytes) -> tuple[Message, Message]:
    # A list of its own: what is around an application may add to it.
    start = {"type": "http.response.start", "status": status, "headers": list(headers)}
    return start, {"type": "http.response.body", "body": body}
