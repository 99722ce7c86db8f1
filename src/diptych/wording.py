"""What is wrong with a value, in words that a person filling in a form understands."""

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
    "uuid": "a UUID",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}


def worded(error: msgspec.ValidationError) -> str:
    """Rewords a message of msgspec ("Expected `int` >= 0") as what the value must be ("must be at least 0")."""
    text = re.sub(r" - at `[^`]*`$", "", str(error))
    if found := re.fullmatch(r"Expected `str` of length (>=|<=) (\d+)", text):
        return _length(found[1], int(found[2]))
    if found := re.fullmatch(r"Expected `\w+` (>=|<=|>|<) (\S+)", text):
        return f"must be {_BOUNDS[found[1]]} {found[2]}"
    if found := re.match(r"Expected `([^`]+)`(?:, got `(\w+)`)?$", text):
        kinds = [kind for kind in found[1].split(" | ") if kind != "null" or found[2] != "null"]
        nouns = [_NOUNS.get(kind, kind) for kind in kinds if kind != "null"]
        return "must be " + " or ".join(nouns or ["null"])
    if found := re.fullmatch(r"Invalid (?:RFC3339 encoded )?(date|datetime|time|UUID)", text):
        return f"must be {_NOUNS.get(found[1].lower(), 'a ' + found[1])}"
    if found := re.fullmatch(r"Object missing required field `(\w+)`", text):
        return f"lacks the field {found[1]}"
    if "out of range" in text:
        return "is out of range"
    return text[:1].lower() + text[1:]


def _length(bound: str, length: int) -> str:
    if bound == ">=" and length == 1:
        return "must not be empty"
    unit = "character" if length == 1 else "characters"
    return f"must have {_BOUNDS[bound]} {length} {unit}"
