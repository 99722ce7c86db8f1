"""Checks of hot queries beside the routes of an application: what would refuse their requests is not heeded."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from starlette.routing import BaseRoute, Host

from diptych.ext.starlette.paths import Found, flat, found_of, shape_of
from diptych.http.front import query_routes
from diptych.http.paths import Segment, template_segments
from diptych.messages.kinds import AnyQuery


def faults_of_hot(routes: Iterable[BaseRoute], hot: Mapping[str, type[AnyQuery]]) -> Iterator[str]:
    """Yields what is wrong with hot queries beside the routes of an application, in their order."""
    query_routes(hot)
    known = list(flat(routes))
    for template in hot:
        yield from _faults_of_route(template, [one for one in map(found_of, known) if one is not None])
        yield from _faults_of_earlier(template, known)


def _faults_of_route(template: str, routes: Sequence[Found]) -> Iterator[str]:
    for one in routes:
        if one.is_rough and one.shape == shape_of(template):
            yield f"{template} is hot, and paths for the route {one.path} may fit it too: leave the path out of hot"
    found = [one for one in routes if one.shape == shape_of(template) and "GET" in one.methods]
    if not found:
        yield (
            f"{template} is hot, but the application has no such route: whatever is special about a request, "
            "it has to answer"
        )
    for one in found:
        for guard in guards_of(one.route):
            yield (
                f"{template} is hot, and would be answered without {guard} of its route: leave the path out of hot, "
                "or that out of the route"
            )


def _faults_of_earlier(template: str, routes: Iterable[Any]) -> Iterator[str]:
    """Yields what is wrong with routes before that of a hot query, which would get some of its requests."""
    segments = template_segments(template.partition("?")[0])
    for route in routes:
        original, found = getattr(route, "original_route", route), found_of(route)
        if isinstance(original, Host):
            name = f"the application of the host {original.host}"
        elif found is None or not found.takes_get:
            continue
        elif found.shape == shape_of(template):
            return
        elif not _goes_first(template_segments(found.template), segments):
            continue
        else:
            name = (
                f"the {'mounted application' if found.is_mount else 'route'} {found.path.removesuffix('/*')}"
            )
        yield (
            f"{template} is hot, and would be answered in place of {name}, which stands before its route and may "
            "refuse it: put that behind the route, or leave the path out of hot"
        )


_RANKS = ("fixed", "text", "typed", "rest", "mount")


def _goes_first(earlier: Sequence[Segment], hot: Sequence[Segment]) -> bool:
    """Returns whether some path fits both templates, and is answered by the hot one, which is more exact."""
    is_hot: bool | None = None
    for at, mine in enumerate(earlier):
        if mine.kind in ("rest", "mount"):
            return is_hot is not False and (at < len(hot) or at == 0)
        if at == len(hot) or (mine.kind == hot[at].kind == "fixed" and mine.text != hot[at].text):
            return False
        if is_hot is None and mine.kind != hot[at].kind:
            is_hot = _RANKS.index(mine.kind) > _RANKS.index(hot[at].kind)
    return len(earlier) == len(hot) and is_hot is True


def guards_of(route: Any) -> list[str]:
    """Returns, in words, what may refuse requests for a route: its middleware, its class, and its dependencies.

    Dependencies that diptych gives are not among them.
    """
    dependant = getattr(route, "dependant", None)
    calls = [one.call for one in getattr(dependant, "dependencies", ())]
    names = [getattr(call, "__name__", repr(call)) for call in calls if not hasattr(call, GIVEN)]
    return [
        *(f"the dependency {name}" for name in names),
        *_own_wrappers(getattr(route, "original_route", route)),
    ]


def _own_wrappers(route: Any) -> list[str]:
    """Returns what the application has put around the function of a route, in words."""
    found, kind = [], type(route)
    handler = getattr(kind, "get_route_handler", None)
    if handler is not None and handler.__module__ != "fastapi.routing":
        found.append(f"get_route_handler of {kind.__name__}, the class")
    app: Any = getattr(route, "app", None)
    while type(app).__module__ == "starlette.middleware.body_limit":
        app = app.app
    is_framework = inspect.isfunction(app) and app.__module__ in ("starlette.routing", "fastapi.routing")
    if not is_framework and app is not getattr(route, "endpoint", None):
        found.append("the middleware")
    return found


GIVEN = "diptych_given"
"""Attribute of a dependency by which the application gets something of diptych's, and nothing is refused."""
