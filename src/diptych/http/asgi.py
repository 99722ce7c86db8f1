"""The few ASGI types this room uses, and the reading of request headers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Literal, TypeAlias

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
    "list_elements",
]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# What is only read may be a framework's own types too, such as the typed dictionaries of Litestar.
RequestScope: TypeAlias = Mapping[str, Any]
RequestReceive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]

# RFC 9110, sections 5.6.1 and 5.6.4; a quote that is not closed goes to the end.
_QUOTED = r'"(?:[^"\\]|\\.)*"?'
_ELEMENTS = {separator: re.compile(rf'(?:[^"{separator}]|{_QUOTED})+') for separator in ",;"}


def header_values(scope: RequestScope, name: bytes) -> list[str]:
    """The values of the header `name` (lower case) in the order they came; none if it was not sent."""
    return [value.decode("latin-1").strip() for key, value in scope.get("headers", ()) if key.lower() == name]


def list_elements(value: str, separator: Literal[",", ";"] = ",") -> list[str]:
    """The elements of a list. Empty ones are none, and what is in quotes separates nothing."""
    return [element for found in _ELEMENTS[separator].findall(value) if (element := found.strip())]


def is_request(scope: RequestScope) -> bool:
    """Whether `scope` is an HTTP request (neither a WebSocket nor the lifespan)."""
    return bool(scope["type"] == "http")
