"""Links from the answer to a command to the endpoints of what it has made or changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from diptych.http.endpoints.checks import names_in_result
from diptych.http.endpoints.compiled import Compiled
from diptych.http.paths import Segment, template_segments

_MADE = 201


def links_of(one: Compiled, named: Iterable[tuple[Compiled, str]]) -> dict[str, Any]:
    """Returns the links of an endpoint's answer of success; ``named`` are all endpoints with their ids."""
    if one.is_query:
        return {}
    if one.status == _MADE and one.endpoint.location is not None:
        place = template_segments(one.endpoint.location)
    elif one.method == "DELETE":
        place = template_segments(one.template)
    else:
        return {}
    links: dict[str, Any] = {}
    for other, operation_id in named:
        parameters = _parameters(one, place, template_segments(other.template))
        if other is not one and parameters is not None and (one.method != "DELETE" or other.is_query):
            links[operation_id] = {"operationId": operation_id, "parameters": parameters}
    return links


def _parameters(one: Compiled, place: Sequence[Segment], other: Sequence[Segment]) -> dict[str, str] | None:
    """Returns the parameters of the other endpoint, which is at the place or below it; None if it is elsewhere."""
    if len(other) < len(place) or any(segment.kind != "fixed" for segment in other[len(place) :]):
        return None
    found: dict[str, str] = {}
    for mine, its in zip(place, other, strict=False):
        if its.kind == "fixed" or mine.kind == "fixed":
            if its != mine:
                return None
            continue
        value = _expression(one, mine.name)
        if value is None:
            return None
        found[its.name] = value
    return found or None


def _expression(one: Compiled, name: str) -> str | None:
    """Returns the runtime expression of a value in the location; None if neither request nor answer has it."""
    if name == "result" or name in names_in_result(one.endpoint.message):
        if one.endpoint.answer is not None:
            return None
        return "$response.body" if name == "result" else f"$response.body#/{name}"
    if any(name == own for _, own in one.in_path):
        return f"$request.path.{name}"
    return f"$request.body#/{name}" if name in one.in_body else None
