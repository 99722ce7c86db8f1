"""The plugin for applications with a `Diptych`, and the ASGI application for the server."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from diptych.config.logs import has_one_form, show_unless_configured
from diptych.errors import Fault, InvalidMessage, MissingExtraError, WiringError
from diptych.http import HeadAsGet, RawPath, RequestContext, SecurityHeaders, check_same_site, prefers_html
from diptych.http.answers import QUERY_HEADERS
from diptych.http.asgi import ASGIApp, Message, Receive, Scope, Send, list_elements
from diptych.http.errors import PROBLEM_JSON, MethodNotAllowed, NotFound, Problem, problem_for, status_problem
from diptych.http.front import QUERY_ERROR, Front
from diptych.http.paths import PATH_ERROR, PATH_PARAMS

try:
    from litestar import Litestar, Request, Response
    from litestar.di import Provide
    from litestar.exceptions import (
        HTTPException,
        MethodNotAllowedException,
        NotFoundException,
        ValidationException,
    )
    from litestar.logging.config import LoggingConfig
    from litestar.plugins import InitPlugin
    from litestar.routes import HTTPRoute
except ModuleNotFoundError as error:
    if error.name != "litestar":
        raise
    raise MissingExtraError("diptych.ext.litestar", "litestar", "litestar") from error

if TYPE_CHECKING:
    from litestar.config.app import AppConfig
    from litestar.types import ASGIApp as LitestarApp

    from diptych.app import Diptych
    from diptych.messages.kinds import AnyQuery

RenderProblem = Callable[[Problem, Request[Any, Any, Any]], str]
"""A function that makes the HTML page of a problem. It returns text, not a response, so that its failure shows before
the answer has begun; the problem is then sent as JSON."""

ACCEPT_PATCH = "diptych.accept_patch"
"""Key in the `opt` of a handler of PATCH: the media types that it reads, for the answer to OPTIONS."""

_log = logging.getLogger("diptych.http")


class DiptychPlugin(InitPlugin):
    """Starts and stops `diptych` with the application, and hands `diptych` to handlers.

    A handler asks for `diptych` by a parameter `diptych: NamedDependency[Diptych]` (`litestar.di`).

    Every exception is answered: by `render_problem` where the client prefers HTML, else as problem details
    (an application's own `exception_handlers` come first). Path parameters arrive decoded. Unsafe requests
    that a browser sends on behalf of another site are refused with 403, unless `same_site` is False. OPTIONS
    names every method of its path, also where several handlers or controllers share the path.

    >>> from diptych import Diptych
    >>> from diptych.ext.litestar import DiptychPlugin
    >>> from litestar import Litestar, get
    >>> from litestar.di import NamedDependency
    >>> from litestar.testing import TestClient
    >>> from sqlalchemy.orm import DeclarativeBase
    >>> class Base(DeclarativeBase): ...
    >>> @get("/state")
    ... async def state(diptych: NamedDependency[Diptych]) -> dict[str, str]:
    ...     return {"state": (await diptych.health()).status}
    >>> plugin = DiptychPlugin(Diptych(models=Base, handlers=[]))
    >>> with TestClient(Litestar([state], plugins=[plugin], openapi_config=None)) as client:
    ...     print(client.get("/state").json(), client.get("/nothing").json()["title"])
    {'state': 'ok'} Not Found
    """

    def __init__(
        self, diptych: Diptych, *, render_problem: RenderProblem | None = None, same_site: bool = True
    ) -> None:
        self.diptych = diptych
        self._render_problem = render_problem
        self._same_site = same_site

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Adds lifespan, dependency, exception handler and middleware. Litestar calls this."""
        # The first lifespan, so that the application's own lifespans find `diptych` running.
        app_config.lifespan.insert(0, self._run)
        app_config.state["diptych"] = self.diptych  # where the commands of `diptych` look for it
        app_config.dependencies["diptych"] = Provide(self._provide, sync_to_thread=False)
        app_config.exception_handlers.setdefault(Exception, self._answer)
        app_config.middleware.insert(0, self._wrap)
        if has_one_form() and _is_default(app_config.logging_config):
            app_config.logging_config = _LoggingLeftAlone()
        return app_config

    @asynccontextmanager
    async def _run(self, _: Litestar) -> AsyncIterator[None]:
        show_unless_configured(self.diptych.config.settings)
        await self.diptych.start()
        try:
            yield
        finally:
            await self.diptych.stop()

    def _provide(self) -> Any:
        return self.diptych

    def _wrap(self, app: LitestarApp) -> LitestarApp:
        """Returns the middleware between routing and handler.

        It puts the decoded path parameters in place of Litestar's, raises errors of the path and of hot queries,
        refuses requests of other sites, and puts all methods of the path into Litestar's answers to OPTIONS.
        """
        inner = cast(ASGIApp, app)

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if PATH_PARAMS in scope:
                if scope[PATH_PARAMS] is None:  # no route matched, but the site has a route for any path
                    raise scope.get(PATH_ERROR, NotFound())
                scope["path_params"] = {**scope["path_params"], **scope[PATH_PARAMS]}
            if QUERY_ERROR in scope:
                raise scope[QUERY_ERROR]
            if scope["type"] == "http":
                if self._same_site:
                    check_same_site(scope)
                if scope["method"] == "OPTIONS" and _is_litestars_own(scope["route_handler"]):
                    send = _allowing(_handlers_at(scope), send)
            await inner(scope, receive, send)

        return cast("LitestarApp", guarded)

    def _answer(self, request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        scope = cast(Scope, request.scope)
        problem = problem_for(scope[PATH_ERROR]) if PATH_ERROR in scope else _problem_for(error)
        headers = {**QUERY_HEADERS, **problem.headers}
        if self._render_problem is not None and prefers_html(scope):
            try:
                page = self._render_problem(problem, request)
            except Exception:
                _log.exception("the page for a problem could not be rendered; it is sent as JSON")
            else:
                return Response(page, status_code=problem.status, headers=headers, media_type="text/html")
        return Response(problem.json(), status_code=problem.status, headers=headers, media_type=PROBLEM_JSON)


def _is_default(given: object) -> bool:
    """Returns True for the logging that Litestar configures if nobody says otherwise: with handlers of its own."""
    chosen = ("root", "loggers", "handlers", "formatters", "configure_root_logger")
    default = LoggingConfig()
    return type(given) is LoggingConfig and all(getattr(given, n) == getattr(default, n) for n in chosen)


class _LoggingLeftAlone(LoggingConfig):
    def configure(self) -> Any:
        return logging.getLogger

    @staticmethod
    def set_level(logger: Any, level: int) -> None:
        pass


def _is_litestars_own(handler: Any) -> bool:
    """Returns True for Litestar's own handler of OPTIONS.

    Such a handler names the methods that the path had at its making, and stays when the route is merged with later
    routes of the same path.
    """
    return getattr(getattr(handler, "fn", None), "__module__", None) == HTTPRoute.__module__


def _handlers_at(scope: Scope) -> dict[str, Any]:
    """Returns the handlers of a path by method, under any names of parameters: Litestar joins such routes."""
    shape = _shape(scope["path_template"])
    routes = [route for route in scope["litestar_app"].routes if isinstance(route, HTTPRoute)]
    return {
        str(method): handler
        for route in routes
        if _shape(route.path_format) == shape
        for method, (handler, _) in route.route_handler_map.items()
    }


def _shape(template: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", template)


def _allowing(handlers: Mapping[str, Any], send: Send) -> Send:
    own = {b"allow": ", ".join(sorted(handlers)).encode("ascii")}
    if patched := getattr(handlers.get("PATCH"), "opt", {}).get(ACCEPT_PATCH):
        own[b"accept-patch"] = patched.encode("ascii")

    async def send_allowing(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 204:
            headers = (pair for pair in message["headers"] if pair[0].lower() not in own)
            message = {**message, "headers": [*headers, *own.items()]}
        await send(message)

    return send_allowing


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
    if not hot:
        return served
    if diptych is None:
        raise WiringError(["hot queries are asked of a Diptych: add DiptychPlugin to the site's plugins"])
    _check_hot(hot, site, patterns)
    return Front(diptych, hot, served, others=patterns, headers=secured.of_data)


def _check_hot(hot: Iterable[str], site: Litestar, patterns: Iterable[str]) -> None:
    shapes = {_shape(pattern) for pattern in patterns}
    paths = {template: template.partition("?")[0] for template in hot}
    problems = [
        f"{template} is hot, but the site has no such route: whatever is special about a request, it has to answer"
        for template, path in paths.items()
        if _shape(path) not in shapes
    ]
    skipped = {"cors_config": site.cors_config, "allowed_hosts": site.allowed_hosts}
    problems += [
        f"{name} is not heeded by hot queries, which are answered before Litestar: wrap what asgi_app returns instead"
        for name, value in skipped.items()
        if value
    ]
    if problems:
        raise WiringError(problems)


def _patterns(site: Litestar) -> Iterator[str]:
    for route in site.routes:
        handler = getattr(route, "route_handler", None)  # an HTTP route has several, and is never a mount
        yield f"{route.path.rstrip('/')}/*" if getattr(handler, "is_mount", False) else route.path


def _problem_for(error: Exception) -> Problem:
    """Puts Litestar's own exceptions in our words: Litestar's show its inner structure, and differ by release."""
    match error:
        case NotFoundException():
            return problem_for(NotFound())
        case MethodNotAllowedException():
            allow = (error.headers or {}).get("allow", "GET")
            return problem_for(MethodNotAllowed(list_elements(allow)))
        case ValidationException(extra=list(found)):
            faults = (Fault(str(one.get("key", "")), str(one.get("message", ""))) for one in found)
            return problem_for(InvalidMessage("request", faults))
        case ValidationException():  # a parameter is missing
            return status_problem(422, error.detail)
        case HTTPException() if error.status_code < 500:
            return status_problem(error.status_code, error.detail, error.headers)
        case HTTPException() if error.status_code > 500:
            return status_problem(error.status_code, headers=error.headers)
        case _:
            return problem_for(error)
