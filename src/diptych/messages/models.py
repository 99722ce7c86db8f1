"""Messages that are models of pydantic: made by pydantic, with its errors as faults. Nothing is imported of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from diptych.errors import Fault, InvalidMessage, PlacedFault
from diptych.messages.validation import UNKNOWN, bounded, printable


def model_from(model: Any, fields: Mapping[str, Any], *, is_text: bool) -> Any:
    """Returns an instance of a model from outside data. Raises ``InvalidMessage`` with a fault for each field."""
    try:
        if model.model_config.get("strict") and not is_text:
            # A strict model takes a date from JSON text, and from no text of Python.
            return model.model_validate_json(json.dumps(fields, default=str))
        return model.model_validate(fields, strict=False if is_text else None)
    except ValueError as error:
        errors = getattr(error, "errors", None)
        if errors is None:
            raise
        found = errors(include_url=False, include_context=False, include_input=False)
        raise InvalidMessage(model.__name__, bounded(faults_of(found, fields))) from error


def faults_of(errors: Iterable[Mapping[str, Any]], value: Any) -> list[Fault]:
    """Returns the faults that pydantic's ``errors`` of ``value`` tell, those of unknown fields first.

    The members of a union have an error each, which are one fault.
    """
    unknown: list[Fault] = []
    details: dict[tuple[str, ...], list[str]] = {}
    for error in errors:
        steps = steps_in(error, value)
        if error["type"] == "extra_forbidden":
            unknown.append(PlacedFault(steps, UNKNOWN))
        else:
            details.setdefault(steps, []).append(_worded(error))
    others = (PlacedFault(steps, " or ".join(dict.fromkeys(texts))) for steps, texts in details.items())
    return [*unknown, *others]


def steps_in(error: Mapping[str, Any], value: Any) -> tuple[str, ...]:
    """Returns the path of an error's field, without pydantic's names of the members of unions."""
    path: list[str] = []
    last = len(error["loc"]) - 1
    for at, step in enumerate(error["loc"]):
        if (isinstance(value, Mapping) and step in value) or (
            isinstance(value, list) and isinstance(step, int) and step < len(value)
        ):
            value = value[step]
        elif error["type"] != "missing" or at != last:
            continue
        path.append(printable(str(step)))
    return tuple(path)


_PHRASES = (
    (r"Field required", "is missing"),
    (r"(?:Value error|Assertion failed), (.*)", r"\1"),
    (r"[A-Z][\w ]*? should (.*)", r"must \1"),
)


def _worded(error: Mapping[str, Any]) -> str:
    """Returns pydantic's message as a demand: "Input should be a valid integer" becomes "must be a valid integer"."""
    text: str = error["msg"]
    for pattern, phrase in _PHRASES:
        if found := re.fullmatch(pattern, text, re.DOTALL):
            return found.expand(phrase)
    return text[:1].lower() + text[1:]
