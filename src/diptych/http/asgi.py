"""The few ASGI types this room uses, and the reading of request headers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

__all__ = [
    "ASGIApp",
    "Message",
    "Receive",
    "RequestReceive",
    "RequestScope",
    "Scope",
    "Send",
    "header_values",
    "is_request",
]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# What is only read may be a framework's own types too, such as the typed dictionaries of Litestar.
RequestScope: TypeAlias = Mapping[str, Any]
RequestReceive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]


def header_values(scope: RequestScope, name: bytes) -> list[str]:
    """The values of the header `name` (lower case) in the order they came; none if it was not sent."""
    return [value.decode("latin-1").strip() for key, value in scope.get("headers", ()) if key.lower() == name]


def is_request(scope: RequestScope) -> bool:
    """Whether `scope` is an HTTP request (neither a WebSocket nor the lifespan)."""
    return bool(scope["type"] == "http")
