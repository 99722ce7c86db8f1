"""Services for the constructors of handler classes, found by the types of the parameters."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from diptych.errors import WiringError
from diptych.messages.annotations import hints_of, members_of, shown


def by_type(services: Sequence[object]) -> dict[type, object | None]:
    """Returns the services by their types, for ``Bus``. Raises ``WiringError`` if two have the same type."""
    counts = Counter(map(type, services))
    problems = [
        f"{count} services are of the type {kind.__name__}: keep one, or give each a class of its own"
        for kind, count in counts.items()
        if count > 1
    ]
    if problems:
        raise WiringError(problems)
    return {type(service): service for service in services}


def construct(owner: type, services: Mapping[type, object | None], problems: list[str]) -> object | None:
    """Makes a handler class's instance with its services; where that can't be done, adds to ``problems`` instead."""
    arguments: dict[str, object] = {}
    faults: list[str] = []
    constructor = getattr(owner, "__init__")  # noqa: B009 - mypy finds the plain access unsound
    hints = hints_of(constructor, owner.__name__, faults) if constructor is not object.__init__ else {}
    parameters = {} if faults else inspect.signature(owner).parameters
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        wanted = hints.get(name)
        found = _provided(wanted, services)
        if parameter.kind is parameter.POSITIONAL_ONLY:
            faults.append(f"{owner.__name__}.__init__ takes {name} by position alone: leave out the `/`")
        elif len(found) == 1:
            arguments[name] = found[0]
        elif found or (parameter.default is parameter.empty and type(None) not in get_args(wanted)):
            faults.append(_cannot_provide(owner, name, wanted, len(found), services))
        elif parameter.default is parameter.empty:
            arguments[name] = None
    problems += faults
    return None if faults else owner(**arguments)


def _provided(wanted: Any, services: Mapping[type, object | None]) -> list[object]:
    for kind in members_of(wanted):
        if services.get(kind) is not None:
            return [services[kind]]
        found = [s for s in services.values() if isinstance(kind, type) and _is_instance(s, kind)]
        if found:
            return found
    return []


def _cannot_provide(
    owner: type, name: str, wanted: Any, count: int, services: Mapping[type, object | None]
) -> str:
    if wanted is None:
        return (
            f"{owner.__name__}.__init__ does not say the type of its parameter {name!r}: annotate "
            "it with the service it needs"
        )
    if count > 1:
        return (
            f"{owner.__name__} asks for {name}: {shown(wanted)}, and {count} services fit: "
            "annotate it with the class of the one it needs"
        )
    if wanted in services:
        return (
            f"{owner.__name__} asks for {name}: {shown(wanted)}, which is not set up here: "
            f"set REDIS_URL, or annotate it `{shown(wanted)} | None`"
        )
    known = ", ".join(sorted(kind.__name__ for kind in services))
    return (
        f"{owner.__name__} asks for {name}: {shown(wanted)}, which nothing provides: "
        "pass an instance in Diptych(services=[…]), or list the read model in read_models "
        f"(there are: {known})"
    )


def _is_instance(service: object | None, kind: type) -> bool:
    try:
        return kind is not object and isinstance(service, kind)
    except TypeError:  # a Protocol that can't be checked at run time
        return False
