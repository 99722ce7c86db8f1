"""Annotations of functions: resolved, taken apart, and shown to people."""

from __future__ import annotations

import types
from typing import Any, Union, get_args, get_origin, get_type_hints


def hints_of(function: Any, where: str, problems: list[str]) -> dict[str, Any]:
    """Returns the types in a function's annotations, by parameter; if a name is missing, adds to ``problems``."""
    try:
        return get_type_hints(function)
    except NameError as error:
        problems.append(
            f"{where} has an annotation that can't be resolved ({error}): import the name at run time"
        )
        return {}


def members_of(hint: Any) -> tuple[Any, ...]:
    """Returns the members of a union without None, or the type itself."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(member for member in get_args(hint) if member is not type(None))
    return (hint,)


def shown(hint: Any) -> str:
    """Returns a type as an error names it: a class by its bare name."""
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
