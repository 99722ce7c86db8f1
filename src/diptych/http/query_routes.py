"""Routes of queries: the fields of a query by the parameters of a template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_type_hints

import msgspec

from diptych.errors import WiringError
from diptych.http.routes import Segment, template_segments
from diptych.messages.message import Query

__all__ = ["QueryRoute", "query_routes"]


class QueryRoute(NamedTuple):
    """A compiled route: its query, and the fields set by path and query string.

    ``in_path`` has position and field of the path's parameters, ``numbers`` the positions of whole numbers among
    them. ``is_text`` is True if the path's parameters are all that the query needs, and need no conversion.
    """

    query: type[Query[Any]]
    in_path: tuple[tuple[int, str], ...]
    numbers: tuple[int, ...]
    in_query_string: frozenset[str]
    is_text: bool


def query_routes(routes: Mapping[str, type[Query[Any]]]) -> list[tuple[str, QueryRoute]]:
    """Returns the path template and the compiled route of each of ``routes``.

    A key is a path template, such as `/books/{title}`, with the names of the query string's parameters after a `?`:
    `/books?limit&after`. Raises `WiringError` for parameters that are no fields of the query, or of another type
    than text and `int`.
    """
    return [(template.partition("?")[0], _compiled(template, query)) for template, query in routes.items()]


def _compiled(template: str, query: type[Query[Any]]) -> QueryRoute:
    path, _, parameters = template.partition("?")
    try:
        segments = template_segments(path)
    except ValueError as error:
        raise WiringError([str(error)]) from error
    in_path = tuple((at, segment.name) for at, segment in enumerate(segments) if segment.name)
    in_query_string = tuple(filter(None, parameters.split("&")))
    _check(template, segments, query, [*(name for _, name in in_path), *in_query_string])
    numbers = tuple(at for at, segment in enumerate(segments) if segment.kind == "typed")
    is_text = _is_text(query, {name for _, name in in_path})
    return QueryRoute(query, in_path, numbers, frozenset(in_query_string), is_text)


def _check(template: str, segments: Iterable[Segment], query: type[Query[Any]], named: Sequence[str]) -> None:
    fields = query.__struct_fields__
    problems = [
        f"{template}: {query.__name__} has no field {name!r}: its fields are {', '.join(sorted(fields))}"
        for name in named
        if name not in fields
    ]
    problems += [
        f"{template}: {name!r} is named more than once" for name, n in Counter(named).items() if n > 1
    ]
    if problems:
        raise WiringError(problems)
    if any(kind in ("rest", "mount") or (kind == "typed" and text != "int") for kind, text, _ in segments):
        path = template.partition("?")[0]
        raise WiringError([f"{path}: a front answers parameters of text and of the type int only"])


def _is_text(query: type[Query[Any]], in_path: Collection[str]) -> bool:
    hints = get_type_hints(query)
    fields = msgspec.structs.fields(query)
    return all(hints[f.name] is str if f.name in in_path else not f.required for f in fields)
