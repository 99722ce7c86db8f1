"""Commands, queries and events: frozen structs whose fields are checked, every one of them.

A message is checked when it is constructed in code and when it is built from outside data, by the same rules:
the annotations (``msgspec.Meta`` bounds included) and ``Rule`` functions inside ``Annotated``.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import (
    Annotated,
    Any,
    Generic,
    NamedTuple,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import UNSET

from diptych.errors import Fault, InvalidMessage
from diptych.wording import worded

R = TypeVar("R")
S = TypeVar("S", bound=msgspec.Struct)


class Rule:
    """A check that types can't express: ``Annotated[str, Rule(not_blank)]``.

    ``check`` takes a value of the annotated type and returns it, or an equal one in its canonical form (checking
    that form again must give the same); for a faulty value it raises ``ValueError("must …")``, which is
    reported behind the field's name. It is not called for ``None`` and ``UNSET``.
    """

    __slots__ = ("check",)

    def __init__(self, check: Callable[[Any], Any]) -> None:
        self.check = check


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, frozen=True):
    """The base of what is sent through the bus. Constructing a faulty one raises ``InvalidMessage``."""

    def __post_init__(self) -> None:
        faults: list[Fault] = []
        for field in _fields_of(type(self)):
            value = getattr(self, field.name)
            checked, found = _check(field, value, text=False)
            faults += found
            if checked is not value:
                msgspec.structs.force_setattr(self, field.name, checked)
        if faults:
            raise InvalidMessage(type(self).__name__, faults)


class Command(Message, Generic[R], frozen=True):
    """Asks for a change. ``R`` is what ``await app.execute(command)`` returns."""


class Query(Message, Generic[R], frozen=True):
    """Asks for an answer and changes nothing. ``R`` is what ``await app.ask(query)`` returns."""


class Event(Message, frozen=True):
    """Tells of a change that has happened."""


def build(message_type: type[S], fields: Mapping[str, Any], *, text: bool = False) -> S:
    """Makes a struct from outside data, such as decoded JSON, and reports every faulty field at once.

    With ``text`` the values are strings of a form or a query string and are converted to the fields' types.
    Raises ``InvalidMessage`` whose faults name unknown, missing and wrong fields; a field of a nested struct is
    named by its path, ``changes.title``.
    """
    plan = _fields_of(message_type)
    known = {field.name for field in plan}
    faults = [Fault(name, "is not a known field") for name in fields if name not in known]
    values: dict[str, Any] = {}
    for field in plan:
        if field.name in fields:
            values[field.name], found = _check(field, fields[field.name], text=text)
            faults += found
        elif field.required:
            faults.append(Fault(field.name, "is missing"))
    if faults:
        raise InvalidMessage(message_type.__name__, faults)
    return message_type(**values)


class _Field(NamedTuple):
    name: str
    type: Any
    rules: tuple[Rule, ...]
    nested: type[msgspec.Struct] | None
    required: bool


@cache
def _fields_of(struct: type[msgspec.Struct]) -> tuple[_Field, ...]:
    hints = get_type_hints(struct, include_extras=True)
    return tuple(
        _Field(
            name=field.name,
            type=hints[field.name],
            rules=tuple(_rules_in(hints[field.name])),
            nested=_struct_in(hints[field.name]),
            required=field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT,
        )
        for field in msgspec.structs.fields(struct)
    )


def _check(field: _Field, value: Any, *, text: bool) -> tuple[Any, list[Fault]]:
    """The value in its canonical form, and what is wrong with it."""
    if value is UNSET and not text:
        # Only a field that allows UNSET can hold it; outside data can't express it.
        return value, [] if _allows_unset(field.type) else [Fault(field.name, "is missing")]
    try:
        if field.nested is not None and isinstance(value, Mapping):
            return build(field.nested, value, text=text), []
        checked = msgspec.convert(value, field.type, strict=not text)
        if isinstance(checked, str) and not checked.isascii():
            checked.encode()  # a lone surrogate would fail later, in the middle of an SQL statement
        if checked is not None and checked is not UNSET:
            for rule in field.rules:
                checked = rule.check(checked)
    except InvalidMessage as error:
        return value, [Fault(f"{field.name}.{fault.field}", fault.detail) for fault in error.faults]
    except UnicodeEncodeError:
        return value, [Fault(field.name, "must be well-formed Unicode, without lone surrogates")]
    except msgspec.ValidationError as error:
        return value, [Fault(field.name, worded(error))]
    except ValueError as error:
        return value, [Fault(field.name, str(error))]
    return checked, []


def _rules_in(hint: Any) -> Iterator[Rule]:
    if get_origin(hint) is Annotated:
        yield from (extra for extra in hint.__metadata__ if isinstance(extra, Rule))
        yield from _rules_in(hint.__origin__)
    elif get_origin(hint) in (Union, types.UnionType):
        for member in get_args(hint):
            yield from _rules_in(member)


def _struct_in(hint: Any) -> type[msgspec.Struct] | None:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    if get_origin(hint) in (Union, types.UnionType):
        return next(filter(None, map(_struct_in, get_args(hint))), None)
    return None


def _allows_unset(hint: Any) -> bool:
    return hint is msgspec.UnsetType or any(map(_allows_unset, get_args(hint)))
