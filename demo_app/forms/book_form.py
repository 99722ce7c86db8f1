"""What the form of a book shows: its fields, what is typed in them, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from demo_app.models.book_read_model import BookDocument
from diptych.http import Problem


class FieldSpec(NamedTuple):
    """How a field of a book is asked for. `start` is what a new form holds in it."""

    name: str
    label: str
    hint: str = ""
    required: bool = False
    inputmode: str = "text"
    start: str = ""
    prose: bool = False


# All of them are text fields: a browser drops what it can't read from a date or number field ("31 February")
# and sends nothing, which would be taken for an empty field, and it would not show it again either. They have
# no maxlength, since browsers count emoji as two.
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
    """A field as shown: `value` is what is typed in it, `errors` what is wrong with that."""

    spec: FieldSpec
    value: str
    errors: tuple[str, ...] = ()

    @property
    def described_by(self) -> str:
        """The ids of the error and the hint, for screen readers."""
        parts = ((self.errors, "error"), (self.spec.hint, "hint"))
        return " ".join(f"{self.spec.name}-{part}" for given, part in parts if given)


class BookForm(NamedTuple):
    """The form; `problem` says why it was refused, `others` what is wrong besides the fields."""

    fields: tuple[Field, ...]
    problem: Problem | None = None
    others: tuple[str, ...] = ()

    @classmethod
    def blank(cls) -> BookForm:
        """For a new book."""
        return cls(tuple(Field(spec, spec.start) for spec in SPECS))

    @classmethod
    def of(cls, book: BookDocument) -> BookForm:
        """For a book that is there."""
        return cls(tuple(Field(spec, _typed(getattr(book, spec.name))) for spec in SPECS))

    @classmethod
    def refused(cls, typed: Mapping[str, Any], problem: Problem) -> BookForm:
        """The form again as it was typed, every fault beside its field."""
        fields = tuple(
            Field(spec, _typed(typed.get(spec.name)), tuple(_faults(problem, spec, typed))) for spec in SPECS
        )
        others = tuple(f"{e.field} {e.detail}".strip() for e in problem.errors if e.field not in _NAMES)
        return cls(fields, problem, others)


def _typed(value: object) -> str:
    return "" if value is None else str(value)


def _faults(problem: Problem, spec: FieldSpec, typed: Mapping[str, Any]) -> list[str]:
    details = [error.detail for error in problem.errors if error.field == spec.name]
    # An empty field is null, of which the message says what it is not; a person has just left it empty.
    return ["must not be empty"] if details and typed.get(spec.name) is None else details
