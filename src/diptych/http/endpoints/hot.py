"""The endpoints that a `Front` can answer."""

from __future__ import annotations

from collections.abc import Iterable

from diptych.http.endpoints.endpoint import Endpoint
from diptych.messages.kinds import AnyQuery, result_type
from diptych.messages.plans import fields_of
from diptych.read.answers import Document, Page


def hot_routes(endpoints: Iterable[Endpoint]) -> dict[str, type[AnyQuery]]:
    """Returns the routes of a `Front` for those endpoints whose query finds a `Document` or a `Page`.

    >>> from diptych import Page, Query
    >>> from diptych.http import Endpoint, hot_routes
    >>> class ListBooks(Query[Page[dict]]):
    ...     after: str | None = None
    >>> sorted(hot_routes([Endpoint("GET", "/books", ListBooks)]))
    ['/books?after']
    """
    return {
        _route(endpoint): endpoint.message
        for endpoint in endpoints
        if endpoint.method == "GET" and endpoint.answer is None and _is_stored(endpoint.message)
    }


def _is_stored(message: type) -> bool:
    result = result_type(message)
    return getattr(result, "__origin__", result) in (Document, Page)


def _route(endpoint: Endpoint) -> str:
    if "?" in endpoint.path:
        return endpoint.path
    names = [field.name for field in fields_of(endpoint.message) if "{" + field.name not in endpoint.path]
    return f"{endpoint.path}?{'&'.join(names)}" if names else endpoint.path
