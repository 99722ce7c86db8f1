"""The headers by which an answer to a query says where it comes from and how it may be kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Protocol

from diptych.http.asgi import RequestScope, header_values

__all__ = [
    "QUERY_HEADERS",
    "SET_ASIDE",
    "Found",
    "ServedBy",
    "answer_headers",
    "cache_status",
    "etag",
    "is_unchanged",
]

QUERY_HEADERS: Mapping[str, str] = {"Vary": "Accept", "Cache-Control": "no-cache"}
"""Of every answer to a query: it depends on `Accept`, and must be asked for again, since it may change any
time."""

SET_ASIDE = "Diptych-Set-Aside"
"""The header that tells how many rows a page leaves out."""

# RFC 8941's sf-token, which needs no quoting.
_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")

# RFC 9110, section 8.8.3. A backslash escapes nothing in it, unlike in a quoted string.
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


class ServedBy(Protocol):
    """What is read of `diptych.Served`: the store, and why it was not Redis."""

    @property
    def store(self) -> str:
        """Either "redis" or "sql"."""

    @property
    def reason(self) -> str | None:
        """Why it was SQL."""


class Found(Protocol):
    """What is read of a `diptych.Document` or a `diptych.Page`; the latter has `set_aside` as well."""

    @property
    def served(self) -> ServedBy:
        """The store that it is from."""


def answer_headers(found: Found) -> dict[str, str]:
    """The headers of an answer that holds this document or page, but `ETag`: whence it is, how it may be kept.

    And, of a page that leaves out rows which do not fit their documents, how many: `Diptych-Set-Aside`.
    """
    headers = {**QUERY_HEADERS, "Cache-Status": cache_status(found.served)}
    set_aside = getattr(found, "set_aside", 0)
    return {**headers, SET_ASIDE: str(set_aside)} if set_aside else headers


def cache_status(served: ServedBy) -> str:
    """The value of `Cache-Status` (RFC 9211, section 2) for an answer of a read model.

    Redis is the cache that is spoken of, SQL its origin: `diptych; hit`, or `diptych; fwd=…; detail=<reason>`
    with

    - `bypass` ("configured to not handle this request"): there is no Redis (`no-redis`), it must not be used as it
      is set up (`redis-refused`), or no row can have the key that was asked for (`no-key`);
    - `stale` ("able to select a response, but it was stale"): Redis may hold documents, yet nothing vouches for
      them here and now: this process has not looked yet (`starting`), no keeper has renewed the lease
      (`no-lease`), or can (`failing`, `sql-away`), they are being written anew (`rebuilding`), or the lease is
      of another server (`other-server`) or the word of another database (`other-database`);
    - `miss` ("did not contain any responses that could be used"): Redis cannot be asked (`redis-away`) or has
      lost what it held (`lost`), and so for any other reason.

    Raises `ValueError` for a reason that is no token: it would make the header unreadable, or end it.
    """
    if served.store == "redis":
        return "diptych; hit"
    if served.reason is None:
        return "diptych; fwd=miss"
    if not _TOKEN.fullmatch(served.reason):
        raise ValueError(f"{served.reason!r} is no token")
    return f"diptych; fwd={_FORWARDED.get(served.reason, 'miss')}; detail={served.reason}"


def etag(body: bytes) -> str:
    """The value of `ETag` for a body: a hash of its bytes, so the same whichever store and process gave them."""
    return f'"{sha256(body).hexdigest()[:24]}"'


def is_unchanged(scope: RequestScope, tag: str) -> bool:
    """Whether the client has the representation of this `ETag` already: the answer is 304, without a body.

    So by `If-None-Match` (RFC 9110, section 13.1.2): one of its tags is this one, whether weak or strong, or it is
    `*`.
    """
    known = ",".join(header_values(scope, b"if-none-match"))
    if known == "*":
        return True
    return _TAGS.fullmatch(known) is not None and tag.removeprefix("W/") in _TAG.findall(known)
