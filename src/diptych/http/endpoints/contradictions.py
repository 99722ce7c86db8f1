"""Fields that a request has in its path and in its body: they have to say the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from diptych.errors import Fault, InvalidMessage, steps_of
from diptych.messages.message import build
from diptych.messages.plans import fields_of, is_model
from diptych.messages.validation import check_mapping

_UNKNOWN = object()


def contradicted(
    message: type[Any], parameters: Mapping[str, str], body: Mapping[str, Any], *, is_form: bool
) -> list[str]:
    """Returns the names of parameters that are fields of the body too, with another value there.

    What differs as it was sent may be the same to the message, as the text `1.50` and the number 1.5 are for a
    `Decimal`, so both are read as values of the field. One that can't be read in the path is no contradiction: it has
    a fault of its own.
    """
    return [
        name
        for name in parameters
        if name in body
        and not _is_as_sent(parameters[name], body[name])
        and _is_contradiction(message, name, parameters, body, is_form)
    ]


def _is_as_sent(parameter: str, value: Any) -> bool:
    return value == parameter or (type(value) is int and str(value) == parameter)


def _is_contradiction(
    message: type[Any], name: str, parameters: Mapping[str, str], body: Mapping[str, Any], is_form: bool
) -> bool:
    fields = {**body, **parameters}
    meant, is_readable = _read(message, name, fields, is_form or parameters.keys())
    if not is_readable:
        return False
    text = is_form or parameters.keys() - {name}
    value, is_readable = _read(message, name, {**fields, name: body[name]}, text)
    if not is_readable:
        return True
    return meant is not _UNKNOWN and value is not _UNKNOWN and _differ(meant, value)


def _differ(meant: Any, value: Any) -> bool:
    try:
        return bool(meant != value)
    except ArithmeticError:  # of a Decimal that is a signalling NaN, which JSON can have as a text
        return True


def _read(
    message: type[Any], name: str, fields: Mapping[str, Any], text: bool | Collection[str]
) -> tuple[Any, bool]:
    """Returns the value of a field, and whether it has none of the faults; `_UNKNOWN` where others' hide the value.

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
    return value, all(steps_of(fault)[:1] != (name,) for fault in faults)
