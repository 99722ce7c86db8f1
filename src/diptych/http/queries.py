"""Queries as an application of their own, to be mounted in one of any ASGI framework."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from diptych.app import Diptych
from diptych.context import request_scope
from diptych.errors import Fault, InvalidMessage
from diptych.http.answers import Answers
from diptych.http.asgi import ASGIApp, Receive, Scope, Send
from diptych.http.errors import BadRequest, MethodNotAllowed, NotFound
from diptych.http.front import QUERY_ERROR, Front, ranks
from diptych.http.paths import Segment, path_below, sent_path, split_path, template_segments
from diptych.http.problems import problem_for
from diptych.http.wrappers import HeadAsGet
from diptych.messages.message import Query, build

__all__ = ["query_app"]


def query_app(diptych: Diptych, routes: Mapping[str, type[Query[Any]]]) -> ASGIApp:
    """The read model as an ASGI application: `app.mount("/api", query_app(books, {"/books/{title}": GetBook}))`.

    `routes` are those of a `Front`, below the mount. GET and HEAD are answered in JSON, with `ETag` and
    `Cache-Status`; everything that is wrong as problem details: 404, 405, 422 for faulty parameters, 503. Raises
    `WiringError` for a route that can't be answered.
    """
    return HeadAsGet(Front(diptych, routes, _Queries(diptych, routes)))


class _Queries:
    """Answers what a `Front` hands on: paths in any form, parameters of any kind, and all that is wrong."""

    def __init__(self, diptych: Diptych, routes: Mapping[str, type[Query[Any]]]) -> None:
        self._diptych = diptych
        self._answers = Answers()
        parts = {template: template.partition("?") for template in routes}
        # The most exact one first, as `Front` chooses.
        self._routes = [
            (list(template_segments(path)), set(filter(None, parameters.split("&"))), routes[template])
            for template, (path, _, parameters) in sorted(parts.items(), key=lambda item: ranks(item[1][0]))
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"queries are asked by HTTP, not by {scope['type']}")
        token = request_scope.set(scope)
        try:
            if QUERY_ERROR in scope:
                raise scope[QUERY_ERROR]
            found = await self._diptych.ask(self._query_of(scope))
            body = getattr(found, "body", None)
            if body is None:
                raise NotFound()
        except Exception as error:
            answer = self._answers.problem(problem_for(error))
        else:
            answer = self._answers.found(body, found.served, scope, set_aside=getattr(found, "set_aside", 0))
        finally:
            request_scope.reset(token)
        for message in answer:
            await send(message)

    def _query_of(self, scope: Scope) -> Query[Any]:
        """Raises what is to be answered if it is none."""
        path = path_below(scope.get("root_path", ""), sent_path(scope))
        segments = split_path(path) if path is not None else []
        for template, parameters, query in self._routes:
            fields = _fields(template, segments)
            if fields is not None:
                if scope["method"] != "GET":
                    raise MethodNotAllowed(["GET"])
                found = _parameters(scope["query_string"], parameters, query)
                return build(query, fields | found, text=True)
        raise NotFound()


def _fields(template: Sequence[Segment], segments: Sequence[str]) -> dict[str, str] | None:
    """The parameters in a path of this template; None if it is not one."""
    fields: dict[str, str] = {}
    if len(template) != len(segments):
        return None
    for segment, text in zip(template, segments, strict=True):
        if segment.kind == "fixed" and segment.text != text:
            return None
        if segment.kind == "typed" and not re.fullmatch("-?[0-9]{1,18}", text):
            return None
        if segment.name:
            fields[segment.name] = text
    return fields if all(segments) else None


def _parameters(query_string: bytes, allowed: set[str], query: type) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100
        )
    except ValueError as error:
        raise BadRequest("the query string is not UTF-8, or has more than 100 fields") from error
    counts = Counter(name for name, _ in pairs)
    faults = [Fault(name[:100], "is not a known field") for name in counts if name not in allowed]
    faults += [Fault(name, "was sent more than once") for name in allowed if counts[name] > 1]
    if faults:
        raise InvalidMessage(query.__name__, faults[:20])
    return dict(pairs)
