"""Answers to queries and problems as ASGI messages: bytes that are stored already are sent as they are."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TypeAlias

from diptych.http.asgi import Scope, Send
from diptych.http.caching import QUERY_HEADERS, cache_status, etag, is_unchanged
from diptych.http.problems import PROBLEM_JSON, Problem
from diptych.read.model import Served

__all__ = ["QUERY_HEADER_PAIRS", "Headers", "send_found", "send_problem"]

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

QUERY_HEADER_PAIRS: Headers = [
    (name.lower().encode(), value.encode()) for name, value in QUERY_HEADERS.items()
]


async def send_found(body: bytes, served: Served, scope: Scope, headers: Headers, send: Send) -> None:
    """Sends the JSON of a document or a page, or 304 if the client has just that."""
    tag = etag(body)
    headers = [*headers, (b"etag", tag.encode()), (b"cache-status", _status(served))]
    if _is_conditional(scope) and is_unchanged(scope, tag):
        await send({"type": "http.response.start", "status": 304, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    headers.append((b"content-type", b"application/json"))
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_problem(problem: Problem, headers: Headers, send: Send) -> None:
    """Sends a problem as JSON."""
    body = problem.json()
    own = {**problem.headers, "Content-Type": PROBLEM_JSON, "Content-Length": str(len(body))}
    headers = [*headers, *((name.lower().encode(), value.encode("latin-1")) for name, value in own.items())]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_conditional(scope: Scope) -> bool:
    for name, _ in scope["headers"]:  # noqa: SIM110 - a generator takes longer than the loop
        if name == b"if-none-match":
            return True
    return False


@functools.lru_cache(maxsize=64)
def _status(served: Served) -> bytes:
    return cache_status(served).encode()
