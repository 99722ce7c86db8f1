"""Queries as an application of their own, to be mounted in an application of any ASGI framework."""

from __future__ import annotations

from collections.abc import Mapping

from diptych.app import Diptych
from diptych.http.asgi import ASGIApp, HeadAsGet, RequestContext
from diptych.http.endpoints.compiled import Endpoints
from diptych.http.endpoints.endpoint import Endpoint
from diptych.http.endpoints_app import EndpointsRouter
from diptych.http.front import Front
from diptych.messages.kinds import AnyQuery


def query_app(diptych: Diptych, routes: Mapping[str, type[AnyQuery]]) -> ASGIApp:
    """Returns the read model as an ASGI application, to be mounted: `app.mount("/api", query_app(books, {…}))`.

    `routes` are those of a `Front`, below the mount. GET and HEAD are answered in JSON, with `ETag` and
    `Cache-Status`, and all faults with problem details: 404, 405, 422 for faulty parameters, 503. Raises
    `WiringError` for a route that can't be answered.

    >>> import asyncio
    >>> import httpx
    >>> from diptych import Diptych, Document, Query, Served
    >>> from diptych.http import query_app
    >>> from sqlalchemy.orm import DeclarativeBase
    >>> class Base(DeclarativeBase): ...
    >>> class GetBook(Query[Document[dict]]):
    ...     title: str
    >>> class Handler:
    ...     async def get(self, query: GetBook) -> Document[dict]:
    ...         return Document(b'{"title":"%s"}' % query.title.encode(), Served("redis"), dict)
    >>> async def main():
    ...     async with Diptych(models=Base, handlers=[Handler]) as books:
    ...         transport = httpx.ASGITransport(query_app(books, {"/books/{title}": GetBook}))
    ...         async with httpx.AsyncClient(transport=transport, base_url="http://books") as client:
    ...             for path in ("/books/Dune", "/books"):
    ...                 answer = await client.get(path)
    ...                 print(answer.status_code, answer.headers["content-type"])
    >>> asyncio.run(main())
    200 application/json
    404 application/problem+json
    """
    endpoints = Endpoints(
        Endpoint("GET", template if "?" in template else f"{template}?", query)
        for template, query in routes.items()
    )
    rest = RequestContext(EndpointsRouter(diptych, endpoints))
    return HeadAsGet(Front(diptych, routes, rest))
