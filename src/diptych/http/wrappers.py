"""Small ASGI wrappers, to be put around an application of any framework."""

from __future__ import annotations

from collections.abc import Mapping

from diptych.context import request_scope
from diptych.http.asgi import ASGIApp, Message, Receive, Scope, Send, is_request, list_elements
from diptych.http.errors import allow_header

__all__ = ["SECURITY_HEADERS", "HeadAsGet", "RequestContext", "SecurityHeaders"]

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
"""What `SecurityHeaders` sets if nothing else is said. No HSTS: that is for whoever ends TLS to decide."""


# They say what a page may do, and where it may be shown; a browser heeds none of them on data, which `nosniff`
# keeps from being taken for a page. On an answer of a hundred bytes they would be most of it.
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
    """Adds the usual security headers to every response, each only where the application did not set it.

    Those that concern pages alone are left out of JSON, and of 304. `changes` alters the defaults: a name with
    another value, which is then on every response, or with None to leave that header out. `of_data` are the headers
    that are added to JSON, names in lower case.
    """

    def __init__(self, app: ASGIApp, changes: Mapping[str, str | None] | None = None) -> None:
        self._app = app
        chosen: dict[str, str | None] = {name.lower(): value for name, value in SECURITY_HEADERS.items()}
        chosen |= {name.lower(): value for name, value in (changes or {}).items()}
        changed = {name.lower() for name in changes or {}}
        of_all = {n: v for n, v in chosen.items() if n not in _OF_PAGES or n in changed}
        self.of_data = _pairs(of_all)
        self._of_pages = _pairs(chosen)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if not is_request(scope):
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


class HeadAsGet:
    """Runs HEAD as GET and drops the body, so that HEAD works wherever GET does, with the headers GET has.

    `Allow` headers are amended to say so.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if not is_request(scope):
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

        await self._app({**scope, "method": "GET"} if is_head else scope, receive, send_as_head)


def _with_head(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    if name.lower() != b"allow":
        return name, value
    return name, allow_header(list_elements(value.decode("latin-1"))).encode("latin-1")


class RequestContext:
    """Makes the request's scope known to what runs in its course: `diptych.context.request_scope`."""

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
