"""Reading of a request's body, never further than allowed."""

from __future__ import annotations

from typing import Any, TypeVar

from diptych.http.asgi import RequestReceive, RequestScope, header_values, list_elements
from diptych.http.errors import BadRequest, ClientDisconnected, HttpError, PayloadTooLarge


class RequestTimeout(HttpError):
    """The body did not arrive in time."""

    status = 408

    def __init__(self) -> None:
        super().__init__("the body did not arrive in time; send it again")


class UnsupportedTransfer(HttpError):
    """The body is sent with a transfer coding (`Transfer-Encoding`) other than `chunked`."""

    status = 501

    def __init__(self) -> None:
        super().__init__("of the transfer codings only chunked is known here")


KEPT = "diptych.kept_body"
"""Scope key: a function that returns the body that a framework has read before and kept, or None."""


class WatchedReceive:
    """A framework's `receive` that notes whether it ``has_begun`` to give the body, to whomever.

    The server sends a body once: whoever asks for it again waits until the client goes away. ``mend`` says how the
    body is to be read instead.
    """

    def __init__(self, receive: RequestReceive, mend: str) -> None:
        self._receive = receive
        self.mend = mend
        self.has_begun = False

    async def __call__(self) -> Any:
        """Returns the next message of the server."""
        message = await self._receive()
        self.has_begun = self.has_begun or message["type"] == "http.request"
        return message


E = TypeVar("E", bound=HttpError)


def closing(refusal: E, scope: RequestScope) -> E:
    """Returns the refusal of a body whose rest nobody reads: its answer ends a connection of HTTP/1.

    Without the header a client may send its next request over a connection that the server is about to close.
    """
    if str(scope.get("http_version", "1.1")).startswith("1"):
        refusal.headers["Connection"] = "close"
    return refusal


async def read_body(scope: RequestScope, receive: RequestReceive, max_bytes: int) -> bytes:
    """Reads the whole body, of at most `max_bytes` bytes.

    Raises `PayloadTooLarge` as early as possible: by `Content-Length` before anything is read, else after the first
    chunk too many. Raises `ClientDisconnected` if the client went away, so that half a body is never taken for a
    whole body, `BadRequest` for a `Content-Length` that is no number, and `UnsupportedTransfer` for a body that is
    sent in another way than whole or in chunks. Of a body that something else has read before, what the framework has
    kept is returned; `RuntimeError` is raised if it has kept nothing.

    >>> import asyncio
    >>> from diptych.http import read_body
    >>> chunks = [{"type": "http.request", "body": b"ab", "more_body": True}, {"type": "http.request", "body": b"c"}]
    >>> async def receive():
    ...     return chunks.pop(0)
    >>> asyncio.run(read_body({"type": "http", "headers": []}, receive, max_bytes=3))
    b'abc'
    """
    codings = list_elements(",".join(header_values(scope, b"transfer-encoding")).lower())
    if codings not in ([], ["chunked"]):
        raise closing(UnsupportedTransfer(), scope)
    for declared in header_values(scope, b"content-length"):
        if not (declared.isascii() and declared.isdigit()):
            raise BadRequest("Content-Length is not a number")
        # The digits are counted first: Python refuses to convert thousands of them.
        if len(declared) > 18 or int(declared) > max_bytes:
            raise closing(PayloadTooLarge(max_bytes), scope)
    kept = _kept_body(scope, receive)
    if kept is not None:
        if len(kept) > max_bytes:
            raise PayloadTooLarge(max_bytes)
        return kept
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnected(in_chunks=bool(header_values(scope, b"transfer-encoding")))
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise closing(PayloadTooLarge(max_bytes), scope)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _kept_body(scope: RequestScope, receive: RequestReceive) -> bytes | None:
    """Returns the body that was read before; None if it is still to come. Raises `RuntimeError` if it is gone."""
    kept: bytes | None = scope[KEPT]() if KEPT in scope else None
    if kept is None and isinstance(receive, WatchedReceive) and receive.has_begun:
        raise RuntimeError(f"the body was read before, and is gone: {receive.mend}")
    return kept
