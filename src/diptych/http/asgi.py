"""ASGI types, and the reading of request headers."""

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


def is_request(scope: RequestScope) -> bool:
    """Returns True for an HTTP request (neither a WebSocket nor the lifespan)."""
    return bool(scope["type"] == "http")
