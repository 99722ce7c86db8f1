"""Hot queries answered before any framework: stored bytes go out unchanged, all other requests go on untouched.

A framework routes, wraps and converts a request for longer than Redis takes to answer it. So the server calls a
`Front`: it turns a request for one of the declared routes into its query, and the query's document or page into the
answer. The framework answers whatever is in any way special (another method, a client that prefers HTML, faulty
parameters, a book that is not there).
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_type_hints

from msgspec import inspect

from diptych.app import Diptych
from diptych.context import request_scope
from diptych.errors import InvalidMessage, UnavailableError, WiringError
from diptych.http.answers import added_headers, answer_found, answer_problem
from diptych.http.asgi import ASGIApp, Receive, Scope, Send, prefers_html
from diptych.http.errors import BadRequest, problem_for
from diptych.http.invalid_request import InvalidRequest
from diptych.http.paths import (
    WHOLE_NUMBER,
    RouteTable,
    Segment,
    mount_of,
    path_segments,
    sent_path,
    template_segments,
)
from diptych.messages.kinds import AnyQuery
from diptych.messages.message import build
from diptych.messages.plans import fields_of, is_model

QUERY_ERROR = "diptych.query_error"
"""Scope key: the exception that the handler of a hot query raised, for the framework to answer. Otherwise absent."""

_PARAMETERS = re.compile(rb"([A-Za-z0-9_]+=[A-Za-z0-9._~-]+)(&[A-Za-z0-9_]+=[A-Za-z0-9._~-]+)*")
_ENTRIES = 16_384
_LONGEST = 300
"""Number of paths whose queries are remembered, and the greatest length of such a path with its query string: some
megabytes, whatever is sent."""


class Front:
    """Answers GET requests for `routes` from the read model, and hands everything else on to `app`.

    `routes` names the query of each path: `{"/books/{title}": GetBook, "/books?limit&after": ListBooks}`. Parameters
    in the path (text, or `{id:int}`) and those of the query string that are named are fields of the query, whose
    handler has to return a `Document` or a `Page`. `others` are the templates of the routes behind: a path for which
    one of them is more exact goes to `app`. `headers` (names in lower case) are added to each answer.

    Wrappers around the framework do not see these requests: not its guards, its middleware or its log. Declare no
    query that not everybody may ask. Raises `WiringError` for a route that can't be answered.

    >>> import asyncio
    >>> from diptych import Diptych, Document, Query, Served
    >>> from diptych.http import Front
    >>> from sqlalchemy.orm import DeclarativeBase
    >>> class Base(DeclarativeBase): ...
    >>> class GetBook(Query[Document[dict]]):
    ...     title: str
    >>> class Handler:
    ...     async def get(self, query: GetBook) -> Document[dict]:
    ...         return Document(b'{"title":"%s"}' % query.title.encode(), Served("redis"), dict)
    >>> async def framework(scope, receive, send):
    ...     print("the framework answers", scope["path"])
    >>> async def send(message):
    ...     print(message.get("status") or message["body"])
    >>> async def main():
    ...     async with Diptych(models=Base, handlers=[Handler]) as books:
    ...         app = Front(books, {"/books/{title}": GetBook}, framework)
    ...         for path in ("/books/Dune", "/books"):
    ...             scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    ...             await app(scope, None, send)
    >>> asyncio.run(main())
    200
    b'{"title":"Dune"}'
    the framework answers /books
    """

    def __init__(
        self,
        diptych: Diptych,
        routes: Mapping[str, type[AnyQuery]],
        app: ASGIApp,
        *,
        others: Iterable[str] = (),
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        self.diptych = diptych
        self._app = app
        hot: list[tuple[str, QueryRoute | None]] = [*query_routes(routes)]
        try:
            self._routes = RouteTable([*hot, *((template, None) for template in others)])
        except ValueError as error:
            raise WiringError([str(error)]) from error
        # Equal paths have equal queries, which are frozen: a path that is asked again and again is read once.
        self._remembered_query = functools.lru_cache(maxsize=_ENTRIES)(self._query_for)
        self._headers = added_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        query, is_conditional = None, False
        # A mount with parameters sets fields that no query string may set: the framework knows of them.
        if scope["type"] == "http" and scope["method"] == "GET" and not scope.get("path_params"):
            accepted, is_conditional = _accepted(scope["headers"])
            if not accepted or not _prefers_html(accepted):
                query = self._query_of(scope)
        if query is None:
            await self._app(scope, receive, send)
            return
        answer = None
        token = request_scope.set(scope)
        try:
            found = await self.diptych.ask(query)
        except Exception as error:
            # An unavailable store is said here, and any other error by the framework.
            told = InvalidRequest.of_parameters(error) if isinstance(error, InvalidMessage) else error
            scope = {**scope, QUERY_ERROR: told}
            if isinstance(error, UnavailableError):
                answer = answer_problem(problem_for(error), self._headers)
        else:
            # Without a body the framework answers: it knows what to say of a document that is not there.
            if getattr(found, "body", None) is not None:
                answer = answer_found(scope, found, self._headers, is_conditional)
        finally:
            request_scope.reset(token)
        if answer is None:
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _query_of(self, scope: Scope) -> AnyQuery | None:
        """Returns the query of a request; None for a request to hand on."""
        sent, parameters, mount = scope.get("raw_path"), scope["query_string"], scope.get("root_path", "")
        if mount:
            mount = mount_of(scope)
        if sent is None:
            sent = sent_path(scope)
        if len(sent) + len(parameters) > _LONGEST:
            return self._query_for(sent, parameters, mount)
        return self._remembered_query(sent, parameters, mount)

    def _query_for(self, sent: bytes, parameters: bytes, mount: str) -> AnyQuery | None:
        try:
            segments = path_segments(sent, mount)
            if segments is None:
                return None
            for route in self._routes.match(segments):
                if route is not None:
                    return _query(route, segments, parameters)
        except (BadRequest, InvalidMessage):
            pass
        return None


def _accepted(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, bool]:
    """Returns the values of `Accept`, and True if there is an `If-None-Match`."""
    accepted, is_conditional = b"", False
    for name, value in headers:
        if name == b"accept":
            accepted = accepted + b"," + value if accepted else value
        elif name == b"if-none-match":
            is_conditional = True
    return accepted, is_conditional


@functools.lru_cache(maxsize=256)
def _prefers_html(accept: bytes) -> bool:
    """Clients send the same few values, so each is parsed once. A very long value would fill the memory."""
    return len(accept) > 1000 or prefers_html({"headers": [(b"accept", accept)]})


def _query(route: QueryRoute, segments: Sequence[str], query_string: bytes) -> AnyQuery | None:
    """Returns the query of a route; None for parameters in an unusual form, for the framework to read."""
    for at in route.numbers:
        if not WHOLE_NUMBER(segments[at]):
            return None
    fields = {name: segments[at] for at, name in route.in_path}
    if query_string:
        if not _PARAMETERS.fullmatch(query_string):
            return None
        for pair in query_string.decode().split("&"):
            name, _, value = pair.partition("=")
            if name in fields or name not in route.in_query_string:
                return None
            fields[name] = value
    elif route.is_text:
        return route.query(**fields)
    return build(route.query, fields, text=True)


class QueryRoute(NamedTuple):
    """A compiled route: its query, and the fields set by path and query string.

    ``in_path`` has position and field of the path's parameters, ``numbers`` the positions of whole numbers among
    them. ``is_text`` is True if the path's parameters are all that the query needs, and need no conversion.
    """

    query: type[AnyQuery]
    in_path: tuple[tuple[int, str], ...]
    numbers: tuple[int, ...]
    in_query_string: frozenset[str]
    is_text: bool


def query_routes(routes: Mapping[str, type[AnyQuery]]) -> list[tuple[str, QueryRoute]]:
    """Returns the path template and the compiled route of each of ``routes``.

    A key is a path template, such as `/books/{title}`, with the names of the query string's parameters after a `?`:
    `/books?limit&after`. Raises `WiringError` for parameters that are no fields of the query, or of another type
    than text and `int`.
    """
    return [(template.partition("?")[0], _compiled(template, query)) for template, query in routes.items()]


def _compiled(template: str, query: type[AnyQuery]) -> QueryRoute:
    path, _, parameters = template.partition("?")
    try:
        segments = template_segments(path)
    except ValueError as error:
        raise WiringError([str(error)]) from error
    in_path = tuple((at, segment.name) for at, segment in enumerate(segments) if segment.name)
    in_query_string = tuple(filter(None, parameters.split("&")))
    named = [*(name for _, name in in_path), *in_query_string]
    if problems := faults_of_parameters(template, segments, query, named):
        raise WiringError(problems)
    numbers = tuple(at for at, segment in enumerate(segments) if segment.kind == "typed")
    hints, in_texts = get_type_hints(query), {name for _, name in in_path}
    is_text = not is_model(query) and all(
        hints[f.name] is str if f.name in in_texts else not f.required for f in fields_of(query)
    )
    return QueryRoute(query, in_path, numbers, frozenset(in_query_string), is_text)


_OF_SEVERAL = (
    *(inspect.ListType, inspect.VarTupleType, inspect.TupleType, inspect.NamedTupleType, inspect.SetType),
    *(inspect.FrozenSetType, inspect.DictType, inspect.StructType),
)


def _is_of_several(hint: Any) -> bool:
    """Returns whether no text can be a value of this type."""
    kind = inspect.type_info(hint)
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    return all(isinstance(one, (*_OF_SEVERAL, inspect.NoneType)) for one in kinds)


def faults_of_parameters(
    where: object, segments: Iterable[Segment], message: type[Any], named: Sequence[str]
) -> list[str]:
    """Returns what is wrong with parameters in a path and a query string, ``named``, as fields of the ``message``."""
    fields = {field.name: field.plan.type for field in fields_of(message)}
    problems = [
        f"{where}: {message.__name__} has no field {name!r}: its fields are {', '.join(sorted(fields))}"
        for name in named
        if name not in fields
    ]
    problems += [f"{where}: {name!r} is named more than once" for name, n in Counter(named).items() if n > 1]
    problems += [
        f"{where}: {name!r} is of several values, and a parameter is one text: give {message.__name__} a field for "
        "each value (/orders/{order_id:int}/lines/{number:int} for a key of two columns)"
        for name in named
        if name in fields and _is_of_several(fields[name])
    ]
    if any(kind in ("rest", "mount") or (kind == "typed" and text != "int") for kind, text, _ in segments):
        problems.append(f"{where}: only parameters of text and of the type int are answered")
    return problems
