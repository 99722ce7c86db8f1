"""Commands, queries and events: frozen structs whose fields are checked, every one of them.

A message is checked when it is constructed in code and when it is built from outside data, by the same rules:
the annotations (``msgspec.Meta`` bounds included) and ``Rule`` functions inside ``Annotated``.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
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

R = TypeVar("R", covariant=True)
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
        canonical, faults = _check_fields(self)
        for name, value in canonical.items():
            msgspec.structs.force_setattr(self, name, value)
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
    named by its path, ``changes.title``, an item of a list by its number, ``tags.0``.
    """
    values, faults = _check_mapping(message_type, fields, text=text)
    if faults:
        raise InvalidMessage(message_type.__name__, faults)
    return message_type(**values)


class _Plan(NamedTuple):
    """How values of one type are checked. ``struct``: the one that objects become; ``item``: of a list or dict."""

    type: Any
    rules: tuple[Rule, ...]
    struct: type[msgspec.Struct] | None
    item: _Plan | None
    is_deep: bool
    """Whether msgspec alone can't check it: there are rules inside, or structs that may be constructed in code."""


class _Field(NamedTuple):
    name: str
    plan: _Plan
    required: bool
    allows_unset: bool


@cache
def _fields_of(struct: type[msgspec.Struct]) -> tuple[_Field, ...]:
    hints = get_type_hints(struct, include_extras=True)
    return tuple(
        _Field(
            name=field.name,
            plan=_plan(hints[field.name]),
            required=field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT,
            allows_unset=_allows_unset(hints[field.name]),
        )
        for field in msgspec.structs.fields(struct)
    )


def _plan(hint: Any) -> _Plan:
    rules = tuple(_rules_in(hint))
    structs = [member for member in _alternatives(hint) if _is_struct(member)]
    item = next((_plan(kind) for member in _alternatives(hint) for kind in _item_types(member)), None)
    return _Plan(
        type=hint,
        rules=rules,
        struct=structs[0] if len(structs) == 1 else None,  # of several, msgspec finds the one that is tagged
        item=item,
        is_deep=bool(rules or structs or (item is not None and item.is_deep)),
    )


def _check_mapping(
    struct: type[msgspec.Struct], fields: Mapping[str, Any], *, text: bool
) -> tuple[dict[str, Any], list[Fault]]:
    """The values for a struct from outside data, and what is wrong with them."""
    plan = _fields_of(struct)
    known = {field.name for field in plan}
    faults = [Fault(_printable(name), "is not a known field") for name in fields if name not in known]
    values: dict[str, Any] = {}
    for field in plan:
        if field.name in fields:
            values[field.name], found = _check_field(field, fields[field.name], text=text)
            faults += found
        elif field.required:
            faults.append(Fault(field.name, "is missing"))
    return values, faults


def _check_fields(struct: msgspec.Struct) -> tuple[dict[str, Any], list[Fault]]:
    """The fields of a struct whose canonical value is another object, and what is wrong with any."""
    canonical: dict[str, Any] = {}
    faults: list[Fault] = []
    for field in _fields_of(type(struct)):
        value = getattr(struct, field.name)
        checked, found = _check_field(field, value, text=False)
        faults += found
        if checked is not value:
            canonical[field.name] = checked
    return canonical, faults


def _check_field(field: _Field, value: Any, *, text: bool) -> tuple[Any, list[Fault]]:
    if value is UNSET:
        # Only a field that allows UNSET can hold it; outside data can't express it.
        return value, [] if field.allows_unset else [Fault(field.name, "is missing")]
    checked, faults = _check(field.plan, value, text=text)
    return checked, _under(field.name, faults)


def _check(plan: _Plan, value: Any, *, text: bool) -> tuple[Any, list[Fault]]:
    """The value in its canonical form, and what is wrong with it; a fault of the value itself has no path."""
    try:
        if plan.is_deep:
            value, faults = _check_parts(plan, value, text=text)
            if faults:
                return value, faults
        checked = msgspec.convert(value, plan.type, strict=not text)
        _check_unicode(checked)
        if checked is not None:
            for rule in plan.rules:
                checked = rule.check(checked)
    except UnicodeEncodeError:
        return value, [Fault("", "must be well-formed Unicode, without lone surrogates")]
    except msgspec.ValidationError as error:
        if text and value is None:
            return value, [Fault("", "must not be empty")]
        return value, _check_items(plan, value, text=text)[1] or [Fault("", worded(error))]
    except RecursionError:
        return value, [Fault("", "is nested too deeply")]
    except ValueError as error:
        return value, [Fault("", str(error))]
    return checked, []


def _check_parts(plan: _Plan, value: Any, *, text: bool) -> tuple[Any, list[Fault]]:
    if plan.struct is not None and isinstance(value, Mapping):
        values, faults = _check_mapping(plan.struct, value, text=text)
        return (value, faults) if faults else (plan.struct(**values), [])
    if isinstance(value, msgspec.Struct) and not isinstance(value, Message):  # a message has checked itself
        canonical, faults = _check_fields(value)
        return (msgspec.structs.replace(value, **canonical) if canonical and not faults else value), faults
    return _check_items(plan, value, text=text)


def _check_items(plan: _Plan, value: Any, *, text: bool) -> tuple[Any, list[Fault]]:
    if plan.item is None or not isinstance(value, list | tuple | Mapping):
        return value, []
    checked: dict[Any, Any] = {}
    faults: list[Fault] = []
    for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
        checked[key], found = _check(plan.item, part, text=text)
        faults += _under(_printable(str(key)), found)
    return (checked if isinstance(value, Mapping) else list(checked.values())), faults


def _check_unicode(value: Any) -> None:
    """Raises for a lone surrogate, which would fail later, in the middle of an SQL statement."""
    if isinstance(value, str):
        if not value.isascii():
            value.encode()
    elif isinstance(value, list | tuple | dict | set | frozenset):
        msgspec.json.encode(value, enc_hook=str)


def _under(name: str, faults: list[Fault]) -> list[Fault]:
    return [Fault(f"{name}.{f.field}" if f.field else name, f.detail) for f in faults]


def _printable(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def _rules_in(hint: Any) -> Iterator[Rule]:
    if get_origin(hint) is Annotated:
        yield from (extra for extra in hint.__metadata__ if isinstance(extra, Rule))
        yield from _rules_in(hint.__origin__)
    elif get_origin(hint) in (Union, types.UnionType):
        for member in get_args(hint):
            yield from _rules_in(member)


def _alternatives(hint: Any) -> Iterator[Any]:
    """The types that a value may have, without what annotates them."""
    if get_origin(hint) is Annotated:
        yield from _alternatives(hint.__origin__)
    elif get_origin(hint) in (Union, types.UnionType):
        for member in get_args(hint):
            yield from _alternatives(member)
    else:
        yield hint


def _item_types(hint: Any) -> Iterator[Any]:
    """What a list or a dict of this type holds; nothing for other types."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (list, Sequence) or (origin is tuple and arguments[1:] == (...,)):
        yield arguments[0]
    elif origin in (dict, Mapping):
        yield arguments[1]


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _allows_unset(hint: Any) -> bool:
    return any(member is msgspec.UnsetType for member in _alternatives(hint))
