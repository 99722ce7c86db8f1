"""Fields that a request has in its path and in its body: they have to say the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from diptych.errors import Fault, InvalidMessage
from diptych.messages.message import build
from diptych.messages.plans import fields_of, is_model
from diptych.messages.validation import check_mapping

_UNKNOWN = object()


def contradictions(
    message: type[Any], parameters: Mapping[str, str], body: Mapping[str, Any], *, is_form: bool
) -> list[Fault]:
    """Returns the faults of fields in the body that are parameters too.

    What differs as it was sent may be the same to the message, as the text `1.50` and the number 1.5 are for a
    `Decimal`, so both are read as values of the field. One that can't be read in the path is its only fault.
    """
    faults: list[Fault] = []
    for name in parameters:
        if name not in body or body[name] == parameters[name]:
            continue
        meant, unread = _read(message, name, {**body, **parameters}, is_form or [*parameters])
        if unread:
            continue
        others = parameters.keys() - {name}
        sent = {**body, **parameters, name: body[name]}
        value, found = _read(message, name, sent, is_form or others)
        if not found and meant is not _UNKNOWN and value is not _UNKNOWN and _differ(meant, value):
            found = [Fault(name, "contradicts the path")]
        faults += found
    return faults


def _differ(meant: Any, value: Any) -> bool:
    try:
        return bool(meant != value)
    except ArithmeticError:  # of a Decimal that is a signalling NaN, which JSON can have as a text
        return True


def _read(
    message: type[Any], name: str, fields: Mapping[str, Any], text: bool | Collection[str]
) -> tuple[Any, list[Fault]]:
    """Returns the value of a field and its faults; `_UNKNOWN` where only other fields' faults hide the value.

    Pydantic has no value of a model's field before all fields are right.
    """
    value: Any = _UNKNOWN
    faults: Collection[Fault] = ()
    if is_model(message):
        attribute = next(field.attribute for field in fields_of(message) if field.name == name)
        try:
            value = getattr(build(message, fields, text=text), attribute)
        except InvalidMessage as error:
            faults = error.faults
    else:
        values, faults = check_mapping(message, {name: fields[name]}, text=text)
        value = values[name]
    return value, [fault for fault in faults if fault.field.partition(".")[0] == name]
