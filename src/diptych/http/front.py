"""Hot queries answered before any framework: stored bytes go out as they are, everything else goes on untouched.

A framework routes, wraps and converts a request for longer than Redis takes to answer it. So what is served is a
`Front`: a request for one of the declared routes, in the canonical form that nearly all have, becomes its query
here, and the query's document or page becomes the answer. Whatever is in any way special (another form of the path,
another method, a client that prefers HTML, faulty parameters, a book that is not there) the framework answers.
"""

from __future__ import annotations

import functools
import re
from binascii import a2b_qp
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_type_hints

import msgspec

from diptych.app import Diptych
from diptych.context import request_scope
from diptych.errors import InvalidMessage, UnavailableError, WiringError
from diptych.http.answers import Answers, Headers
from diptych.http.asgi import ASGIApp, Message, Receive, Scope, Send
from diptych.http.negotiation import prefers_html
from diptych.http.paths import Segment, encode_segment, path_below, sent_path, template_segments
from diptych.http.problems import problem_for
from diptych.messages.message import Query, build

__all__ = ["QUERY_ERROR", "Front"]

QUERY_ERROR = "diptych.query_error"
"""Scope key: what the handler of a hot query raised, for the framework to answer. Otherwise absent."""

# RFC 3986's unreserved characters, and all other octets (but NUL) encoded, as `encode_segment` does.
_ENCODED = rb"%(?:0[1-9A-F]|1[0-9A-F]|2[0-9A-CF]|3[A-F]|40|5[B-E]|60|7[BCDF]|[89A-F][0-9A-F])"
_SEGMENT = rb"((?:[A-Za-z0-9._~-]|" + _ENCODED + rb")+)"
_NUMBER = rb"(0|-?[1-9][0-9]{0,17})"
_KEPT = 16_384
_LONGEST_KEPT = 300
"""How many queries are kept, and how long a path may be: some megabytes, whatever is sent."""

_RANKS = ("fixed", "text", "typed", "rest", "mount")
_PARAMETERS = re.compile(rb"([A-Za-z0-9_]+=[A-Za-z0-9._~-]+)(&[A-Za-z0-9_]+=[A-Za-z0-9._~-]+)*")


class _Route(NamedTuple):
    """A template compiled: its paths but those of other routes, the names of its parameters, and what it asks."""

    paths: re.Pattern[bytes]
    others: tuple[re.Pattern[bytes], ...]
    names: tuple[str, ...]
    parameters: frozenset[str]
    query: type[Query[Any]]
    is_text: bool
    """Whether what is in the path is all that is needed, and needs no conversion."""


class Front:
    """Answers GET requests for `routes` from the read model, and hands everything else on to `app`.

    `routes` names the query of each path: `{"/books/{title}": GetBook, "/books?limit&after": ListBooks}`. Parameters
    in the path (text, or `{id:int}`) and those of the query string that are named are fields of the query, whose
    handler has to return a `Document` or a `Page`. `others` are the templates of the routes behind: a path that one
    of them names more exactly is theirs. `headers` are added to each answer.

    What is wrapped around the framework does not see these requests: not its guards, its middleware or its log.
    Declare no query that not everybody may ask. Raises `WiringError` for a route that can't be answered.
    """

    def __init__(
        self,
        diptych: Diptych,
        routes: Mapping[str, type[Query[Any]]],
        app: ASGIApp,
        *,
        others: Iterable[str] = (),
        headers: Headers = (),
    ) -> None:
        self.diptych = diptych
        self._app = app
        others = [*others, *(template.partition("?")[0] for template in routes)]
        self._routes = [_compiled(template, query, others) for template, query in routes.items()]
        # Queries are frozen, and the same for the same path: what is asked again and again is read once.
        self._kept = functools.lru_cache(maxsize=_KEPT)(self._query_for)
        self._answers = Answers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        query, is_conditional = None, False
        if scope["type"] == "http" and scope["method"] == "GET":
            accepted, is_conditional = _asked_for(scope["headers"])
            if not accepted or not _prefers_html(accepted):
                query = self._query_of(scope)
        if query is None:
            await self._app(scope, receive, send)
            return
        token = request_scope.set(scope)
        try:
            found = await self.diptych.ask(query)
        except Exception as error:
            answer, scope = self._failure(error), {**scope, QUERY_ERROR: error}
        else:
            body = getattr(found, "body", None)
            # Without one there is nothing to send: the framework knows what to say then.
            answer = None if body is None else self._answered(found, body, scope, is_conditional)
        finally:
            request_scope.reset(token)
        if answer is None:
            await self._app(scope, receive, send)
            return
        await send(answer[0])
        await send(answer[1])

    def _answered(
        self, found: Any, body: bytes, scope: Scope, is_conditional: bool
    ) -> tuple[Message, Message]:
        set_aside = getattr(found, "set_aside", 0)
        return self._answers.found(body, found.served, scope, is_conditional, set_aside)

    def _query_of(self, scope: Scope) -> Query[Any] | None:
        """What the path and the query string ask; None if they are for the framework."""
        sent, parameters, mount = scope.get("raw_path"), scope["query_string"], scope.get("root_path", "")
        if sent is None:
            sent = sent_path(scope)
        if len(sent) + len(parameters) > _LONGEST_KEPT:
            return self._query_for(sent, parameters, mount)
        return self._kept(sent, parameters, mount)

    def _query_for(self, sent: bytes, parameters: bytes, mount: str) -> Query[Any] | None:
        path = path_below(mount, sent)
        if path is None:
            return None
        for route in self._routes:
            found = route.paths.fullmatch(path)
            if found is not None and not (
                route.others and any(other.fullmatch(path) for other in route.others)
            ):
                break
        else:
            return None
        try:
            return _query(route, found.groups(), parameters)
        except (InvalidMessage, UnicodeDecodeError, _NotCanonical):
            return None

    def _failure(self, error: Exception) -> tuple[Message, Message] | None:
        """None for an error that the framework, or the application, knows what to say of."""
        return self._answers.problem(problem_for(error)) if isinstance(error, UnavailableError) else None


class _NotCanonical(Exception):
    """The path, or the query string, has another form than the one that is answered here."""


def _asked_for(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, bool]:
    """What the client accepts, and whether it says what it has already."""
    accepted, is_conditional = b"", False
    for name, value in headers:
        if name == b"accept":
            accepted = accepted + b"," + value if accepted else value
        elif name == b"if-none-match":
            is_conditional = True
    return accepted, is_conditional


@functools.lru_cache(maxsize=256)
def _prefers_html(accept: bytes) -> bool:
    """Clients send the same few values; each is parsed once. What is very long would fill the memory."""
    return len(accept) > 1000 or prefers_html({"headers": [(b"accept", accept)]})


def _query(route: _Route, groups: Sequence[bytes], query_string: bytes) -> Query[Any]:
    """Raises what `_query_of` takes for a request to be handed on."""
    fields = {name: _decoded(group) for name, group in zip(route.names, groups, strict=True)}
    if query_string:
        if not _PARAMETERS.fullmatch(query_string):
            raise _NotCanonical
        for pair in query_string.decode().split("&"):
            name, _, value = pair.partition("=")
            if name in fields or name not in route.parameters:
                raise _NotCanonical
            fields[name] = value
    elif route.is_text:
        return route.query(**fields)
    return build(route.query, fields, text=True)


def _decoded(segment: bytes) -> str:
    """The text of a canonical segment. Raises ``UnicodeDecodeError``."""
    if b"%" not in segment:
        return segment.decode()
    # In it, "=" is encoded: so it is quoted-printable but for the sign, which is decoded at the speed of C.
    return a2b_qp(segment.replace(b"%", b"=")).decode()


def _compiled(template: str, query: type[Query[Any]], others: Iterable[str]) -> _Route:
    path, _, parameters = template.partition("?")
    try:
        names = [segment.name for segment in template_segments(path) if segment.name]
        taken = tuple(_taken_by(other) for other in others if _goes_before(other, path))
    except ValueError as error:
        raise WiringError([str(error)]) from error
    asked = [*names, *filter(None, parameters.split("&"))]
    fields = {field.name: field for field in msgspec.structs.fields(query)}
    problems = [
        f"{template}: {query.__name__} has no field {name!r}: its fields are {', '.join(sorted(fields))}"
        for name in asked
        if name not in fields
    ]
    problems += [
        f"{template}: {name!r} is named more than once" for name in {n for n in asked if asked.count(n) > 1}
    ]
    if problems:
        raise WiringError(problems)
    hints = get_type_hints(query)
    is_text = all(hints[n] is str if n in names else not field.required for n, field in fields.items())
    return _Route(_paths_of(path), taken, tuple(names), frozenset(asked) - set(names), query, is_text)


def _paths_of(template: str) -> re.Pattern[bytes]:
    """The canonical paths of a template that is answered here."""

    def pattern(segment: Segment) -> bytes:
        match segment:
            case Segment("fixed", text):
                return re.escape(encode_segment(text).encode())
            case Segment("text"):
                return _SEGMENT
            case Segment("typed", "int"):
                return _NUMBER
        raise WiringError([f"{template}: a front answers parameters of text and of the type int only"])

    return re.compile(b"/" + b"/".join(map(pattern, template_segments(template))))


def ranks(template: str) -> list[int]:
    """By this order a router chooses between templates that take the same path: the first one is the most exact."""
    return [_RANKS.index(segment.kind) for segment in template_segments(template)]


def _goes_before(other: str, template: str) -> bool:
    """Whether a router would choose ``other`` for some of the template's paths."""
    theirs, ours = list(template_segments(other)), list(template_segments(template))
    pairs = list(zip(theirs, ours, strict=False))
    is_apart = any(a.kind == b.kind == "fixed" and a.text != b.text for a, b in pairs)
    is_open = bool(theirs) and theirs[-1].kind in ("rest", "mount")
    meet = not is_apart and (len(theirs) == len(ours) or is_open)
    return meet and ranks(other) < ranks(template)


def _taken_by(template: str) -> re.Pattern[bytes]:
    """The paths that another route of the framework may take."""
    pattern = b""
    for kind, text, _ in template_segments(template):
        part = {"fixed": b"/" + re.escape(encode_segment(text).encode()), "rest": b"/.+", "mount": b"(/.*)?"}
        pattern += part.get(kind, b"/[^/]+")
    return re.compile(pattern or b"/")
