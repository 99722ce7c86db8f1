"""The fields of a request, whatever form its body has."""

from __future__ import annotations

from typing import Any, NamedTuple

from diptych.errors import Fault


class Fields(NamedTuple):
    """The fields of a request's body.

    `values` come as JSON has them, or, where `is_form`, as text and None (`build(…, text=fields.is_form)`).
    `repeated` is empty unless it was asked for: a fault for every field that a form has more than once.
    """

    values: dict[str, Any]
    is_form: bool
    repeated: tuple[Fault, ...] = ()
