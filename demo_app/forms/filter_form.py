"""The form above the list: filters and the order, as they were typed, and their faults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from demo_app.forms.form import Field, FieldSpec
from demo_app.handlers.book_lists import LISTS
from diptych.http import FieldError, Problem

SPECS = (
    FieldSpec("title", "Title begins with", prose=True),
    FieldSpec("author", "Author", prose=True),
    FieldSpec("published_from", "Published from", "1865-11-26", inputmode="numeric"),
    FieldSpec("published_to", "Published to", inputmode="numeric"),
)
SORTS = {
    "title": "Title",
    "-published_date": "Newest first",
    "author": "Author",
    "-rating": "Best rated",
}
_FILTERS = {"title": "title", "author": "author", "tag": "tag", "published": "dates"}
_FIELDS = frozenset({"sort", "tag", *(spec.name for spec in SPECS)})


class FilterForm(NamedTuple):
    """The form with the parameters `sent`; `problem` is why they are refused, `others` are faults of no field."""

    sent: Mapping[str, str]
    fields: tuple[Field, ...]
    sort_errors: tuple[str, ...] = ()
    problem: Problem | None = None
    others: tuple[FieldError, ...] = ()

    @classmethod
    def of(cls, sent: Mapping[str, str]) -> FilterForm:
        """Returns the form with the values of a query string."""
        return cls(sent, tuple(Field(spec, sent.get(spec.name, "")) for spec in SPECS))

    def refused(self, problem: Problem) -> FilterForm:
        """Returns the form with every fault beside its field."""
        faults = [(error.field, error.detail) for error in problem.errors]
        fields = tuple(
            field._replace(errors=tuple(detail for name, detail in faults if name == field.spec.name))
            for field in self.fields
        )
        sort_errors = tuple(detail for name, detail in faults if name == "sort")
        if sort_errors and self.sort in SORTS:
            # The fault names parameters, which a person has not seen.
            sort_errors = ("does not go with these filters",)
        return self._replace(
            # The form must not send again what it does not show.
            sent={name: value for name, value in self.sent.items() if name in _FIELDS},
            fields=fields,
            sort_errors=sort_errors,
            problem=problem,
            others=tuple(error for error in problem.errors if error.field not in _FIELDS),
        )

    @property
    def together(self) -> tuple[str, ...]:
        """What can be asked for together, in sentences; empty if that is not what is wrong."""
        if not self.sort_errors or self.sort not in SORTS:
            return ()
        return tuple(f"{SORTS[sort]}: {_in_words(filter(None, lists))}." for sort, lists in LISTS.items())

    @property
    def sort(self) -> str:
        """The chosen order."""
        return self.sent.get("sort", "title")

    @property
    def tag(self) -> str | None:
        """The tag of the books; it is chosen by a link, and not typed."""
        return self.sent.get("tag")

    @property
    def kept(self) -> dict[str, str]:
        """The parameters that every link to a further page has."""
        names = ("title", "author", "tag", "published_from", "published_to", "sort", "limit")
        return {name: self.sent[name] for name in names if name in self.sent}

    @property
    def without_tag(self) -> dict[str, str]:
        """The same parameters for books with any tags."""
        return {name: value for name, value in self.kept.items() if name != "tag"}

    @property
    def is_filtering(self) -> bool:
        """Whether some books may be left out."""
        return self.tag is not None or any(field.value for field in self.fields)


def _in_words(choices: Iterable[Sequence[str]]) -> str:
    return "all books, or by " + ", or by ".join(
        " and ".join(_FILTERS[name] for name in names) for names in choices
    )
