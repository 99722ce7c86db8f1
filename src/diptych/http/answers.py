"""Answers to queries over HTTP: status, body, and the headers that say which store answered and what caches may do.

Stored bytes are sent unchanged.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, TypeAlias

import msgspec

from diptych.http.asgi import RequestScope, Send, header_values
from diptych.http.errors import PROBLEM_JSON, NotFound, Problem, problem_for
from diptych.read.answers import Document, Page, Served

QUERY_HEADERS: Mapping[str, str] = {"Vary": "Accept", "Cache-Control": "no-cache"}
"""Headers of every answer to a query: it depends on `Accept`, and a cache has to ask for it again each time, since it
may change at any time."""

SET_ASIDE = "Diptych-Set-Aside"
"""Name of the header with the number of rows that a page leaves out."""

# RFC 8941's sf-token, which needs no quoting.
_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")

# RFC 9110, section 8.8.3. A backslash in a tag escapes nothing, unlike in a quoted string.
_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
# RFC 9110, section 5.6.1: empty elements of a list are to be ignored.
_TAGS = re.compile(rf"[ \t,]*{_TAG.pattern}(?:[ \t]*,[ \t,]*{_TAG.pattern})*[ \t,]*")

_FORWARDED = {
    "no-redis": "bypass",
    "redis-refused": "bypass",
    "no-key": "bypass",
    "starting": "stale",
    "no-lease": "stale",
    "rebuilding": "stale",
    "other-server": "stale",
    "other-database": "stale",
    "failing": "stale",
    "sql-away": "stale",
    "lost": "miss",
    "redis-away": "miss",
}

Headers: TypeAlias = list[tuple[bytes, bytes]]

_ENTRIES = 8192
_LONGEST = 1000
"""Number of bodies whose headers are remembered, and the greatest length of such a body in bytes: at most 15 MB, the
bodies included. A look-up hashes the body, so for a long body remembering saves nothing."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """An HTTP response: its status, its headers in ASGI's form (names in lower case), and its body.

    >>> from diptych.http import Answer
    >>> answer = Answer(200, [(b"content-type", b"application/json")], b"{}")
    >>> answer.text_headers()
    {'content-type': 'application/json'}
    """

    status: int
    headers: Headers
    body: bytes

    def text_headers(self) -> dict[str, str]:
        """Returns the headers as text by name, for the response classes of frameworks."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers}

    def unless_known(self, scope: RequestScope) -> Answer:
        """Returns this answer, or 304 if the client has it already, as its request ``scope`` says by the `ETag`."""
        tag = self.text_headers().get("etag")
        if tag is None or not is_unchanged(scope, tag):
            return self
        return Answer(304, [pair for pair in self.headers if not pair[0].startswith(b"content-")], b"")

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
        """Returns the answer with ``value`` as JSON."""
        return _with_body("application/json", msgspec.json.encode(value), status, headers)

    @classmethod
    def page(cls, text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
        """Returns the answer with a page of HTML."""
        return _with_body("text/html; charset=utf-8", text.encode(), status, headers)

    @classmethod
    def see_other(cls, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Returns the redirect after a form, 303, to ``path``, which is percent-encoded."""
        return cls(303, encoded({"Location": path, "Content-Length": "0", **(headers or {})}), b"")


def _with_body(kind: str, body: bytes, status: int, headers: Mapping[str, str] | None) -> Answer:
    own = {"Content-Type": kind, "Content-Length": str(len(body))}
    return Answer(status, encoded({**own, **(headers or {})}), body)


def answer_query(scope: RequestScope, found: Document[Any] | Page[Any] | None) -> Answer:
    """Returns the JSON answer to the request ``scope`` from ``found``, the result of its query.

    The status is 200; 304, without a body, if the request's `If-None-Match` names the body's `ETag`; 404 with problem
    details if ``found`` is None or a `Document` without a body. The headers of a 200 are `Content-Type`,
    `Content-Length`, `ETag`, `Cache-Status`, `Vary`, `Cache-Control` and, for a page that leaves rows out,
    `Diptych-Set-Aside`.

    >>> from diptych import Document, Served
    >>> from diptych.http import answer_query
    >>> scope = {"type": "http", "method": "GET", "headers": []}
    >>> answer = answer_query(scope, Document(b'{"id":1}', Served("redis"), dict))
    >>> answer.status, answer.body
    (200, b'{"id":1}')
    >>> answer.text_headers()["cache-status"]
    'diptych; hit'
    >>> answer_query(scope, Document(None, Served("sql", "no-redis"), dict)).status
    404
    """
    if getattr(found, "body", None) is not None:
        return answer_found(scope, found, [])
    served = getattr(found, "served", None)
    return answer_problem(problem_for(NotFound()), [] if served is None else [_cache_status(served)])


def answer_found(scope: RequestScope, found: Any, added: Headers, is_conditional: bool = True) -> Answer:
    """Returns the answer with ``found``, a `Document` or a `Page` with a body; 304 if the client has that body.

    ``added`` are further headers. ``is_conditional`` may be False for a request without `If-None-Match`.
    """
    body = found.body
    headers_of = _remembered_headers if len(body) <= _LONGEST else _headers_of
    with_body, without_body, tag = headers_of(body, found.served, getattr(found, "set_aside", 0))
    # Each answer has a list of its own, since wrappers around an application may add to it.
    if is_conditional and is_unchanged(scope, tag):
        return Answer(304, without_body + added, b"")
    return Answer(200, with_body + added, body)


def answer_problem(problem: Problem, added: Headers) -> Answer:
    """Returns the answer with ``problem`` as JSON; ``added`` are further headers."""
    body = problem.json()
    own = {**problem.headers, "Content-Type": PROBLEM_JSON, "Content-Length": str(len(body))}
    # A problem of a document that is not there has them already.
    of_queries = {**QUERY_HEADERS, **own}
    return Answer(problem.status, [*encoded(of_queries), *added], body)


async def send_answer(send: Send, answer: Answer) -> None:
    """Sends an answer; wrappers may add to its headers."""
    await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers]})
    await send({"type": "http.response.body", "body": answer.body})


def added_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Returns the ``headers`` without the names in `QUERY_HEADERS`, to be added to answers."""
    present = {name for name, _ in _OF_QUERIES}
    return [pair for pair in headers if pair[0] not in present]


def encoded(headers: Mapping[str, str]) -> Headers:
    """Returns headers in ASGI's form."""
    return [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]


_OF_QUERIES = encoded(QUERY_HEADERS)


def _headers_of(body: bytes, served: Served, set_aside: int) -> tuple[Headers, Headers, str]:
    """Returns the headers sent with a body and without (status 304), and the value of `ETag` in both."""
    tag = etag(body)
    always = [(b"etag", tag.encode()), _cache_status(served), *_OF_QUERIES]
    if set_aside:
        always.insert(0, (SET_ASIDE.lower().encode(), b"%d" % set_aside))
    of_body = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return of_body + always, always, tag


# Equal bodies from the same store have equal headers, so nothing that is remembered can be stale.
_remembered_headers = functools.lru_cache(maxsize=_ENTRIES)(_headers_of)


def _cache_status(served: Served) -> tuple[bytes, bytes]:
    return b"cache-status", cache_status(served).encode()


def answer_headers(found: Document[Any] | Page[Any]) -> dict[str, str]:
    """Returns the headers of an answer with ``found`` in a form of your own, such as an HTML page.

    They are `QUERY_HEADERS`, `Cache-Status` and, for a page that leaves out rows which do not fit their documents,
    `Diptych-Set-Aside` with their number. There is no `ETag`: it depends on the bytes that are sent.

    >>> from diptych import Document, Served
    >>> from diptych.http import answer_headers
    >>> answer_headers(Document(b"{}", Served("sql", "no-redis"), dict))["Cache-Status"]
    'diptych; fwd=bypass; detail=no-redis'
    """
    headers = {**QUERY_HEADERS, "Cache-Status": cache_status(found.served)}
    if isinstance(found, Page) and found.set_aside:
        headers[SET_ASIDE] = str(found.set_aside)
    return headers


def cache_status(served: Served) -> str:
    """Returns the value of `Cache-Status` (RFC 9211, section 2) for an answer of a read model.

    Redis stands for the cache and SQL for its origin: `diptych; hit`, or `diptych; fwd=…; detail=<reason>` with

    - `bypass` ("configured to not handle this request"): there is no Redis (`no-redis`), its set-up forbids its use
      (`redis-refused`), or no row can have the key that was asked for (`no-key`);
    - `stale` ("able to select a response, but it was stale"): Redis may hold documents, yet nothing vouches for
      them here and now: this process has not looked yet (`starting`), no keeper has renewed the lease
      (`no-lease`) or is able to (`failing`, `sql-away`), the documents are being written anew (`rebuilding`), or the
      lease names another server (`other-server`) or another database (`other-database`);
    - `miss` ("did not contain any responses that could be used"): Redis cannot be asked (`redis-away`), Redis has
      lost its data (`lost`), and any other reason.

    Raises `ValueError` for a reason that is no token: it would make the header unreadable, or end it.

    >>> from diptych import Served
    >>> from diptych.http import cache_status
    >>> cache_status(Served("redis")), cache_status(Served("sql", "no-lease"))
    ('diptych; hit', 'diptych; fwd=stale; detail=no-lease')
    """
    if served.store == "redis":
        return "diptych; hit"
    if served.reason is None:
        return "diptych; fwd=miss"
    if not _TOKEN.fullmatch(served.reason):
        raise ValueError(f"{served.reason!r} is no token")
    return f"diptych; fwd={_FORWARDED.get(served.reason, 'miss')}; detail={served.reason}"


def etag(body: bytes) -> str:
    """Returns the value of `ETag` for ``body``: a hash of the bytes, the same in every process.

    >>> from diptych.http import etag
    >>> etag(b"{}")
    '"44136fa355b3678a1146ad16"'
    """
    return f'"{sha256(body).hexdigest()[:24]}"'


def is_unchanged(scope: RequestScope, tag: str) -> bool:
    """Returns True if the client has the representation with this `ETag` already: the answer is 304 without a body.

    `If-None-Match` says so (RFC 9110, section 13.1.2): one of its tags equals ``tag``, be they weak or strong, or it
    is `*`.

    >>> from diptych.http import is_unchanged
    >>> is_unchanged({"headers": [(b"if-none-match", b'"a", "b"')]}, '"b"')
    True
    """
    known = ",".join(header_values(scope, b"if-none-match"))
    if known == "*":
        return True
    return _TAGS.fullmatch(known) is not None and tag.removeprefix("W/") in _TAG.findall(known)
