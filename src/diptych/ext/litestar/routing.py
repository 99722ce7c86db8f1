"""Route handlers of Litestar, made from endpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast

from litestar import Request
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from diptych.app import Diptych
from diptych.ext.litestar.openapi import ENDPOINT
from diptych.ext.litestar.plugin import ACCEPT_PATCH
from diptych.http.answers import Answer, send_answer
from diptych.http.asgi import Receive, Scope, Send
from diptych.http.endpoints.call import endpoint_call
from diptych.http.endpoints.compiled import Compiled, Endpoints
from diptych.http.endpoints.endpoint import Endpoint
from diptych.http.openapi.answers import documentation

__all__ = ["routes"]


def routes(
    endpoints: Iterable[Endpoint],
    *,
    title: str | None = None,
    version: str = "1",
    description: str | None = None,
) -> list[HTTPRouteHandler]:
    """Returns the route handlers of ``endpoints``, for a site with a `DiptychPlugin` that `asgi_app` serves.

    The plugin answers what they refuse, and decides about requests of other sites. With a ``title`` there are
    `/openapi.json` and `/docs` too, of these endpoints. Raises `WiringError` with all that is wrong with them.

    >>> from diptych import Document, Query
    >>> from diptych.ext.litestar import routes
    >>> from diptych.http import Endpoint
    >>> class GetBook(Query[Document[dict]]):
    ...     title: str
    >>> [handler.paths for handler in routes([Endpoint("GET", "/books/{title}", GetBook)])]
    [{'/books/{title:str}'}]
    """
    compiled = Endpoints(endpoints).compiled
    pages = {} if title is None else documentation(compiled, title, version, description)
    return [*map(_route_of, compiled), *(_route_of_page(path, page) for path, page in pages.items())]


def _route_of(one: Compiled) -> HTTPRouteHandler:
    async def answer(request: Request[Any, Any, Any], diptych: NamedDependency[Diptych]) -> ASGIApp:
        scope, receive = cast(Scope, request.scope), request.receive
        return _sent(await endpoint_call(one, diptych, scope, receive, request.path_params, same_site=False))

    path = re.sub(r"\{(\w+)(:\w+)?\}", r"{\1:str}", one.template)
    # In a function, which a copy keeps as it is: routers copy `opt` deeply, and there is no copying `msgspec.Meta`.
    opt = {ACCEPT_PATCH: ", ".join(one.media_types), ENDPOINT: lambda: one}
    return _handler(one.method, path, answer, opt)


def _route_of_page(path: str, page: Answer) -> HTTPRouteHandler:
    async def answer(request: Request[Any, Any, Any]) -> ASGIApp:
        return _sent(page.unless_known(cast(Scope, request.scope)))

    return _handler("GET", path, answer, {})


def _handler(method: str, path: str, function: Any, opt: dict[str, Any] | None = None) -> HTTPRouteHandler:
    function.__name__ = re.sub(r"\W+", "_", f"{method} {path}")  # Litestar's operations are named by it
    return HTTPRouteHandler(path, http_method=cast(Any, method), status_code=200, opt=opt)(function)


def _sent(answer: Answer) -> ASGIApp:
    """Returns the answer as an application, which Litestar calls: its own responses would add headers."""

    async def sent(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_answer(send, answer)

    return cast(ASGIApp, sent)
