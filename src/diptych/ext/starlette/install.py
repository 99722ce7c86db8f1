"""`install`: diptych in an application of Starlette, or of FastAPI."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection

from diptych.app import Diptych
from diptych.config.logs import show_unless_configured
from diptych.errors import DiptychError, NotStartedError, WiringError
from diptych.ext.starlette.problems import answer_error
from diptych.ext.starlette.wrappers import Gate
from diptych.http.asgi import ASGIApp, HeadAsGet, RequestContext, SecurityHeaders
from diptych.messages.kinds import AnyQuery


def install(
    app: Starlette,
    diptych: Diptych,
    *,
    hot: Mapping[str, type[AnyQuery]] | None = None,
    same_site: bool = True,
    security_headers: Mapping[str, str | None] | None = None,
) -> None:
    """Puts ``diptych`` into an application, before it serves. Routes may be added before and afterwards.

    ``diptych`` is started and stopped with the application, and is `app.state.diptych`. The application's own
    lifespan runs within; a lifespan around, if ``diptych`` has an ``engine``, which that lifespan disposes of. Every
    error is problem details, but for those with a handler of the application's own. The log knows request and actor.
    HEAD works wherever GET does, OPTIONS names the methods of a path, and a path parameter may have a slash
    (`/books/AC%2FDC`). ``security_headers`` changes single headers of `SECURITY_HEADERS`, or leaves them out by None.
    Unsafe requests that a browser sends on behalf of another site are refused (403), unless ``same_site`` is False.

    ``hot`` names the queries that are answered without a route, `{"/books/{title}": GetBook}` (see
    `diptych.http.Front` and `diptych.http.hot_routes`), behind the application's middleware if it has any, so CORS
    and allowed hosts are heeded. The application has to have these routes too. The start raises `WiringError` for a
    hot query whose route has dependencies, middleware or a class of its own, which would not be heeded, whose
    requests a route or an application before its route would get, or that can't be answered.

    >>> import asyncio
    >>> import httpx
    >>> from diptych import Diptych, Document, Query, Served
    >>> from diptych.ext.starlette import install, routes
    >>> from diptych.http import Endpoint
    >>> from sqlalchemy.orm import DeclarativeBase
    >>> from starlette.applications import Starlette
    >>> class Base(DeclarativeBase): ...
    >>> class GetBook(Query[Document[dict]]):
    ...     title: str
    >>> class Handler:
    ...     async def get(self, query: GetBook) -> Document[dict]:
    ...         return Document(b'{"title":"%s"}' % query.title.encode(), Served("redis"), dict)
    >>> app = Starlette(routes=routes([Endpoint("GET", "/books/{title}", GetBook)]))
    >>> install(app, Diptych(models=Base, handlers=[Handler]))
    >>> async def main():
    ...     transport = httpx.ASGITransport(app)
    ...     async with app.router.lifespan_context(app), httpx.AsyncClient(
    ...         transport=transport, base_url="http://books"
    ...     ) as client:
    ...         for path in ("/books/AC%2FDC", "/books"):
    ...             answer = await client.get(path)
    ...             print(answer.json()["title"], answer.headers["content-type"])
    >>> asyncio.run(main())
    AC/DC application/json
    Not Found application/problem+json
    """
    put_into(app, diptych, hot=hot, same_site=same_site, security_headers=security_headers)


def put_into(
    app: Starlette,
    diptych: Diptych,
    *,
    hot: Mapping[str, type[AnyQuery]] | None,
    same_site: bool,
    security_headers: Mapping[str, str | None] | None,
) -> Gate:
    """Does what `install` does, and returns the gate, for checks of a framework above Starlette."""
    if getattr(app.state, "diptych", None) is not None:
        raise WiringError(["this application has a Diptych already: install it once"])
    if app.middleware_stack is not None:
        raise WiringError(["this application has served a request already: install diptych before"])
    app.state.diptych = diptych
    gate = Gate(app, diptych, dict(hot or {}), same_site=same_site)
    _run_with(app, diptych, gate)
    for kind in (DiptychError, HTTPException):
        app.exception_handlers.setdefault(kind, answer_error)
    if 500 not in app.exception_handlers:  # by which Starlette means the same, and takes the last of the two
        app.exception_handlers.setdefault(Exception, answer_error)
    _stand_around(app, gate, security_headers)
    return gate


def diptych_of(connection: HTTPConnection) -> Diptych:
    """Returns the `Diptych` of the application that a request, or a web socket, is for.

    >>> from diptych import Diptych
    >>> from diptych.ext.starlette import diptych_of, install
    >>> from sqlalchemy.orm import DeclarativeBase
    >>> from starlette.applications import Starlette
    >>> from starlette.requests import Request
    >>> class Base(DeclarativeBase): ...
    >>> app, books = Starlette(), Diptych(models=Base, handlers=[])
    >>> install(app, books)
    >>> diptych_of(Request({"type": "http", "app": app})) is books
    True
    """
    diptych = getattr(connection.app.state, "diptych", None)
    if not isinstance(diptych, Diptych):
        raise NotStartedError("this application has no Diptych: install(app, diptych), of diptych.ext")
    return diptych


def _run_with(app: Starlette, diptych: Diptych, gate: Gate) -> None:
    own = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(application: Any) -> AsyncIterator[Any]:
        show_unless_configured(diptych.config.settings)
        gate.prepare()
        async with AsyncExitStack() as exits:
            if diptych.engine is None:
                await exits.enter_async_context(diptych)
            state = await exits.enter_async_context(own(application))
            if diptych.engine is not None:  # the application's own lifespan disposes of it
                await exits.enter_async_context(diptych)
            gate.prepare()  # again: that lifespan may have added routes
            gate.check_others()  # not before: it may start them
            yield state

    app.router.lifespan_context = lifespan


def _stand_around(app: Starlette, gate: Gate, security_headers: Mapping[str, str | None] | None) -> None:
    """Puts the gate behind all middleware, and the wrapper of answers in front, of middleware added later too."""
    own = Middleware(lambda inner: gate.around(inner))
    app.user_middleware.append(own)
    # Tools that trace requests put another function here, and stand around what it returns.
    is_traced = "build_middleware_stack" in vars(app)
    build = app.build_middleware_stack

    def built() -> ASGIApp:
        gate.hot_is_first = app.user_middleware == [own] and not is_traced
        stack: Any = build()
        secured = SecurityHeaders(HeadAsGet(stack, gate.has_head), security_headers)
        return gate.hot_around(RequestContext(secured), secured.of_data, is_first=True)

    app.build_middleware_stack = built  # type: ignore[method-assign]
