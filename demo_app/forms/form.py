"""A form: its fields, the typed values, and their faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from diptych.http import Problem


class FieldSpec(NamedTuple):
    """The input of a field: its label, its hint, and its value in a new form, `start`."""

    name: str
    label: str
    hint: str = ""
    required: bool = False
    inputmode: str = "text"
    start: str = ""
    prose: bool = False


class Field(NamedTuple):
    """A field as shown, with the typed `value` and the `errors` in the value."""

    spec: FieldSpec
    value: str
    errors: tuple[str, ...] = ()

    @property
    def described_by(self) -> str:
        """Ids of the error and the hint, for screen readers."""
        parts = ((self.errors, "error"), (self.spec.hint, "hint"))
        return " ".join(f"{self.spec.name}-{part}" for given, part in parts if given)


class Form(NamedTuple):
    """A form; `problem` is the reason of a refusal, `others` are the faults outside of the fields."""

    fields: tuple[Field, ...]
    problem: Problem | None = None
    others: tuple[str, ...] = ()

    @classmethod
    def blank(cls, specs: Sequence[FieldSpec]) -> Form:
        """Returns the form for something new."""
        return cls(tuple(Field(spec, spec.start) for spec in specs))

    @classmethod
    def of(cls, specs: Sequence[FieldSpec], document: object) -> Form:
        """Returns the form with the values of a document."""
        return cls(tuple(Field(spec, _typed(getattr(document, spec.name))) for spec in specs))

    @classmethod
    def refused(cls, specs: Sequence[FieldSpec], typed: Mapping[str, Any], problem: Problem) -> Form:
        """Returns the form again with the typed values, every fault beside its field."""
        fields = tuple(
            Field(spec, _typed(typed.get(spec.name)), tuple(_faults(problem, spec, typed))) for spec in specs
        )
        names = {spec.name for spec in specs}
        others = tuple(f"{e.field} {e.detail}".strip() for e in problem.errors if e.field not in names)
        return cls(fields, problem, others)


def _typed(value: object) -> str:
    return "" if value is None else str(value)


def _faults(problem: Problem, spec: FieldSpec, typed: Mapping[str, Any]) -> list[str]:
    details = [error.detail for error in problem.errors if error.field == spec.name]
    # An empty field is sent as null, and the message speaks of null; a person has just left the field empty.
    return ["must not be empty"] if details and typed.get(spec.name) is None else details
