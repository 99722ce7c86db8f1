"""The plugin for applications with a `Diptych`."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from diptych.config.logs import has_one_form, show_unless_configured
from diptych.context import request_scope
from diptych.errors import DiptychError, MissingExtraError, WiringError
from diptych.http import check_same_site, prefers_html
from diptych.http.answers import QUERY_HEADERS
from diptych.http.asgi import ASGIApp, Message, Receive, Scope, Send
from diptych.http.errors import PROBLEM_JSON, BadRequest, NotFound, Problem, problem_for
from diptych.http.front import QUERY_ERROR
from diptych.http.paths import PATH_ERROR, PATH_PARAMS
from diptych.http.reading import KEPT, WatchedReceive

try:
    from litestar import Litestar, Request, Response
    from litestar.di import Provide
    from litestar.exceptions import HTTPException
    from litestar.logging.config import LoggingConfig
    from litestar.plugins import InitPlugin, SerializationPlugin
    from litestar.routes import HTTPRoute
    from litestar.types import Empty
    from litestar.utils.scope.state import ScopeState
except ModuleNotFoundError as error:
    if error.name != "litestar":
        raise
    raise MissingExtraError("diptych.ext.litestar", "litestar", "litestar") from error

from diptych.ext.litestar.answers import refuse_untold
from diptych.ext.litestar.models import dto_of, is_supported
from diptych.ext.litestar.problems import problem_of
from diptych.ext.litestar.session import OPENED, in_session, needs_session

if TYPE_CHECKING:
    from litestar.config.app import AppConfig
    from litestar.dto import AbstractDTO
    from litestar.types import ASGIApp as LitestarApp
    from litestar.typing import FieldDefinition

    from diptych.app import Diptych

RenderProblem = Callable[[Problem, Request[Any, Any, Any]], str]
"""A function that makes the HTML page of a problem. It returns text, not a response, so that its failure shows before
the answer has begun; the problem is then sent as JSON."""

ACCEPT_PATCH = "diptych.accept_patch"
"""Key in the `opt` of a handler of PATCH: the media types that it reads, for the answer to OPTIONS."""

_INVALID_HOST = b'{"message":"invalid host header"}'

_log = logging.getLogger("diptych.http")


class DiptychPlugin(InitPlugin, SerializationPlugin):
    """Starts and stops `diptych` with the application, and hands `diptych` to handlers.

    A handler asks for `diptych` by a parameter `diptych: NamedDependency[Diptych]` (`litestar.di`); for a read model
    by its name in lower case, `books: NamedDependency[Books]`, `book_read_model: NamedDependency[BookReadModel]`; and
    for `session`, SQLAlchemy's `AsyncSession` in a transaction of the request's own, which is committed, and visible
    to queries, before the answer is sent. Dependencies of the application's own with these names come first.

    A parameter `data` that is a message, or a list of messages, is made by `build`. A `Document` or a `Page` that a
    handler returns, also in a list, a tuple, a dict or a `Response`, is sent as the stored bytes; by itself with
    `ETag` (and 304) and `Cache-Status`, or 404.

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
        """Adds lifespan, dependency, exception handler and middleware. Litestar calls this.

        Raises `WiringError` if the application has a `Diptych` already.
        """
        # The first lifespan, so that the application's own lifespans find `diptych` running; but the last if one of
        # them disposes of its engine.
        app_config.lifespan.insert(0 if self.diptych.engine is None else len(app_config.lifespan), self._run)
        if app_config.state.get("diptych", self.diptych) is not self.diptych:
            raise WiringError(["this application has a Diptych already: give it one DiptychPlugin"])
        app_config.state["diptych"] = self.diptych  # where the commands of `diptych` look for it
        app_config.dependencies["diptych"] = Provide(self._provide, sync_to_thread=False)
        app_config.dependencies.setdefault("session", OPENED)
        for model in self.diptych.read_models:
            app_config.dependencies.setdefault(_lower(model.__name__), self._provider(model))
        app_config.type_encoders = {type: refuse_untold, **(app_config.type_encoders or {})}
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

    def supports_type(self, field_definition: FieldDefinition) -> bool:
        """Returns whether a type is a message, a document or a page. Litestar calls this."""
        return is_supported(field_definition)

    def create_dto_for_type(self, field_definition: FieldDefinition) -> type[AbstractDTO[Any]]:
        """Returns what makes a message of a body, or of a document an answer. Litestar calls this."""
        return dto_of(field_definition)

    def _provide(self) -> Any:
        return self.diptych

    def _provider(self, kind: type) -> Provide:
        def provided() -> Any:
            return self.diptych.provide(kind)

        return Provide(provided, sync_to_thread=False)

    def _wrap(self, app: LitestarApp) -> LitestarApp:
        """Returns the middleware between routing and handler.

        It puts the decoded path parameters in place of Litestar's, raises errors of the path and of hot queries,
        refuses requests of other sites, puts all methods of the path into Litestar's answers to OPTIONS, and notes
        who reads the body.
        """
        inner = cast(ASGIApp, app)

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if PATH_PARAMS in scope:
                if scope[PATH_PARAMS] is None:  # no route matched, but the site has a route for any path
                    raise scope.get(PATH_ERROR, NotFound())
                scope["path_params"] = {**scope["path_params"], **scope[PATH_PARAMS]}
            if QUERY_ERROR in scope:
                raise scope[QUERY_ERROR]
            is_http = scope["type"] == "http"
            if is_http and self._same_site:
                check_same_site(scope)
            if is_http and scope["method"] == "OPTIONS" and _is_litestars_own(scope["route_handler"]):
                send = _allowing(_handlers_at(scope), send)
            if is_http:
                receive = _watched(scope, receive)
            if is_http and scope["litestar_app"].allowed_hosts:
                send = _refusing_hosts(send)
            # The scope that middleware and handlers put the user and `request.state` into: an `actor` looks there.
            token = request_scope.set(scope)
            try:
                if is_http and needs_session(scope["route_handler"]):
                    await in_session(self.diptych, inner, scope, receive, send)
                else:
                    await inner(scope, receive, send)
            finally:
                request_scope.reset(token)

        return cast("LitestarApp", guarded)

    def _answer(self, request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        scope = cast(Scope, request.scope)
        problem = problem_for(scope[PATH_ERROR]) if PATH_ERROR in scope else problem_of(error, scope)
        is_unforeseen = problem.status == 500 and not isinstance(error, DiptychError | HTTPException)
        if is_unforeseen and (own := _own_of_500(request)):
            return own(request, error)
        headers = {**QUERY_HEADERS, **problem.headers}
        if problem.status in (204, 304) or problem.status < 200:  # which have no body
            return Response(None, status_code=problem.status, headers=headers)
        if self._render_problem is not None and prefers_html(scope):
            try:
                page = self._render_problem(problem, request)
            except Exception:
                _log.exception("the page for a problem could not be rendered; it is sent as JSON")
            else:
                return Response(page, status_code=problem.status, headers=headers, media_type="text/html")
        return Response(problem.json(), status_code=problem.status, headers=headers, media_type=PROBLEM_JSON)


def _own_of_500(request: Request[Any, Any, Any]) -> Callable[..., Response[Any]] | None:
    """Returns the application's own handler for the status 500, which Litestar asks after ours for any exception."""
    found = ScopeState.from_scope(request.scope).exception_handlers
    return (request.app.exception_handlers if found is Empty else found).get(500)


def _watched(scope: Scope, receive: Receive) -> Receive:
    """Returns a `receive` for whoever reads the body after guards, hooks and middleware, which may have read it."""

    def kept() -> bytes | None:
        body = ScopeState.from_scope(cast(Any, scope)).body
        return None if body is Empty else body

    scope[KEPT] = kept
    return WatchedReceive(
        receive, "read it by request.body(), as request.stream() and read_fields keep nothing"
    )


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


def _lower(name: str) -> str:
    """Returns the name of a class as that of a parameter: `BookReadModel` is `book_read_model`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _is_litestars_own(handler: Any) -> bool:
    """Returns True for Litestar's own handler of OPTIONS.

    Such a handler names the methods that the path had at its making, and stays when the route is merged with later
    routes of the same path.
    """
    return getattr(getattr(handler, "fn", None), "__module__", None) == HTTPRoute.__module__


def _handlers_at(scope: Scope) -> dict[str, Any]:
    """Returns the handlers of a path by method, under any names of parameters: Litestar joins such routes."""
    shape = shape_of(scope["path_template"])
    routes = [route for route in scope["litestar_app"].routes if isinstance(route, HTTPRoute)]
    return {
        str(method): handler
        for route in routes
        if shape_of(route.path_format) == shape
        for method, (handler, _) in route.route_handler_map.items()
    }


def shape_of(template: str) -> str:
    """Returns a path template with nameless parameters."""
    return re.sub(r"\{[^}]*\}", "{}", template)


def _refusing_hosts(send: Send) -> Send:
    """Returns a `send` that raises `BadRequest` for what Litestar says to a host that is not in `allowed_hosts`."""
    begun: list[Message] = []

    async def send_refusing(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 400:
            begun.append(message)
            return
        if message.get("body") == _INVALID_HOST and begun:
            raise BadRequest("this server does not answer under this name")
        while begun:
            await send(begun.pop())
        await send(message)

    return send_refusing


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
