"""The registry of handlers, checked once at start. Nothing stands between a message and its handler.

A handler is a public ``async def`` method of a plain class whose only parameter is annotated with a command or a
query. The class gets its services through its constructor, by the types of the parameters.
"""

from __future__ import annotations

import dis
import inspect
import itertools
import types
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from diptych.errors import WiringError
from diptych.messages.kinds import BASES, QUERIES, fault_of_kind, field_names, is_message, result_type

Handler = Callable[[Any], Coroutine[Any, Any, Any]]


class _Method(NamedTuple):
    owner: type
    name: str
    message: type[Any]

    def __str__(self) -> str:
        return f"{self.owner.__name__}.{self.name}"


class Bus:
    """The handlers of an application by the types of their messages, fixed at construction.

    ``services`` maps types to instances, for the constructors of the handler classes: a parameter is given the
    instance of its very type, else the only service that is an instance of its type. ``ending_with_call`` are the
    types of messages whose handlers await one call and do nothing after it. Raises ``WiringError`` that lists every
    fault with its remedy.
    """

    __slots__ = ("_handlers", "_services", "ending_with_call")

    def __init__(self, handler_classes: Sequence[type], services: Mapping[type, object | None]) -> None:
        problems = [_no_class(owner) for owner in handler_classes if not isinstance(owner, type)]
        handler_classes = [owner for owner in handler_classes if isinstance(owner, type)]
        methods = [method for owner in handler_classes for method in _methods(owner, problems)]
        problems += _duplicates(methods)
        problems += _unhandled(handler_classes, methods)
        instances = {owner: _construct(owner, services, problems) for owner in handler_classes}
        if problems:
            raise WiringError(problems)
        self._services = services
        self._handlers: dict[type, Handler] = {
            method.message: getattr(instances[method.owner], method.name) for method in methods
        }
        self.ending_with_call = frozenset(
            method.message for method in methods if ends_with_call(getattr(method.owner, method.name))
        )

    def handler_of(self, message_type: type) -> Handler:
        """Returns the handler of a type of messages. Raises ``WiringError`` for a type without a handler."""
        try:
            return self._handlers[message_type]
        except KeyError:
            raise WiringError([_no_handler(message_type)]) from None

    def provide(self, kind: type) -> object:
        """Returns the service for a parameter of this type. Raises ``WiringError`` if none, or several, fit."""
        found = _provided(kind, self._services)
        if len(found) != 1:
            known = ", ".join(sorted(one.__name__ for one in self._services))
            raise WiringError(
                [f"{len(found)} services are a {_shown(kind)}, and one is asked for (there are: {known})"]
            )
        return found[0]

    def queries(self) -> dict[type, Handler]:
        """Returns the handlers of queries alone, by the types of the queries."""
        return {kind: handler for kind, handler in self._handlers.items() if issubclass(kind, QUERIES)}


_OF_AWAIT = frozenset({"SEND", "YIELD_VALUE", "RESUME", "JUMP_BACKWARD_NO_INTERRUPT", "END_SEND", "NOP"})
"""Instructions of an ``await`` after its first two."""

_ENDS = (("RETURN_VALUE",), ("POP_TOP", "RETURN_CONST"), ("POP_TOP", "LOAD_CONST", "RETURN_VALUE"))


def ends_with_call(function: Callable[..., Any]) -> bool:
    """Returns whether an asynchronous function awaits at one place alone, and returns without doing anything more.

    Told by the bytecode: ``return await x`` as its only ``await`` is such an end, and ``await x`` as last statement.
    """
    if not inspect.iscoroutinefunction(function) or not isinstance(function, types.FunctionType):
        return False
    names = [instruction.opname for instruction in dis.get_instructions(function)]
    others = {"GET_AITER", "GET_ANEXT", "BEFORE_ASYNC_WITH"}
    if names.count("GET_AWAITABLE") != 1 or not others.isdisjoint(names):
        return False
    after = names[names.index("GET_AWAITABLE") + 2 :]
    rest = tuple(itertools.islice(itertools.dropwhile(_OF_AWAIT.__contains__, after), 3))
    return any(rest[: len(end)] == end for end in _ENDS)


def _methods(owner: type, problems: list[str]) -> Iterator[_Method]:
    for name, function in inspect.getmembers(owner, _is_function):
        if name.startswith("_"):
            continue
        where = f"{owner.__name__}.{name}"
        hints = _hints_of(function, where, problems)
        hints = {p: hint for p, hint in hints.items() if p == "return" or _messages_in(hint)}
        messages = [message for p, hint in hints.items() if p != "return" for message in _messages_in(hint)]
        if not messages:
            continue
        method = _Method(owner, name, messages[0])
        fault = _not_a_method(method) or _fault_of(method, function, hints)
        if fault:
            problems.append(fault)
        else:
            yield method


def _is_function(member: object) -> bool:
    return inspect.isfunction(member) or inspect.ismethod(member)  # a class method is the latter


def _not_a_method(method: _Method) -> str | None:
    if isinstance(inspect.getattr_static(method.owner, method.name), types.FunctionType):
        return None
    return (
        f"{method} takes a {method.message.__name__}, but is no plain method: write {_right(method)}, or begin "
        "its name with _ if it handles nothing"
    )


def _fault_of(method: _Method, function: Callable[..., Any], hints: dict[str, Any]) -> str | None:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if len(parameters) != 1:
        return (
            f"{method} takes {len(parameters)} parameters: a handler takes the message alone, "
            f"and services through the constructor of {method.owner.__name__}"
        )
    (parameter,) = parameters
    if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
        return f"{method} can't be given its message by position: write {_right(method)}"
    if not is_message(hints[parameter.name]):
        return (
            f"{method} takes {_shown(hints[parameter.name])}: a handler takes one kind of message, so write a "
            "method for each"
        )
    if fault := fault_of_kind(method.message):
        return fault
    if not inspect.iscoroutinefunction(function):
        return f"{method} is not asynchronous: write it with `async def`"
    promised, returned = result_type(method.message), hints.get("return", Any)
    if Any not in (promised, returned) and promised != returned:
        return (
            f"{method} returns {_shown(returned)}, but {method.message.__name__} promises "
            f"{_shown(promised)}: make them the same"
        )
    return None


def _duplicates(methods: Iterable[_Method]) -> Iterator[str]:
    by_message: dict[type, list[_Method]] = {}
    for method in methods:
        by_message.setdefault(method.message, []).append(method)
    for message, found in by_message.items():
        if len(found) > 1:
            names = " and ".join(map(str, found))
            yield f"{message.__name__} has {len(found)} handlers, {names}: keep one of them"


def _unhandled(handler_classes: Sequence[type], methods: Sequence[_Method]) -> Iterator[str]:
    """Yields the problem of each message without a handler that is defined beside handlers or handled messages."""
    scopes = {_scope(cls) for cls in (*handler_classes, *(method.message for method in methods))}
    # By name: where a function defines messages (a factory of applications), the classes of earlier calls live on.
    handled = {(method.message.__module__, method.message.__qualname__) for method in methods}
    concrete = {(cls.__module__, cls.__qualname__): cls for base in BASES for cls in _concrete(base)}
    for name, message in sorted(concrete.items()):
        if name not in handled and _scope(message) in scopes:
            yield _no_handler(message)


def _concrete(base: type[Any]) -> Iterator[type[Any]]:
    for child in base.__subclasses__():
        yield from _concrete(child)
        if not _is_base(child):
            yield child


def _is_base(message: type[Any]) -> bool:
    """Returns whether a message is there for its subclasses alone, and will never be sent itself."""
    if not message.__subclasses__():
        return False
    bases = [base for base in message.__mro__[1:] if is_message(base)]
    inherited = {field for base in bases for field in field_names(base)}
    generic = bool(getattr(message, "__parameters__", ()))
    return generic or message.__name__.startswith("_") or inherited.issuperset(field_names(message))


def _scope(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__.rpartition(".")[0]


def _messages_in(hint: Any) -> list[type[Any]]:
    return [member for member in _members_of(hint) if is_message(member)]


def _no_class(handler: object) -> str:
    return (
        f"handlers has something of the type {type(handler).__name__} where a class belongs: list the class "
        "itself, of which one instance is made with the services that it asks for"
    )


def _no_handler(message: type) -> str:
    kind = "query" if issubclass(message, QUERIES) else "command"
    base = ", or begin its name with _ if it is only a base of others" if message.__subclasses__() else ""
    return (
        f"the {kind} {message.__name__} has no handler: add `async def …(self, {kind}: "
        f"{message.__name__})` to a class in Diptych(handlers=[…]){base}"
    )


def _right(method: _Method) -> str:
    kind = "query" if issubclass(method.message, QUERIES) else "command"
    return f"`async def {method.name}(self, {kind}: {method.message.__name__})`"


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


def _construct(owner: type, services: Mapping[type, object | None], problems: list[str]) -> object | None:
    """Makes a handler class's instance with its services; where that can't be done, adds to ``problems`` instead."""
    arguments: dict[str, object] = {}
    faults: list[str] = []
    constructor = getattr(owner, "__init__")  # noqa: B009 - mypy finds the plain access unsound
    hints = _hints_of(constructor, owner.__name__, faults) if constructor is not object.__init__ else {}
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
    for kind in _members_of(wanted):
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
    asks = f"{owner.__name__} asks for {name}: {_shown(wanted)}"
    if count > 1:
        return f"{asks}, and {count} services fit: annotate it with the class of the one it needs"
    if wanted in services:
        return f"{asks}, which is not set up here: set REDIS_URL, or annotate it `{_shown(wanted)} | None`"
    known = ", ".join(sorted(kind.__name__ for kind in services))
    return (
        f"{asks}, which nothing provides: pass an instance in Diptych(services=[…]), or list the read model in "
        f"read_models (there are: {known})"
    )


def _is_instance(service: object | None, kind: type) -> bool:
    try:
        return kind is not object and isinstance(service, kind)
    except TypeError:  # a Protocol that can't be checked at run time
        return False


def _hints_of(function: Any, where: str, problems: list[str]) -> dict[str, Any]:
    """Returns the types in a function's annotations, by parameter; if a name is missing, adds to ``problems``."""
    try:
        return get_type_hints(function)
    except NameError as error:
        problems.append(
            f"{where} has an annotation that can't be resolved ({error}): import the name at run time"
        )
        return {}


def _members_of(hint: Any) -> tuple[Any, ...]:
    """Returns the members of a union without None, or the type itself."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(member for member in get_args(hint) if member is not type(None))
    return (hint,)


def _shown(hint: Any) -> str:
    """Returns a type as an error names it: a class by its bare name."""
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
