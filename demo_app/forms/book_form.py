"""The form of a book: its fields, the typed values, and their faults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from demo_app.models.book_read_model import BookDocument
from diptych.http import Problem


class FieldSpec(NamedTuple):
    """The input of a field of a book: its label, its hint, and its value in a new form, `start`."""

    name: str
    label: str
    hint: str = ""
    required: bool = False
    inputmode: str = "text"
    start: str = ""
    prose: bool = False


# All inputs are text fields: from a date or number field a browser drops a text that it can't read ("31 February")
# and sends nothing, as for an empty field, and the text could not be shown again. There is no maxlength, since
# browsers count emoji as two.
SPECS = (
    FieldSpec(
        "title", "Title", "Up to 200 characters. No two books have the same.", required=True, prose=True
    ),
    FieldSpec("author", "Author", required=True, prose=True),
    FieldSpec(
        "published_date", "First published", "Year, month and day, such as 1865-11-26.", inputmode="numeric"
    ),
    FieldSpec("isbn", "ISBN", "13 digits, or 10 of which the last may be X; hyphens may stay."),
    FieldSpec(
        "stock_quantity", "Copies in stock", "A whole number.", required=True, inputmode="numeric", start="0"
    ),
)
_NAMES = frozenset(spec.name for spec in SPECS)


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


class BookForm(NamedTuple):
    """A form; `problem` is the reason of a refusal, `others` are the faults outside of the fields."""

    fields: tuple[Field, ...]
    problem: Problem | None = None
    others: tuple[str, ...] = ()

    @classmethod
    def blank(cls) -> BookForm:
        """Returns the form for a new book."""
        return cls(tuple(Field(spec, spec.start) for spec in SPECS))

    @classmethod
    def of(cls, book: BookDocument) -> BookForm:
        """Returns the form with the values of a book."""
        return cls(tuple(Field(spec, _typed(getattr(book, spec.name))) for spec in SPECS))

    @classmethod
    def refused(cls, typed: Mapping[str, Any], problem: Problem) -> BookForm:
        """Returns the form again with the typed values, every fault beside its field."""
        fields = tuple(
            Field(spec, _typed(typed.get(spec.name)), tuple(_faults(problem, spec, typed))) for spec in SPECS
        )
        others = tuple(f"{e.field} {e.detail}".strip() for e in problem.errors if e.field not in _NAMES)
        return cls(fields, problem, others)


def _typed(value: object) -> str:
    return "" if value is None else str(value)


def _faults(problem: Problem, spec: FieldSpec, typed: Mapping[str, Any]) -> list[str]:
    details = [error.detail for error in problem.errors if error.field == spec.name]
    # An empty field is sent as null, and the message speaks of null; a person has just left the field empty.
    return ["must not be empty"] if details and typed.get(spec.name) is None else details
