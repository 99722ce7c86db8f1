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
    "workers": "bypass",
    "redis-refused": "bypass",
    "rebuilding": "stale",
    "starting": "stale",
    "other-process": "stale",
    "redis-away": "miss",
    "lost": "miss",
    "missed": "stale",
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

    - `bypass` ("configured to not handle this request"): there is no Redis (`no-redis`), it must not be used
      as it is set up (`redis-refused`), or not by several processes (`workers`);
    - `stale` ("able to select a response, but it was stale"): Redis holds documents, yet they are not known
      to be true: they are being written anew (`rebuilding`), are left from an earlier run (`starting`), or
      another process has written since (`other-process`);
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
