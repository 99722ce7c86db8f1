"""The headers by which an answer to a query says where it comes from and how it may be kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

__all__ = ["QUERY_HEADERS", "ServedBy", "cache_status"]

QUERY_HEADERS: Mapping[str, str] = {"Vary": "Accept", "Cache-Control": "no-cache"}
"""Of every answer to a query: it depends on `Accept`, and must be asked for again, since it may change any
time."""

# RFC 8941's sf-token, which needs no quoting.
_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")

_FORWARDED = {
    "no-redis": "bypass",
    "redis-refused": "bypass",
    "starting": "stale",
    "no-lease": "stale",
    "rebuilding": "stale",
    "other-server": "stale",
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


def cache_status(served: ServedBy) -> str:
    """The value of `Cache-Status` (RFC 9211, section 2) for an answer of a read model.

    Redis is the cache that is spoken of, SQL its origin: `diptych; hit`, or `diptych; fwd=…; detail=<reason>`
    with

    - `bypass` ("configured to not handle this request"): there is no Redis (`no-redis`), or it must not be used
      as it is set up (`redis-refused`);
    - `stale` ("able to select a response, but it was stale"): Redis may hold documents, yet nothing vouches for
      them here and now: this process has not looked yet (`starting`), no keeper has renewed the lease
      (`no-lease`), or can (`failing`, `sql-away`), they are being written anew (`rebuilding`), or the lease is
      of another server (`other-server`);
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
