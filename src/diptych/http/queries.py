"""Queries as an application of their own, to be mounted in an application of any ASGI framework."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from diptych.app import Diptych
from diptych.context import request_scope
from diptych.errors import Fault, InvalidMessage
from diptych.http.answers import answer_problem, answer_query
from diptych.http.asgi import ASGIApp, HeadAsGet, Receive, Scope, Send
from diptych.http.errors import BadRequest, MethodNotAllowed, NotFound, problem_for
from diptych.http.front import QUERY_ERROR, Front, QueryRoute, query_routes
from diptych.http.paths import RouteTable, path_segments, sent_path
from diptych.messages.message import Query, build


def query_app(diptych: Diptych, routes: Mapping[str, type[Query[Any]]]) -> ASGIApp:
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
    table = RouteTable(query_routes(routes), takes=re.compile("-?[0-9]{1,18}").fullmatch)

    async def answer_the_rest(scope: Scope, receive: Receive, send: Send) -> None:
        """Answers the requests handed on by the front: parameters in any form, and all faults."""
        if scope["type"] != "http":
            raise RuntimeError(f"queries are asked by HTTP, not by {scope['type']}")
        token = request_scope.set(scope)
        try:
            if QUERY_ERROR in scope:
                raise scope[QUERY_ERROR]
            answer = answer_query(scope, await diptych.ask(_query_of(scope, table)))
        except Exception as error:
            answer = answer_problem(problem_for(error), [])
        finally:
            request_scope.reset(token)
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})

    return HeadAsGet(Front(diptych, routes, answer_the_rest))


def _query_of(scope: Scope, table: RouteTable[QueryRoute]) -> Query[Any]:
    """Returns the query of a request. Raises the error to answer with for any other request."""
    segments = path_segments(sent_path(scope), scope.get("root_path", ""))
    routes = () if segments is None else table.match(segments)
    if segments is None or not routes:
        raise NotFound()
    if scope["method"] != "GET":
        raise MethodNotAllowed(["GET"])
    route = routes[0]
    fields = {name: segments[at] for at, name in route.in_path}
    return build(route.query, fields | _parameters(scope["query_string"], route), text=True)


def _parameters(query_string: bytes, route: QueryRoute) -> dict[str, str]:
    """Returns the parameters of the query string. Raises `BadRequest`, and `InvalidMessage` for unknown and repeated
    ones."""
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100
        )
    except ValueError as error:
        raise BadRequest("the query string is not UTF-8, or has more than 100 fields") from error
    allowed, counts = route.in_query_string, Counter(name for name, _ in pairs)
    faults = [Fault(name[:100], "is not a known field") for name in counts if name not in allowed]
    faults += [Fault(name, "was sent more than once") for name in allowed if counts[name] > 1]
    if faults:
        raise InvalidMessage(route.query.__name__, faults[:20])
    return dict(pairs)
