"""Words for faulty values, for a person who fills in a form."""

from __future__ import annotations

import re

import msgspec

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
    (r"Invalid enum value .*", "is not one of the values it may have"),
    (r"Object missing required field `(\w+)`", r"lacks the field \1"),
    (r"Invalid decimal string", "must be a number"),
    (r"Invalid base64 encoded string", "must be text in base64"),
    (r"Invalid epoch timestamp", f"must be {_NOUNS['datetime']}"),
    (r".*out of range.*", "is out of range"),
)


def worded(error: msgspec.ValidationError) -> str:
    """Rewords a message of msgspec as a demand: "Expected `int` >= 0" becomes "must be at least 0"."""
    text = re.sub(r" - at `[^`]*`$", "", str(error))
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
