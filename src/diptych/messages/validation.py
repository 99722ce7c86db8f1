"""The fields of structs, checked one by one, so that every fault is found and not only the first.

``messages`` is built on it: a plan says how values of a type are checked, whether they come from code, from JSON or
from text.
"""

from __future__ import annotations

import enum
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import UNSET

from diptych.errors import Fault
from diptych.messages.wording import worded

_UNKNOWN = "is not a known field"
_UNKNOWN_NAMED = 20
_NAME_LENGTH = 100


class Rule:
    """A check that types can't express: ``Annotated[str, Rule(not_blank)]``.

    ``check`` takes a value of the annotated type and returns it, or an equal one in its canonical form (checking
    that form again must give the same); for a faulty value it raises ``ValueError("must …")``, which is
    reported behind the field's name. It is not called for ``None`` and ``UNSET``.
    """

    __slots__ = ("check",)

    def __init__(self, check: Callable[[Any], Any]) -> None:
        self.check = check


class _Plan(NamedTuple):
    """How values of one type are checked. ``struct``: the one that objects become; ``item``: of a list or dict."""

    type: Any
    rules: tuple[Rule, ...]
    struct: type[msgspec.Struct] | None
    item: _Plan | None
    is_deep: bool
    """Whether msgspec alone can't check it: there are rules inside, or structs that may be constructed in code."""
    scalars: frozenset[type]
    """What a value that came as text may be meant as."""


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
        scalars=frozenset(kind for member in _alternatives(hint) for kind in _scalars_of(member)),
    )


def fits(struct: type[msgspec.Struct], fields: Mapping[str, Any]) -> bool:
    """Whether none is unknown and none is missing."""
    plan = _fields_of(struct)
    found = [field.name in fields for field in plan]
    return sum(found) == len(fields) and all(
        is_there or not field.required for is_there, field in zip(found, plan, strict=True)
    )


def check_mapping(
    struct: type[msgspec.Struct], fields: Mapping[str, Any], *, text: bool
) -> tuple[dict[str, Any], list[Fault]]:
    """The values for a struct from outside data, and what is wrong with them."""
    plan = _fields_of(struct)
    known = {field.name for field in plan}
    faults = [Fault(_printable(name), _UNKNOWN) for name in fields if name not in known]
    values: dict[str, Any] = {}
    for field in plan:
        if field.name in fields:
            values[field.name], found = _check_field(field, fields[field.name], text=text)
            faults += found
        elif field.required:
            faults.append(Fault(field.name, "is missing"))
    return values, faults


def check_fields(struct: msgspec.Struct) -> tuple[dict[str, Any], list[Fault]]:
    """The fields of a struct whose canonical value is another object, and what is wrong with any."""
    canonical: dict[str, Any] = {}
    faults: list[Fault] = []
    for field in _fields_of(type(struct)):
        value = getattr(struct, field.name)
        if field.plan.type is str and type(value) is str and value.isascii():
            continue  # as most are: there is nothing that could be wrong
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
        if plan.is_deep or text:
            value, faults = _check_parts(plan, value, text=text)
            if faults:
                return value, faults
        checked = msgspec.convert(value, plan.type)
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
    if text and isinstance(value, str):
        return _read_text(plan, value), []
    if plan.struct is not None and isinstance(value, Mapping):
        values, faults = check_mapping(plan.struct, value, text=text)
        return (value, faults) if faults else (plan.struct(**values), [])
    if isinstance(value, msgspec.Struct):
        canonical, faults = check_fields(value)
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


def _whole_number(text: str) -> int:
    if len(text) > 640:  # Python may refuse to convert more digits than these
        raise ValueError("is out of range")
    return int(text)


def _finite_number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("is out of range")
    return number


_WHOLE = r"-?(?:0|[1-9][0-9]*)"
_NUMBER = re.compile(_WHOLE + r"(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_READINGS: Mapping[type, tuple[re.Pattern[str], Callable[[str], Any]]] = {
    int: (re.compile(_WHOLE), _whole_number),
    float: (_NUMBER, _finite_number),
    Decimal: (_NUMBER, Decimal),
    bool: (re.compile("true|false|1|0"), ("true", "1").__contains__),
}


def _read_text(plan: _Plan, text: str) -> Any:
    """What JSON would have in place of this text of a form. (msgspec reads texts by itself, but takes "null" for
    null, "1e2" and "5.0" for whole numbers and "nan" for a number.)
    """
    if str in plan.scalars:
        return text
    for kind, (pattern, read) in _READINGS.items():
        if kind in plan.scalars and pattern.fullmatch(text):
            return read(text)
    if Decimal in plan.scalars:  # what it takes besides: "nan", "1_000", " 5"
        raise ValueError("must be a number")
    return text


def _check_unicode(value: Any) -> None:
    """Raises for a lone surrogate, which would fail later, in the middle of an SQL statement."""
    if isinstance(value, str):
        if not value.isascii():
            value.encode()
    elif isinstance(value, list | tuple | dict | set | frozenset):
        msgspec.json.encode(value, enc_hook=str)


def _under(name: str, faults: list[Fault]) -> list[Fault]:
    return [Fault(f"{name}.{f.field}" if f.field else name, f.detail) for f in faults]


def bounded(faults: list[Fault]) -> list[Fault]:
    """These faults, of which those of unknown fields are only counted after the first few."""
    unknown = [fault for fault in faults if fault.detail == _UNKNOWN]
    more = len(unknown) - _UNKNOWN_NAMED
    if more <= 0:
        return faults
    known = [fault for fault in faults if fault.detail != _UNKNOWN]
    rest = Fault("", f"… and {more:,} more unknown field{'' if more == 1 else 's'}")
    return [*unknown[:_UNKNOWN_NAMED], *known, rest]


def _printable(name: str) -> str:
    """A name that came from outside, fit for a log or an answer, and not so long that it fills them."""
    shown = name[: _NAME_LENGTH + 1].encode(errors="backslashreplace").decode()
    return shown if len(shown) <= _NAME_LENGTH else shown[: _NAME_LENGTH - 1] + "…"


def _rules_in(hint: Any) -> Iterator[Rule]:
    hint = _unnamed(hint)
    if get_origin(hint) is Annotated:
        yield from (extra for extra in hint.__metadata__ if isinstance(extra, Rule))
        yield from _rules_in(hint.__origin__)
    elif get_origin(hint) in (Union, types.UnionType):
        for member in get_args(hint):
            yield from _rules_in(member)


def _alternatives(hint: Any) -> Iterator[Any]:
    """The types that a value may have, without what annotates them."""
    hint = _unnamed(hint)
    if get_origin(hint) is Annotated:
        yield from _alternatives(hint.__origin__)
    elif get_origin(hint) in (Union, types.UnionType):
        for member in get_args(hint):
            yield from _alternatives(member)
    else:
        yield hint


def _unnamed(hint: Any) -> Any:
    """What a `NewType` or a `type` alias stands for; other types are themselves."""
    while (meant := getattr(hint, "__supertype__", getattr(hint, "__value__", None))) is not None:
        hint = meant
    return hint


def _scalars_of(hint: Any) -> Iterator[type]:
    """The types of the values that this type has, if they are scalars."""
    if get_origin(hint) is Literal:
        yield from map(type, get_args(hint))
    elif isinstance(hint, type):
        yield from (type(member.value) for member in hint) if issubclass(hint, enum.Enum) else (hint,)


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
