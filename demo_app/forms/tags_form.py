"""The form of a book's tags: those that it has can be kept, and others added."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from diptych.http import Fields, Problem

FIELDS = ("keep", "tags")
"""The fields of the form: names as they are, one each, and text with names between commas or line ends."""


class TagsForm(NamedTuple):
    """A form with the tags that the book `has`, those to be `kept`, and the text `typed`.

    `problem` is the reason of a refusal, `errors` are its faults as sentences.
    """

    has: Sequence[str]
    kept: Sequence[str]
    typed: str = ""
    problem: Problem | None = None
    errors: tuple[str, ...] = ()

    @classmethod
    def of(cls, has: Sequence[str]) -> TagsForm:
        """Returns the form for a book with these tags."""
        return cls(has, has)

    @classmethod
    def refused(cls, has: Sequence[str], fields: Fields, problem: Problem) -> TagsForm:
        """Returns the form again as it was sent, with what is wrong with it."""
        names = sent_tags(fields).values.get("tags", [])
        typed = ", ".join(fields.values.get("tags", []))
        errors = tuple(_in_words(error.field, error.detail, names) for error in problem.errors)
        return cls(has, fields.values.get("keep", []), typed, problem, errors)


def sent_tags(fields: Fields) -> Fields:
    """Returns the fields with the list of names as JSON has it."""
    if not fields.is_form:
        return fields
    values: dict[str, Any] = dict(fields.values)
    kept, texts = values.pop("keep", []), values.pop("tags", [])
    typed = [name.strip() for text in texts for name in re.split(r"[,\r\n]", text)]
    return fields._replace(values={**values, "tags": [*kept, *filter(None, typed)]})


def _in_words(field: str, detail: str, names: Sequence[str]) -> str:
    """Returns a fault as a clause. Of a name, `field` has the number behind a dot."""
    first, _, number = field.partition(".")
    if first != "tags":
        return f"{field} {detail}".strip()
    if number.isdecimal() and int(number) < len(names):  # a field of the form may be called like that
        name = names[int(number)]
        return f"“{name if len(name) <= 80 else f'{name[:80]}…'}” {detail}"
    return f"the tags {detail}"
