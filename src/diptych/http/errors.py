"""Errors of HTTP: refusals of requests, as a tree of classes.

    HttpError
    ├── BadRequest                400  cannot be understood
    │   └── ClientDisconnected    400  the client went away while sending; nobody sees the answer
    ├── CrossSite                 403  sent by a browser on behalf of another site's page
    ├── NotFound                  404
    ├── MethodNotAllowed          405  carries ``allow``
    ├── PayloadTooLarge           413  carries ``max_bytes``
    └── UnsupportedMediaType      415  carries ``accepted``

Their texts are shown to the client.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from diptych.errors import DiptychError

__all__ = [
    "BadRequest",
    "ClientDisconnected",
    "CrossSite",
    "HttpError",
    "MethodNotAllowed",
    "NotFound",
    "PayloadTooLarge",
    "UnsupportedMediaType",
    "allow_header",
]


class HttpError(DiptychError):
    """A request is refused with ``status``; the client is shown ``detail`` and sent ``headers``."""

    status: ClassVar[int]

    def __init__(self, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers: dict[str, str] = headers or {}


class BadRequest(HttpError):
    """The request cannot be understood: malformed JSON, a path with bytes other than UTF-8, and the like."""

    status = 400


class ClientDisconnected(BadRequest):
    """The client went away before its whole body was here; the received part must not be acted upon."""

    def __init__(self) -> None:
        super().__init__("the client disconnected before the whole body was sent")


class CrossSite(HttpError):
    """A browser sent an unsafe request on behalf of a page of some other site."""

    status = 403

    def __init__(self) -> None:
        super().__init__("this request was sent from another site's page; send it from a page of this site")


class NotFound(HttpError):
    """There is nothing under this path."""

    status = 404

    def __init__(self, detail: str = "there is nothing at this address") -> None:
        super().__init__(detail)


class MethodNotAllowed(HttpError):
    """The path exists but not for this method; ``allow`` names the methods of the path."""

    status = 405

    def __init__(self, allow: Iterable[str]) -> None:
        self.allow = allow_header(allow)
        super().__init__(f"this address allows only: {self.allow}", {"Allow": self.allow})


class PayloadTooLarge(HttpError):
    """The body is longer than ``max_bytes``."""

    status = 413

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the body is longer than the {max_bytes} bytes that are read")
        self.max_bytes = max_bytes


class UnsupportedMediaType(HttpError):
    """The body has an unknown type, charset or coding; ``accepted`` names the accepted types."""

    status = 415

    def __init__(self, detail: str, accepted: Iterable[str]) -> None:
        self.accepted = tuple(accepted)
        super().__init__(detail, {"Accept": ", ".join(self.accepted)})


def allow_header(methods: Iterable[str]) -> str:
    """Returns the value of an `Allow` header for these methods, with HEAD beside GET, as served by `HeadAsGet`."""
    named = set(methods)
    return ", ".join(sorted(named | {"HEAD"} if "GET" in named else named))
