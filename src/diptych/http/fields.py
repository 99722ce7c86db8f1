"""The fields of a request: the same for JSON and for forms."""

from __future__ import annotations

from typing import Any, NamedTuple

from diptych.errors import Fault


class Fields(NamedTuple):
    """The fields of a request's body.

    `values` come as JSON has them, or, where `is_form`, as text and None (`build(…, text=fields.is_form)`).
    `repeated` has a fault for every field that a form has more than once, if `read_fields` was told to keep them;
    otherwise it is empty.

    >>> from diptych.http import Fields
    >>> fields = Fields({"title": "Dune", "isbn": None}, is_form=True)
    >>> fields.values["title"], fields.repeated
    ('Dune', ())
    """

    values: dict[str, Any]
    is_form: bool
    repeated: tuple[Fault, ...] = ()
