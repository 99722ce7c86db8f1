"""The kinds of values that settings have. No error of this module quotes a value, which may be a password."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from diptych.config.urls import check_database_url


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of values: its name for people, and the function that reads a value.

    ``parse`` returns the value in its type, or raises ValueError("must …").
    """

    label: str
    parse: Callable[[Any], Any]


def whole_number(low: int, high: int) -> Kind:
    """Returns the kind of the whole numbers from ``low`` to ``high``, as numbers or as text."""
    label = f"a whole number from {low} to {high}"
    bounded = Annotated[int, msgspec.Meta(ge=low, le=high)]

    def parse(value: object) -> Any:
        try:
            return msgspec.convert(value, bounded, strict=not isinstance(value, str))
        except msgspec.ValidationError:
            raise ValueError(f"must be {label}") from None

    return Kind(label, parse)


def choice(*words: str) -> Kind:
    """Returns the kind of a few ``words``, given in upper case and accepted in any."""
    label = f"one of {', '.join(words)}"

    def parse(value: object) -> str:
        if isinstance(value, str) and value.upper() in words:
            return value.upper()
        raise ValueError(f"must be {label}")

    return Kind(label, parse)


_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


def _truth(value: object) -> bool:
    word = str(value).lower() if isinstance(value, bool | int | str) else ""
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError("must be true or false")


def _name(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
        return value
    raise ValueError("must be 1 to 64 letters (A to Z), digits or any of _ . -")


def _database_address(value: object) -> str:
    return check_database_url(os.fspath(value) if isinstance(value, os.PathLike) else value)


_ANY = "*"
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,253}[A-Za-z0-9_])?")


def _elements(value: object) -> tuple[str, ...]:
    """Returns the elements of a list, or of a text with commas. Raises ValueError("must …")."""
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(element, str) for element in given):
        raise ValueError("must be a text with commas, or a list of texts")
    found = tuple(filter(None, (element.strip() for element in given)))
    if not found:
        raise ValueError("must have one element at least")
    return found


def _hosts(value: object) -> tuple[str, ...]:
    found = tuple(element.lower().strip("[]").removesuffix(".") for element in _elements(value))
    if not all(element == _ANY or _HOST.fullmatch(element) or _is_ipv6(element) for element in found):
        raise ValueError("must be names of hosts without ports, such as shop.example or *.shop.example, or *")
    return found


def _is_ipv6(element: str) -> bool:
    try:
        return (
            ipaddress.IPv6Address(element).scope_id is None
        )  # which only this machine knows, and no client sends
    except ValueError:
        return False


def _networks(value: object) -> tuple[str, ...]:
    found = _elements(value)
    try:
        return tuple(e if e == _ANY else _network(e) for e in found)
    except ValueError:
        raise ValueError("must be addresses or networks, such as 10.0.0.7 or 10.0.0.0/8, or *") from None


def _network(element: str) -> str:
    ipaddress.ip_network(element, strict=False)
    return element


TRUTH = Kind("true or false", _truth)
NAME = Kind("a name", _name)
DATABASE = Kind("a path or URL", _database_address)
HOSTS = Kind("names of hosts", _hosts)
NETWORKS = Kind("addresses of IP", _networks)
