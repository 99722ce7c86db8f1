"""Small ASGI wrappers, to be put around an application of any framework."""

from __future__ import annotations

from collections.abc import Mapping

from diptych.context import request_scope
from diptych.http.asgi import ASGIApp, Message, Receive, Scope, Send, is_request
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


class SecurityHeaders:
    """Adds the usual security headers to every response, each only where the application did not set it.

    `changes` alters the defaults: a name with another value, or with None to leave that header out. `headers` are
    those that are added, names in lower case.
    """

    def __init__(self, app: ASGIApp, changes: Mapping[str, str | None] | None = None) -> None:
        self._app = app
        chosen: dict[str, str | None] = {name.lower(): value for name, value in SECURITY_HEADERS.items()}
        chosen |= {name.lower(): value for name, value in (changes or {}).items()}
        self.headers = [(n.encode("ascii"), v.encode("ascii")) for n, v in chosen.items() if v is not None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if not is_request(scope):
            await self._app(scope, receive, send)
            return

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {name.lower() for name, _ in headers}
                headers += [pair for pair in self.headers if pair[0] not in present]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_secured)


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
    methods = (method.strip() for method in value.decode("latin-1").split(","))
    return name, allow_header(method for method in methods if method).encode("latin-1")


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
