"""The ASGI application for the server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from litestar import Litestar
from litestar.routes import HTTPRoute

from diptych.errors import WiringError
from diptych.ext.litestar.openapi import tell_endpoints
from diptych.ext.litestar.plugin import DiptychPlugin, shape_of
from diptych.http import HeadAsGet, RawPath, RequestContext, SecurityHeaders
from diptych.http.asgi import ASGIApp
from diptych.http.front import Front

if TYPE_CHECKING:
    from diptych.app import Diptych
    from diptych.messages.kinds import AnyQuery


class _Served(RequestContext):
    """The outermost wrapper. Its attribute `diptych` is the plugin's, for `diptych rebuild` to find."""

    def __init__(self, app: ASGIApp, diptych: Diptych | None) -> None:
        super().__init__(app)
        self.diptych = diptych


def asgi_app(
    site: Litestar,
    *,
    hot: Mapping[str, type[AnyQuery]] | None = None,
    security_headers: Mapping[str, str | None] | None = None,
) -> ASGIApp:
    """Returns `site` as the ASGI application to serve: routed on the raw path, with HEAD and security headers.

    The site's routes must be complete, as their templates are read here, once. `hot` names the queries that are
    answered in JSON before Litestar sees them, `{"/books/{title}": GetBook}` (see `diptych.http.Front`: Litestar's
    guards, middleware and hooks do not see them either); the site has to have these routes too. `security_headers`
    changes single headers of `diptych.http.SECURITY_HEADERS`, or leaves them out by None. HEAD works wherever GET
    does. Lifespan events pass through. The application's attribute `diptych` is the plugin's `Diptych`, None without
    the plugin. Raises `WiringError` for hot queries without the plugin, or that can't be answered.

    >>> import asyncio
    >>> import httpx
    >>> from diptych import Diptych
    >>> from diptych.ext.litestar import DiptychPlugin, asgi_app
    >>> from litestar import Litestar, get
    >>> from litestar.params import FromPath
    >>> from sqlalchemy.orm import DeclarativeBase
    >>> class Base(DeclarativeBase): ...
    >>> @get("/books/{title:str}")
    ... async def book(title: FromPath[str]) -> dict[str, str]:
    ...     return {"title": title}
    >>> plugin = DiptychPlugin(Diptych(models=Base, handlers=[]))
    >>> app = asgi_app(Litestar([book], plugins=[plugin], openapi_config=None))
    >>> async def main():
    ...     async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://books") as client:
    ...         answer = await client.get("/books/AC%2FDC")
    ...         print(answer.json(), answer.headers["x-content-type-options"])
    >>> asyncio.run(main())
    {'title': 'AC/DC'} nosniff
    """
    patterns = list(_patterns(site))
    secured = SecurityHeaders(HeadAsGet(RawPath(cast(ASGIApp, site), patterns)), security_headers)
    plugins = [plugin for plugin in site.plugins if isinstance(plugin, DiptychPlugin)]
    diptych = plugins[0].diptych if plugins else None
    served = _Served(secured, diptych)
    tell_endpoints(site)
    if not hot:
        return served
    if diptych is None:
        raise WiringError(["hot queries are asked of a Diptych: add DiptychPlugin to the site's plugins"])
    _check_hot(hot, site, patterns)
    return Front(diptych, hot, served, others=patterns, headers=secured.of_data)


def _check_hot(hot: Iterable[str], site: Litestar, patterns: Iterable[str]) -> None:
    shapes = {shape_of(pattern) for pattern in patterns}
    paths = {template: template.partition("?")[0] for template in hot}
    problems = [
        f"{template} is hot, but the site has no such route: whatever is special about a request, it has to answer"
        for template, path in paths.items()
        if shape_of(path) not in shapes
    ]
    problems += [
        f"{template} is hot, and would be answered without the guard {_name_of(guard)} of its "
        "route: leave the path out of hot, or the guard out of the route"
        for template, path in paths.items()
        for route in site.routes
        if isinstance(route, HTTPRoute) and shape_of(route.path_format) == shape_of(path)
        for handler in route.route_handlers
        if "GET" in handler.http_methods
        for guard in handler.resolve_guards()
    ]
    skipped = {"cors_config": site.cors_config, "allowed_hosts": site.allowed_hosts}
    problems += [
        f"{name} is not heeded by hot queries, which are answered before Litestar: wrap what asgi_app returns instead"
        for name, value in skipped.items()
        if value
    ]
    if problems:
        raise WiringError(problems)


def _name_of(guard: Any) -> str:
    function = getattr(guard, "func", guard)  # Litestar wraps what is not asynchronous
    return getattr(function, "__name__", repr(function))


def _patterns(site: Litestar) -> Iterator[str]:
    for route in site.routes:
        handler = getattr(route, "route_handler", None)  # an HTTP route has several, and is never a mount
        yield f"{route.path.rstrip('/')}/*" if getattr(handler, "is_mount", False) else route.path
