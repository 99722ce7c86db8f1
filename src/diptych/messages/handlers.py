"""The registry of handlers, checked once at start. Nothing stands between a message and its handler.

A handler is a public ``async def`` method of a plain class whose only parameter is annotated with a command or a
query. The class gets its services through its constructor, by the types of the parameters.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_origin

from diptych.errors import WiringError
from diptych.messages.annotations import hints_of, members_of, shown
from diptych.messages.message import Command, Message, Query
from diptych.messages.services import construct

Handler = Callable[[Any], Coroutine[Any, Any, Any]]


class _Method(NamedTuple):
    owner: type
    name: str
    message: type[Message]

    def __str__(self) -> str:
        return f"{self.owner.__name__}.{self.name}"


class Bus:
    """The handlers of an application by the types of their messages, fixed at construction.

    ``services`` maps types to instances, for the constructors of the handler classes: a parameter is given the
    instance of its very type, else the only service that is an instance of its type. Raises ``WiringError`` that
    lists every fault with its remedy.
    """

    __slots__ = ("_handlers",)

    def __init__(self, handler_classes: Sequence[type], services: Mapping[type, object | None]) -> None:
        problems = [_no_class(owner) for owner in handler_classes if not isinstance(owner, type)]
        handler_classes = [owner for owner in handler_classes if isinstance(owner, type)]
        methods = [method for owner in handler_classes for method in _methods(owner, problems)]
        problems += _duplicates(methods)
        problems += _unhandled(handler_classes, methods)
        instances = {owner: construct(owner, services, problems) for owner in handler_classes}
        if problems:
            raise WiringError(problems)
        self._handlers: dict[type, Handler] = {
            method.message: getattr(instances[method.owner], method.name) for method in methods
        }

    def handler_of(self, message_type: type) -> Handler:
        """Returns the handler of a type of messages. Raises ``WiringError`` for a type without a handler."""
        try:
            return self._handlers[message_type]
        except KeyError:
            raise WiringError([_no_handler(message_type)]) from None

    def queries(self) -> dict[type, Handler]:
        """Returns the handlers of queries alone, by the types of the queries."""
        return {kind: handler for kind, handler in self._handlers.items() if issubclass(kind, Query)}


def _methods(owner: type, problems: list[str]) -> Iterator[_Method]:
    for name, function in inspect.getmembers(owner, _is_function):
        if name.startswith("_"):
            continue
        where = f"{owner.__name__}.{name}"
        hints = hints_of(function, where, problems)
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
    if not _is_message(hints[parameter.name]):
        return (
            f"{method} takes {shown(hints[parameter.name])}: a handler takes one kind of message, so write a "
            "method for each"
        )
    if not inspect.iscoroutinefunction(function):
        return f"{method} is not asynchronous: write it with `async def`"
    promised, returned = _result_of(method.message), hints.get("return", Any)
    if Any not in (promised, returned) and promised != returned:
        return (
            f"{method} returns {shown(returned)}, but {method.message.__name__} promises "
            f"{shown(promised)}: make them the same"
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
    concrete = {(cls.__module__, cls.__qualname__): cls for cls in (*_concrete(Command), *_concrete(Query))}
    for name, message in sorted(concrete.items()):
        if name not in handled and _scope(message) in scopes:
            yield _no_handler(message)


def _concrete(base: type[Message]) -> Iterator[type[Message]]:
    for child in base.__subclasses__():
        yield from _concrete(child)
        if not _is_base(child):
            yield child


def _is_base(message: type[Message]) -> bool:
    """Returns whether a message is there for its subclasses alone, and will never be sent itself."""
    if not message.__subclasses__():
        return False
    bases = [base for base in message.__mro__[1:] if issubclass(base, Message)]
    inherited = {field for base in bases for field in base.__struct_fields__}
    generic = bool(getattr(message, "__parameters__", ()))
    return generic or message.__name__.startswith("_") or inherited.issuperset(message.__struct_fields__)


def _result_of(message: type) -> Any:
    for base in getattr(message, "__orig_bases__", ()):
        if get_origin(base) in (Command, Query):
            return get_args(base)[0]
    return Any


def _scope(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__.rpartition(".")[0]


def _messages_in(hint: Any) -> list[type[Message]]:
    return [member for member in members_of(hint) if _is_message(member)]


def _is_message(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Command | Query)


def _no_class(handler: object) -> str:
    return (
        f"handlers has something of the type {type(handler).__name__} where a class belongs: list the class "
        "itself, of which one instance is made with the services that it asks for"
    )


def _no_handler(message: type) -> str:
    kind = "query" if issubclass(message, Query) else "command"
    base = ", or begin its name with _ if it is only a base of others" if message.__subclasses__() else ""
    return (
        f"the {kind} {message.__name__} has no handler: add `async def …(self, {kind}: "
        f"{message.__name__})` to a class in Diptych(handlers=[…]){base}"
    )


def _right(method: _Method) -> str:
    kind = "query" if issubclass(method.message, Query) else "command"
    return f"`async def {method.name}(self, {kind}: {method.message.__name__})`"
