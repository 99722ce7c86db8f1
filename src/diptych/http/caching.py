"""The headers of answers to queries: the store of an answer, and the rules for caches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from diptych.http.asgi import RequestScope, header_values
from diptych.read.answers import Document, Page, Served

__all__ = ["QUERY_HEADERS", "SET_ASIDE", "answer_headers", "cache_status", "etag", "is_unchanged"]

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
