"""Forms in parameters of FastAPI's routes, of which no message is made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from fastapi import FastAPI
from fastapi.params import Form

from diptych.ext.starlette.paths import found_routes, within_mounts
from diptych.messages.message import Message


def faults_of_forms(app: FastAPI) -> Iterator[str]:
    """Yields the parameters `Annotated[AddBook, Form()]` with a struct of diptych.

    FastAPI spreads the fields of a form over models of pydantic alone. For anything else it expects one field of the
    parameter's name, and so refuses every form.
    """
    for found in [*found_routes(app), *within_mounts(app.routes)]:
        for parameter in _of_body(getattr(found.route, "dependant", None)):
            kind = _message_in(parameter.field_info.annotation)
            if kind is not None and isinstance(parameter.field_info, Form):
                yield (
                    f"{', '.join(sorted(found.methods))} {found.path}: FastAPI makes no {kind.__name__} of a form "
                    f"({parameter.name!r}): use Endpoint(form=True), read_fields and build, or a model of pydantic "
                    "by CommandOf"
                )


def _of_body(dependant: Any) -> Iterator[Any]:
    """Yields the parameters that come from the body, those of dependencies too."""
    if dependant is not None:
        yield from dependant.body_params
        for inner in dependant.dependencies:
            yield from _of_body(inner)


def _message_in(hint: Any) -> type[Message] | None:
    if isinstance(hint, type) and issubclass(hint, Message):
        return hint
    found = (_message_in(part) for part in get_args(hint))
    return next((one for one in found if one is not None), None)
