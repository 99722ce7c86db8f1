"""ASGI: its types, the reading of request headers, and small wrappers around an application of any framework."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Literal, TypeAlias

from diptych.context import request_scope
from diptych.http.errors import allow_header

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# Types for functions that only read: a framework's own types fit too, such as the typed dictionaries of Litestar.
RequestScope: TypeAlias = Mapping[str, Any]
RequestReceive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]

# RFC 9110, sections 5.6.1 and 5.6.4; an unclosed quote goes to the end.
_QUOTED = r'"(?:[^"\\]|\\.)*"?'
_ELEMENTS = {separator: re.compile(rf'(?:[^"{separator}]|{_QUOTED})+') for separator in ",;"}


def header_values(scope: RequestScope, name: bytes) -> list[str]:
    """Returns the values of the header `name` (lower case) in the order of the request; none without the header."""
    return [value.decode("latin-1").strip() for key, value in scope.get("headers", ()) if key.lower() == name]


def list_elements(value: str, separator: Literal[",", ";"] = ",") -> list[str]:
    """Returns the elements of a list in a header. Empty elements are left out, and a separator in quotes is text."""
    return [element for found in _ELEMENTS[separator].findall(value) if (element := found.strip())]


_HTML = ("text/html", "application/xhtml+xml")
_QVALUE = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


def prefers_html(scope: RequestScope) -> bool:
    """Returns True if `Accept` likes HTML strictly better than JSON: every browser's page loads do, `*/*` does not.

    The most specific range that names a type decides its weight. Other parameters than `q` are not compared,
    and a malformed range is skipped.

    >>> from diptych.http import prefers_html
    >>> prefers_html({"headers": [(b"accept", b"text/html,*/*;q=0.8")]})
    True
    >>> prefers_html({"headers": []})
    False
    """
    weights = _weights(",".join(header_values(scope, b"accept")))
    return max(_weight(weights, kind) for kind in _HTML) > _weight(weights, "application/json")


def _weights(accept: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for item in list_elements(accept):
        media_range, *parameters = list_elements(item.lower(), ";") or [""]
        q = next((value[2:] for value in parameters if value.startswith("q=")), "1")
        if "/" in media_range and _QVALUE.fullmatch(q):
            weights[media_range] = max(weights.get(media_range, 0.0), float(q))
    return weights


def _weight(weights: dict[str, float], kind: str) -> float:
    for media_range in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        if media_range in weights:
            return weights[media_range]
    return 0.0


SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": under it browsers send `Origin: null` with a page's own forms, as if from elsewhere.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""The headers set by `SecurityHeaders` by default. No HSTS: the server that ends TLS has to decide that."""


# These headers say what a page may do, and where it may be shown. A browser heeds none of them on data, and `nosniff`
# keeps data from being taken for a page. They would be most of an answer of a hundred bytes.
_OF_PAGES = frozenset(
    {
        "content-security-policy",
        "referrer-policy",
        "x-frame-options",
        "cross-origin-opener-policy",
        "permissions-policy",
    }
)


class SecurityHeaders:
    """Adds the usual security headers to every response, except where the application has set them.

    Headers that concern pages alone are left out of JSON, and of 304. `changes` alters the defaults: a name with
    another value, which is then on every response, or with None to leave that header out. `of_data` are the headers
    that are added to JSON, names in lower case.

    >>> import asyncio
    >>> from diptych.http import SecurityHeaders
    >>> async def site(scope, receive, send):
    ...     await send({"type": "http.response.start", "status": 200, "headers": []})
    >>> async def send(message):
    ...     print(dict(message["headers"])[b"x-frame-options"])
    >>> app = SecurityHeaders(site, {"X-Frame-Options": "SAMEORIGIN"})
    >>> asyncio.run(app({"type": "http", "method": "GET"}, None, send))
    b'SAMEORIGIN'
    """

    def __init__(self, app: ASGIApp, changes: Mapping[str, str | None] | None = None) -> None:
        self._app = app
        changed = {name.lower(): value for name, value in (changes or {}).items()}
        chosen = {name.lower(): value for name, value in SECURITY_HEADERS.items()} | changed
        self.of_data = _pairs({n: v for n, v in chosen.items() if n not in _OF_PAGES or n in changed})
        self._of_pages = _pairs(chosen)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {name.lower(): value for name, value in headers}
                is_data = message["status"] == 304 or b"json" in present.get(b"content-type", b"")
                added = self.of_data if is_data else self._of_pages
                headers += [pair for pair in added if pair[0] not in present]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_secured)


def _pairs(headers: Mapping[str, str | None]) -> list[tuple[bytes, bytes]]:
    return [
        (name.encode("ascii"), value.encode("ascii")) for name, value in headers.items() if value is not None
    ]


DATA_HEADERS = _pairs({n.lower(): v for n, v in SECURITY_HEADERS.items() if n.lower() not in _OF_PAGES})
"""The headers set by default on JSON, as pairs with names in lower case."""


class HeadAsGet:
    """Runs HEAD as GET and drops the body: HEAD works wherever GET does, with the same headers.

    `Allow` headers are amended to say so. A request that `has_head` returns true for goes to the application as HEAD.

    >>> import asyncio
    >>> from diptych.http import HeadAsGet
    >>> async def site(scope, receive, send):
    ...     await send({"type": "http.response.body", "body": scope["method"].encode()})
    >>> async def send(message):
    ...     print(message["body"])
    >>> app = HeadAsGet(site)
    >>> for method in ("GET", "HEAD"):
    ...     asyncio.run(app({"type": "http", "method": method}, None, send))
    b'GET'
    b''
    """

    def __init__(self, app: ASGIApp, has_head: Callable[[Scope], bool] | None = None) -> None:
        self._app = app
        self._has_head = has_head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"

        async def send_as_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                if any(name.lower() == b"allow" for name, _ in message.get("headers", ())):
                    message = {**message, "headers": [_with_head(*pair) for pair in message["headers"]]}
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            elif is_head and message["type"] == "http.response.pathsend":  # a whole file as the body
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        is_get = is_head and not (self._has_head is not None and self._has_head(scope))
        await self._app({**scope, "method": "GET"} if is_get else scope, receive, send_as_head)


def _with_head(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    if name.lower() != b"allow":
        return name, value
    return name, allow_header(list_elements(value.decode("latin-1"))).encode("latin-1")


class RequestContext:
    """Sets `diptych.context.request_scope` to the request's scope while the application answers the request.

    Commands are told in this way of which request they are: the change log takes its correlation id from there, and
    an application's `actor` is called with this scope.

    >>> import asyncio
    >>> from diptych.http import RequestContext, request_scope
    >>> async def site(scope, receive, send):
    ...     print(request_scope.get()["path"])
    >>> asyncio.run(RequestContext(site)({"type": "http", "path": "/books"}, None, None))
    /books
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        token = request_scope.set(scope)
        try:
            await self._app(scope, receive, send)
        finally:
            request_scope.reset(token)
