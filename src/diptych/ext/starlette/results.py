"""The results of FastAPI's routes: documents and pages go into the JSON of a route as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from starlette.routing import BaseRoute, Host, Mount

from diptych.context import request_scope
from diptych.ext.starlette.paths import flat
from diptych.http.stored import RETURNED
from diptych.read.answers import Document, Page
from diptych.schemas import with_stored_bytes

_KEPT = "diptych_kept"


def keep_stored_bytes(routes: Iterable[BaseRoute]) -> None:
    """Has the results of these routes, and of those in applications mounted among them, sent as they are stored.

    Only what FastAPI makes of a route's own result is made otherwise: JSON that the application makes of a model by
    itself (for a log, a queue, a task after the answer) has its documents decoded.
    """
    for route in flat(routes):
        original = getattr(route, "original_route", route)
        if isinstance(original, Mount | Host):
            keep_stored_bytes(original.routes)
            continue
        field: Any = getattr(route, "response_field", None)
        if field is None or hasattr(field, _KEPT):
            continue
        setattr(field, _KEPT, True)
        kind = getattr(
            route.response_class, "value", route.response_class
        )  # behind the default's placeholder
        is_plain = kind.__module__.startswith(("starlette.", "fastapi."))
        field.serialize = _noted(field.serialize, is_plain=is_plain)
        if hasattr(field, "serialize_json"):  # newer versions have it, for routes without such a class
            field.serialize_json = _noted(_stored(field.serialize_json), is_plain=True)


def _noted(dump: Callable[..., Any], *, is_plain: bool) -> Callable[..., Any]:
    """Returns ``dump``, which notes documents and pages, for answers with a query's headers or 404.

    What a response class of the application's own makes of it, unless ``is_plain``, is sent as it is.
    """

    def noted(value: Any, **options: Any) -> Any:
        returned = (request_scope.get() or {}).get(RETURNED)
        if returned is not None and isinstance(value, Document | Page) and (is_plain or value.body is None):
            returned.value = value
        return dump(value, **options)

    return noted


def _stored(dump: Callable[..., bytes]) -> Callable[..., bytes]:
    return lambda value, **options: with_stored_bytes(lambda: dump(value, **options))
