"""The kinds of values that settings take: how each is read, and how it is named to people.

No message of this module quotes the value: it may be a password that was given to the wrong setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from diptych.config.urls import check_database_url, check_redis_url


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


DATABASE_ADDRESS = Kind("a path or URL", _database_address)
REDIS_ADDRESS = Kind("a URL", check_redis_url)
TRUTH = Kind("true or false", _truth)
NAME = Kind("a name", _name)
DAYS = whole_number(1, 36_500)
COUNT = whole_number(1, 1_000)
ANYTHING = Kind("anything", lambda value: value)
