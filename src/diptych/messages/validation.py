"""The check of a struct's fields, each by itself, so that all faults are found and not only the first.

The values may come from code, from JSON or from text. Their faults are worded for a person who fills in a form.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from diptych.errors import Fault, InvalidMessage, PlacedFault, steps_of
from diptych.messages.plans import Field, Plan, fields_of, is_record

T = TypeVar("T")

UNKNOWN = "is not a known field"
_UNKNOWN_NAMED = 20
_NAME_LENGTH = 100


def checked(kind: type[T], fields: Mapping[str, Any], *, text: bool | Collection[str]) -> T:
    """Returns a struct or a dataclass from outside data. Raises ``InvalidMessage`` with all faults."""
    values, faults = check_mapping(kind, fields, text=text)
    if faults:
        raise InvalidMessage(kind.__name__, bounded(faults))
    return kind(**values)


def check_mapping(
    struct: type[Any], fields: Mapping[str, Any], *, text: bool | Collection[str]
) -> tuple[dict[str, Any], list[Fault]]:
    """Returns the values of outside data for a struct or a dataclass, and their faults."""
    plan = fields_of(struct)
    known = {field.name for field in plan}
    faults = [unknown_field(name) for name in fields if name not in known]
    values: dict[str, Any] = {}
    for field in plan:
        if field.name in fields:
            is_text = text if isinstance(text, bool) else field.name in text
            values[field.name], found = _check_field(field, fields[field.name], text=is_text)
            faults += found
        elif field.required:
            faults.append(Fault(field.name, "is missing"))
    return values, faults


def object_of(kind: type, value: Any) -> Mapping[str, Any]:
    """Returns outside data that is an object. Raises ``InvalidMessage`` for any other."""
    if isinstance(value, Mapping):
        return value
    raise InvalidMessage(kind.__name__, [Fault("", "must be a JSON object")])


def unknown_field(name: str) -> Fault:
    """Returns the fault of a field that the message does not have; ``name`` is from outside."""
    return PlacedFault([printable(name)], UNKNOWN)


def check_fields(struct: Any) -> tuple[dict[str, Any], list[Fault]]:
    """Returns the canonical values that are new objects, by field, and the faults of all fields."""
    canonical: dict[str, Any] = {}
    faults: list[Fault] = []
    kind: type = type(struct)
    for field in fields_of(kind):
        value = getattr(struct, field.name)
        checked, found = _check_field(field, value, text=False)
        faults += found
        if checked is not value:
            canonical[field.name] = checked
    return canonical, faults


def _check_field(field: Field, value: Any, *, text: bool) -> tuple[Any, list[Fault]]:
    if value is UNSET:
        # Only a field that allows UNSET can hold it; outside data can't express it.
        return value, [] if field.plan.allows_unset else [Fault(field.name, "is missing")]
    checked, faults = _check(field.plan, value, text=text)
    return checked, _under(field.name, faults)


def _check(plan: Plan, value: Any, *, text: bool) -> tuple[Any, list[Fault]]:
    """Returns the value in its canonical form, and its faults; a fault of the value itself has no path."""
    try:
        if plan.is_deep or text:
            value, faults = _check_parts(plan, value, text=text)
            if faults:
                return value, faults
        checked = msgspec.convert(value, plan.type, str_keys=True)  # JSON has no others
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


def _check_parts(plan: Plan, value: Any, *, text: bool) -> tuple[Any, list[Fault]]:
    if text and isinstance(value, str):
        return _read_text(plan, value), []
    if plan.tagged and isinstance(value, Mapping):
        return _check_tagged(plan, value, text=text)
    if plan.struct is not None and isinstance(value, Mapping):
        values, faults = check_mapping(plan.struct, value, text=text)
        return (value, faults) if faults else (plan.struct(**values), [])
    if is_record(type(value)):
        canonical, faults = check_fields(value)
        replace = msgspec.structs.replace if isinstance(value, msgspec.Struct) else dataclasses.replace
        return (replace(value, **canonical) if canonical and not faults else value), faults
    return _check_items(plan, value, text=text)


def _check_tagged(plan: Plan, value: Mapping[str, Any], *, text: bool) -> tuple[Any, list[Fault]]:
    """Returns the struct that is meant by the tag of an object, which is none of its fields, and the faults.

    The tag of a struct that is alone may be left out. msgspec would drop unknown fields in silence.
    """
    struct = plan.struct
    if plan.tag in value:
        tag: Any = value[plan.tag]
        struct = plan.tagged.get(tag) if type(tag) in (str, int) else None
    if struct is None:
        return value, []  # msgspec says what is wrong with the tag
    fields = {name: part for name, part in value.items() if name != plan.tag}
    values, faults = check_mapping(struct, fields, text=text)
    if plan.struct is None and not any(fault.detail == UNKNOWN for fault in faults):
        return value, []
    return (value, faults) if faults else (struct(**values), [])


def _check_items(plan: Plan, value: Any, *, text: bool) -> tuple[Any, list[Fault]]:
    if plan.item is None or not isinstance(value, list | tuple | Mapping):
        return value, []
    checked: dict[Any, Any] = {}
    faults: list[Fault] = []
    for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
        checked[key], found = _check(plan.item, part, text=text)
        faults += _under(printable(str(key)), found)
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


def _decimal_number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # of an exponent with too many digits
        raise ValueError("is out of range") from None


_WHOLE = r"-?(?:0|[1-9][0-9]*)"
_NUMBER = re.compile(_WHOLE + r"(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_READINGS: Mapping[type, tuple[re.Pattern[str], Callable[[str], Any]]] = {
    int: (re.compile(_WHOLE), _whole_number),
    float: (_NUMBER, _finite_number),
    Decimal: (_NUMBER, _decimal_number),
    bool: (re.compile("true|false|1|0"), ("true", "1").__contains__),
}


def _read_text(plan: Plan, text: str) -> Any:
    """Returns the value that JSON would have in place of the text of a form.

    (msgspec reads texts by itself, but takes "null" for null, "1e2" and "5.0" for whole numbers, "nan" for a number.)
    """
    if str in plan.scalars:
        return text
    for kind, (pattern, read) in _READINGS.items():
        if kind in plan.scalars and pattern.fullmatch(text):
            return read(text)
    if Decimal in plan.scalars:  # which takes "nan", "1_000" and " 5" besides
        raise ValueError("must be a number")
    return text


def _check_unicode(value: Any) -> None:
    """Raises UnicodeEncodeError for a lone surrogate: an SQL statement would fail for it later."""
    if isinstance(value, str):
        if not value.isascii():
            value.encode()
    elif isinstance(value, list | tuple | dict | set | frozenset):
        msgspec.json.encode(value, enc_hook=str)


def _under(name: str, faults: list[Fault]) -> list[Fault]:
    return [PlacedFault((name, *steps_of(fault)), fault.detail) for fault in faults]


def bounded(faults: list[Fault]) -> list[Fault]:
    """Returns the faults, with unknown fields only counted after the first 20."""
    unknown = [fault for fault in faults if fault.detail == UNKNOWN]
    more = len(unknown) - _UNKNOWN_NAMED
    if more <= 0:
        return faults
    known = [fault for fault in faults if fault.detail != UNKNOWN]
    rest = Fault("", f"… and {more:,} more unknown field{'' if more == 1 else 's'}")
    return [*unknown[:_UNKNOWN_NAMED], *known, rest]


def printable(name: str) -> str:
    """Returns a name from outside, escaped and cut to 100 characters, fit for a log or an answer."""
    shown = name[: _NAME_LENGTH + 1].encode(errors="backslashreplace").decode()
    return shown if len(shown) <= _NAME_LENGTH else shown[: _NAME_LENGTH - 1] + "…"


_NOUNS = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "str": "text",
    "bool": "true or false",
    "date": "a date such as 2024-12-31",
    "datetime": "a date and time such as 2024-12-31T23:59:59",
    "time": "a time such as 23:59:59",
    "duration": "a duration such as PT1H30M",
    "uuid": "a UUID",
    "bytes": "text in base64",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_UNITS = {"str": "character", "bytes": "byte", "array": "item", "object": "member"}
_PHRASES = (
    (r"Expected `\w+` matching regex '(.*)'", r"must match the pattern \1"),
    (r"Expected `\w+` that's a multiple of (\S+)", r"must be a multiple of \1"),
    (r"Expected `\w+` with a timezone component", "must have a time zone"),
    (r"Expected `\w+` with no timezone component", "must not have a time zone"),
    (r"Invalid (?:enum )?value .*", "is not one of the values it may have"),
    (r"Object missing required field `(\w+)`", r"lacks the field \1"),
    (r"Invalid decimal string", "must be a number"),
    (r"Invalid base64 encoded string", "must be text in base64"),
    (r"Invalid epoch timestamp", f"must be {_NOUNS['datetime']}"),
    (r".*out of range.*", "is out of range"),
)


def worded(error: msgspec.ValidationError) -> str:
    """Rewords a message of msgspec as a demand: "Expected `int` >= 0" becomes "must be at least 0"."""
    text, of_key = re.subn(r" - at `key` in `[^`]*`$", "", str(error))
    if of_key:
        return f"has a key that {worded(msgspec.ValidationError(text))}"
    text = re.sub(r" - at `[^`]*`$", "", text)
    if found := re.fullmatch(r"Expected `(\w+)` of length (>=|<=) (\d+)", text):
        return _length(_UNITS.get(found[1], "item"), found[2], int(found[3]))
    if found := re.fullmatch(r"Expected `\w+` (>=|<=|>|<) (\S+?)(?:\.0)?", text):
        return f"must be {_BOUNDS[found[1]]} {found[2]}"
    if found := re.match(r"Expected `([^`]+)`(?:, got `(\w+)`)?$", text):
        nouns = dict.fromkeys(_NOUNS.get(kind, kind) for kind in found[1].split(" | ") if kind != "null")
        return "must be " + " or ".join(nouns or ["null"])
    if found := re.fullmatch(
        r"Invalid (?:RFC3339 encoded |ISO8601 )?(date|datetime|time|duration|UUID)", text
    ):
        return f"must be {_NOUNS[found[1].lower()]}"
    for pattern, phrase in _PHRASES:
        if found := re.fullmatch(pattern, text, re.DOTALL):
            return found.expand(phrase)
    return text[:1].lower() + text[1:]


def _length(unit: str, bound: str, length: int) -> str:
    if bound == ">=" and length == 1:
        return "must not be empty"
    return f"must have {_BOUNDS[bound]} {length} {unit}{'' if length == 1 else 's'}"
