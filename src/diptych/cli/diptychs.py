"""The ``Diptych`` in what a command is given: itself, a framework's application, or wrappers around one.

A framework's application names its Diptych as ``app.state.diptych``, as `diptych.ext.litestar` and
`diptych.ext.fastapi` make it do; what `asgi_app` returns, as ``app.diptych``. Where neither is set, the functions
that the application is made of are searched, such as a lifespan that starts a Diptych of its module.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

from diptych.app import Diptych

_WAYS = ("app", "_app", "application", "router", "routes", "lifespan_context", "on_startup", "__wrapped__")
"""Attributes by which wrappers, routers and mounts of the usual frameworks lead on."""

_MOST = 10_000
"""Number of objects that are looked at: far more than an application is made of."""


def diptychs_in(found: object) -> list[Diptych]:
    """Returns every Diptych that an application, or a wrapper around one, is known to serve.

    What an object says of itself counts, and then nothing behind it is looked at.
    """
    seen: dict[int, object] = {}  # objects are kept, so that no other one gets the id of one that was seen
    waiting, result = [found], []
    while waiting and len(seen) < _MOST:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        own = value if isinstance(value, Diptych) else _named_by(value)
        if isinstance(own, Diptych):
            if own not in result:
                result.append(own)
        else:
            waiting += _behind(value)
    return result


def _named_by(value: object) -> object:
    """Returns what an application says is its Diptych."""
    if isinstance(value, _PLAIN):
        return None
    named = _attribute(_attribute(value, "state"), "diptych")
    return named if isinstance(named, Diptych) else _attribute(value, "diptych")


def _behind(value: object) -> Iterable[object]:
    match value:
        case FunctionType():
            return _of_function(value)
        case MethodType():
            return (value.__self__, value.__func__)
        case functools.partial():
            return (value.func, *value.args, *value.keywords.values())
        case list() | tuple():
            return value
    if isinstance(value, _PLAIN):
        return ()
    return [found for name in _WAYS if (found := _attribute(value, name)) is not None]


def _of_function(function: FunctionType) -> Iterator[object]:
    """Yields the function that a wrapper wraps, the values of its closure, and the globals that its code names."""
    if (wrapped := getattr(function, "__wrapped__", None)) is not None:
        yield wrapped
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it is not set yet
            continue
    named = (function.__globals__.get(name) for name in function.__code__.co_names)
    # Not functions: one of a library would lead through all that the library is made of.
    yield from (value for value in named if not isinstance(value, FunctionType))


def _attribute(value: object, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception:  # a property of somebody else's
        return None


def names_of_diptychs(module: ModuleType) -> list[str]:
    """Returns the names under which a module has a Diptych."""
    return [name for name, value in vars(module).items() if isinstance(value, Diptych)]


_PLAIN = (type, ModuleType, str, bytes, int, float, dict, set, frozenset, type(None))
"""Types of values that hold no application, or too much: a module has all that it imports."""
