"""The request in whose course a command runs, for the rooms without knowledge of HTTP.

`diptych.http.RequestContext` sets the request's scope and the composition root reads it, for the change log's
correlation id and the application's `actor`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any

__all__ = ["correlation_id", "request_scope"]

request_scope: ContextVar[Mapping[str, Any] | None] = ContextVar("diptych_request_scope", default=None)
"""The ASGI scope of the request that is being served; None outside of requests."""

# The id is printable and short, since it is written to logs and to a column as it came.
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
# https://www.w3.org/TR/trace-context/#traceparent-header: later versions may add fields after the flags.
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


def correlation_id(scope: Mapping[str, Any] | None) -> str | None:
    """Returns the caller's own id of this request, known throughout the caller's systems; None without an id.

    The id is `X-Request-Id` if that is 1 to 128 visible ASCII characters, else the trace id of a valid W3C
    `traceparent`. A malformed header is ignored: it is no reason to refuse the request.
    """
    if scope is None:
        return None
    headers: Iterable[tuple[bytes, bytes]] = scope.get("headers", ())
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        found.setdefault(name.lower(), value.strip())
    request_id = found.get(b"x-request-id", b"")
    if _REQUEST_ID.fullmatch(request_id):
        return request_id.decode("ascii")
    return _trace_id(found.get(b"traceparent", b""))


def _trace_id(traceparent: bytes) -> str | None:
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace, parent, more = match.groups()
    if version == b"ff" or (version == b"00" and more):
        return None
    if not trace.strip(b"0") or not parent.strip(b"0"):
        return None  # all zeros is the specification's "invalid"
    return str(trace, "ascii")
