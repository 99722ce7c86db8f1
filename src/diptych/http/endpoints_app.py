"""Endpoints as an application of their own: pure ASGI, to be served or mounted as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from diptych.app import Diptych
from diptych.errors import WiringError
from diptych.http.answers import Answer, answer_problem, send_answer
from diptych.http.asgi import (
    ASGIApp,
    HeadAsGet,
    Message,
    Receive,
    RequestContext,
    Scope,
    SecurityHeaders,
    Send,
)
from diptych.http.endpoints.call import endpoint_call
from diptych.http.endpoints.compiled import Compiled, Endpoints, accept_patch
from diptych.http.endpoints.endpoint import Endpoint
from diptych.http.endpoints.hot import hot_routes
from diptych.http.errors import MethodNotAllowed, NotFound, allow_header, problem_for
from diptych.http.front import Front
from diptych.http.openapi.answers import documentation
from diptych.http.paths import path_segments, sent_path


def endpoints_app(
    diptych: Diptych,
    endpoints: Iterable[Endpoint],
    *,
    title: str | None = None,
    version: str = "1",
    description: str | None = None,
    security_headers: Mapping[str, str | None] | None = None,
) -> ASGIApp:
    """Returns the ``endpoints`` as an ASGI application, which starts and stops ``diptych`` with its lifespan.

    Paths are routed as they were sent, so a title may have a slash (`/books/AC%2FDC`). HEAD works wherever GET does,
    and OPTIONS names the methods of a path. All errors are problem details. Queries for a `Document` or a `Page` are
    answered by a `Front`. With a ``title``, `/openapi.json` is the OpenAPI document with this ``version`` and
    ``description``, and `/docs` a page that shows it. ``security_headers`` changes single headers of
    `SECURITY_HEADERS`, or leaves them out by None. The application's attribute `diptych` is ``diptych``. Raises
    `WiringError` with all that is wrong with the endpoints.

    >>> import asyncio
    >>> import httpx
    >>> from diptych import Diptych, Document, Query, Served
    >>> from diptych.http import Endpoint, endpoints_app
    >>> from sqlalchemy.orm import DeclarativeBase
    >>> class Base(DeclarativeBase): ...
    >>> class GetBook(Query[Document[dict]]):
    ...     title: str
    >>> class Handler:
    ...     async def get(self, query: GetBook) -> Document[dict]:
    ...         return Document(b'{"title":"%s"}' % query.title.encode(), Served("redis"), dict)
    >>> books = Diptych(models=Base, handlers=[Handler])
    >>> app = endpoints_app(books, [Endpoint("GET", "/books/{title}", GetBook)])
    >>> async def main():
    ...     async with books, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
    ...         for path in ("/books/AC%2FDC", "/books"):
    ...             answer = await client.get(path)
    ...             print(answer.status_code, answer.headers["content-type"])
    >>> asyncio.run(main())
    200 application/json
    404 application/problem+json
    """
    compiled = Endpoints(endpoints)
    pages = {} if title is None else documentation(compiled.compiled, title, version, description)
    if taken := [path for path in pages if path in compiled.templates]:
        raise WiringError(
            [f"{path} is the documentation's: give the endpoint another path" for path in taken]
        )
    secured = SecurityHeaders(HeadAsGet(EndpointsRouter(diptych, compiled, pages)), security_headers)
    hot = hot_routes(one.endpoint for one in compiled.compiled)
    front = Front(diptych, hot, secured, others=[*compiled.templates, *pages], headers=secured.of_data)
    return _Served(front, diptych)


class EndpointsRouter:
    """Answers requests for ``endpoints``, and all faults with problem details.

    ``pages`` are answers that are always the same, by their paths.
    """

    def __init__(
        self, diptych: Diptych, endpoints: Endpoints, pages: Mapping[str, Answer] | None = None
    ) -> None:
        self._diptych = diptych
        self._endpoints = endpoints
        self._pages = pages or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            raise RuntimeError(f"endpoints are asked by HTTP, not by {scope['type']}")
        try:
            answer = await self._answer(scope, receive)
        except Exception as error:
            answer = answer_problem(problem_for(error, scope["method"]), [])
        await send_answer(send, answer)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        segments = path_segments(sent_path(scope), scope.get("root_path", ""))
        if segments is None:
            raise NotFound()
        page = self._pages.get("/" + "/".join(segments)) if len(segments) == 1 else None
        found = {} if page else self._endpoints.match(segments)
        methods = ["GET"] if page else [*found]
        if not methods:
            raise NotFound()
        if scope["method"] == "OPTIONS":
            return _options(methods, found.get("PATCH"))
        if scope["method"] not in methods:
            raise MethodNotAllowed([*methods, "OPTIONS"])
        if page:
            return page.unless_known(scope)
        one = found[scope["method"]]
        parameters = {**scope.get("path_params", {}), **one.parameters_of(segments)}  # with those of a mount
        return await endpoint_call(one, self._diptych, scope, receive, parameters)


def _options(methods: Iterable[str], patch: Compiled | None) -> Answer:
    headers = [(b"allow", allow_header([*methods, "OPTIONS"]).encode("ascii"))]
    return Answer(204, headers + ([] if patch is None else accept_patch(patch)), b"")


class _Served(RequestContext):
    """The outermost wrapper. Its attribute `diptych` is for the commands of `diptych.cli` to find."""

    def __init__(self, app: ASGIApp, diptych: Diptych) -> None:
        super().__init__(app)
        self.diptych = diptych

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] == "lifespan":
            await _run(self.diptych, receive, send)
        else:
            await super().__call__(scope, receive, send)


async def _run(diptych: Diptych, receive: Receive, send: Send) -> None:
    """Starts and stops the application as the server says."""
    begun: Message = await receive()
    for message, act, done in (
        (begun, diptych.start, "lifespan.startup"),
        (None, diptych.stop, "lifespan.shutdown"),
    ):
        if message is None:
            await receive()
        try:
            await act()
        except Exception as error:
            await send({"type": f"{done}.failed", "message": str(error)})
            raise
        await send({"type": f"{done}.complete"})
