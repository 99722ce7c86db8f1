"""The routes of an application, and the routing of paths with an encoded slash in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Mount, Route, Router, compile_path

from diptych.app import STARTED, Diptych
from diptych.ext.starlette.endpoints import AS_DECODED, ENDPOINT
from diptych.http.asgi import Scope
from diptych.http.endpoints.compiled import Compiled, accept_patch
from diptych.http.errors import HttpError
from diptych.http.front import faults_of_parameters
from diptych.http.paths import PATH_PARAMS, RawPath, mount_of, path_segments, sent_path


class Found(NamedTuple):
    """A route of an application, with the prefixes of the routers that it is included by."""

    path: str
    methods: frozenset[str]
    endpoint: Any
    route: Any
    is_mount: bool = False

    @property
    def regex(self) -> re.Pattern[str]:
        """The pattern that paths of requests for this route match."""
        return _regex(self.path)

    @property
    def template(self) -> str:
        """The path, with a parameter in place of a segment of several parameters, or of a parameter and text."""
        return "/".join(map(_whole, self.path.split("/")))

    @property
    def is_rough(self) -> bool:
        """True if fewer paths fit the route than its template."""
        return self.template != self.path

    @property
    def takes_get(self) -> bool:
        """True if a GET for its path is for it. (A route of Starlette without methods has a class that tells.)"""
        original = getattr(self.route, "original_route", self.route)
        return (
            self.is_mount or "GET" in self.methods or (isinstance(original, Route) and not original.methods)
        )

    @property
    def shape(self) -> str:
        """The template with nameless parameters."""
        return shape_of(self.template)


def _whole(segment: str) -> str:
    """Returns a segment, `{name}.{ext}` as a parameter that takes any text without a slash."""
    return segment if "{" not in segment or re.fullmatch(r"\{[^{}]*\}", segment) else "{part:text}"


@cache
def _regex(path: str) -> re.Pattern[str]:
    return compile_path(path)[0]


def shape_of(template: str) -> str:
    """Returns a path template with nameless parameters: frameworks name the same segment differently."""
    return re.sub(r"\{[^}]*\}", "{}", template.partition("?")[0])


def found_routes(app: Starlette) -> list[Found]:
    """Returns all routes of an application, those of included routers too; a mounted application is one of them."""
    return [found for route in flat(app.routes) if (found := found_of(route)) is not None]


def flat(routes: Iterable[BaseRoute]) -> Iterator[Any]:
    """Yields routes, and in place of included routers the routes of these."""
    try:
        from fastapi.routing import iter_route_contexts  # FastAPI keeps included routers as they are
    except ImportError:
        return iter(routes)
    return iter(iter_route_contexts(list(routes)))


def found_of(route: Any) -> Found | None:
    """Returns a route as found; None for a route of hosts, and for a route without a path."""
    original = getattr(route, "original_route", route)
    if isinstance(original, Host):
        return None
    path: str | None = getattr(route, "path", None)
    if path is None:
        return None
    if isinstance(original, Mount):
        return Found(f"{path.rstrip('/')}/*", frozenset(), original.app, route, is_mount=True)
    methods = frozenset(getattr(route, "methods", None) or ())
    return Found(path, methods, getattr(route, "endpoint", None), route)


def within_mounts(routes: Iterable[BaseRoute], above: str = "") -> Iterator[Found]:
    """Yields the routes of each `Mount(…, routes=…)`, with its path. A mounted application routes its own."""
    for route in flat(routes):
        original = getattr(route, "original_route", route)
        if isinstance(original, Mount) and isinstance(original._base_app, Router):
            prefix = above + route.path
            for found in map(found_of, flat(original.routes)):
                if found is not None:
                    yield found._replace(path=prefix + found.path)
            yield from within_mounts(original.routes, prefix)


def faults_of_prefixes(routes: Iterable[BaseRoute], above: str = "") -> Iterator[str]:
    """Yields what is wrong with parameters in the prefixes of endpoints as fields of their messages."""
    for route in flat(routes):
        original = getattr(route, "original_route", route)
        if isinstance(original, Mount | Host):
            prefix = original.host if isinstance(original, Host) else route.path
            yield from faults_of_prefixes(original.routes, above + prefix)
            continue
        one: Compiled | None = getattr(getattr(route, "endpoint", None), ENDPOINT, None)
        if one is None:
            continue
        path = above + route.path
        placed = one.placed(re.findall(r"\{(\w+)", path))
        named = [name for at, name in placed.in_path if at == -1]
        where = f"{one.method} {path}"
        yield from faults_of_parameters(where, (), one.endpoint.message, named)
        if one.endpoint.body in named:
            yield f"{where}: {one.endpoint.body!r} is the body of the endpoint: call the parameter something else"


def faults_of_mounted(routes: Iterable[BaseRoute]) -> Iterator[str]:
    """Yields where a mounted application has endpoints and no `Diptych`, which they would look for there."""
    for place, app in _mounted(routes):
        if getattr(app.state, "diptych", None) is None:
            within = [*found_routes(app), *within_mounts(app.routes)]
            if any(hasattr(found.endpoint, ENDPOINT) for found in within):
                yield (
                    f"the application at {place} has endpoints and no Diptych: install(…) the same Diptych in it "
                    "too, or put the endpoints into the application around it"
                )


def faults_of_others(routes: Iterable[BaseRoute]) -> Iterator[str]:
    """Yields where a mounted application has a `Diptych` that is not started: nobody runs its lifespan."""
    for place, app in _mounted(routes):
        diptych = getattr(app.state, "diptych", None)
        if isinstance(diptych, Diptych) and diptych not in STARTED:
            yield (
                f"the application at {place} has another Diptych, which nobody starts, as the lifespan of a mounted "
                "application does not run: install(…) the same Diptych in both, or start the other in the lifespan "
                "of the application around it (async with other: yield)"
            )


def _mounted(routes: Iterable[BaseRoute], above: str = "") -> Iterator[tuple[str, Starlette]]:
    """Yields the applications that are mounted, those within them too, each with its place."""
    for route in flat(routes):
        original = getattr(route, "original_route", route)
        if isinstance(original, Mount | Host):
            place = above + (original.host if isinstance(original, Host) else route.path)
            app = getattr(original, "_base_app", original.app)
            if isinstance(app, Starlette):
                yield place, app
            yield from _mounted(original.routes, place)


class Paths:
    """The routing of paths as they were sent, and the methods of each path."""

    def __init__(self, routes: Iterable[Found], within: Iterable[Found]) -> None:
        """Takes the ``routes`` of the application, and those ``within`` its mounts."""
        self._routes, self._within = list(routes), list(within)
        self._raw = RawPath(_nowhere, [found.template for found in self._routes + self._within])

    def routed(self, scope: Scope) -> Scope:
        """Returns the scope for the framework: an encoded slash in a path is text, and no end of a segment.

        A path that no route has as it was sent is left to the framework, which decodes it as a whole (`{…:path}`, the
        applications of hosts): the application's own routes may have it so, and endpoints have not.

        Raises `BadRequest` for a malformed path.
        """
        sent = sent_path(scope)
        if b"%" not in sent:
            return scope
        path_segments(sent, "")  # raises for what is malformed
        if b"%2f" not in sent.lower():
            return scope
        routed = self._raw.routed({**scope, "root_path": mount_of(scope)})
        parameters = routed[PATH_PARAMS]
        if parameters is None:
            return {**scope, AS_DECODED: True}
        return _Routed({**routed, "root_path": scope.get("root_path", "")}, parameters)

    def has_head(self, scope: Scope) -> bool:
        """Returns whether a route of the application's own answers HEAD for the path of a request by itself."""
        try:
            path = get_route_path(self.routed(scope))
        except HttpError:
            return False
        return any(
            "HEAD" in found.methods and not hasattr(found.endpoint, ENDPOINT) and found.regex.match(path)
            for found in self._routes + self._within
        )

    def methods_at(self, scope: Scope, root: str) -> Mapping[str, Iterable[tuple[bytes, bytes]]]:
        """Returns the methods of the path of a request, each with the headers that an answer to OPTIONS has of it.

        ``root`` is the prefix that the application is at; that of ``scope`` may be the one of a mount in it, of which
        only the routes within mounts know: those of an application that is mounted there do not.
        """
        path = get_route_path({**scope, "root_path": root})
        methods: dict[str, list[tuple[bytes, bytes]]] = {}
        for found in self._routes if scope.get("root_path", "") == root else self._within:
            if not found.is_mount and found.regex.match(path):
                one: Compiled | None = getattr(found.endpoint, ENDPOINT, None)
                for method in found.methods - ({"HEAD"} if "GET" in found.methods else set()):
                    methods[method] = [] if one is None else accept_patch(one)
        return methods


async def _nowhere(*_: Any) -> None:
    """Is never called: only the routing of `RawPath` is used."""


class _Routed(dict[str, Any]):
    """A scope in which the decoded parameters of the path take the place of the framework's.

    Between its routing and the function of a route nothing of ours is called, and it updates the scope.
    """

    def __init__(self, scope: Scope, parameters: Mapping[str, str]) -> None:
        super().__init__(scope)
        self._parameters = parameters

    def update(self, *others: Any, **more: Any) -> None:
        super().update(*others, **more)
        if "path_params" in self:
            found = self["path_params"]
            decoded = {name: value for name, value in self._parameters.items() if name in found}
            self["path_params"] = {**found, **decoded}
