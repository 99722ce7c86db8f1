"""The body of a page, joined from the JSON of its documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from diptych.errors import Fault, InvalidMessage
from diptych.read.set_aside import MARK

MAX_LIMIT = 500
"""Number of documents of a page at most."""


def check_limit(limit: Any) -> None:
    """Raises ``InvalidMessage`` unless the limit of a page is 1 to 500."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidMessage("page", [Fault("limit", f"must be a whole number from 1 to {MAX_LIMIT}")])


class PageBody(NamedTuple):
    """The JSON of a page, and the number of set-aside rows with places in the page."""

    body: bytes
    set_aside: int


def page_body(bodies: Sequence[bytes], cursor: str | None) -> PageBody:
    """Joins the JSON of documents to a page, without set-aside rows. ``cursor`` needs no escaping."""
    items, set_aside = b",".join(bodies), 0
    if MARK in items:
        shown = [body for body in bodies if not body.startswith(MARK)]
        items, set_aside = b",".join(shown), len(bodies) - len(shown)
    end = b'"%s"}' % cursor.encode() if cursor is not None else b"null}"
    return PageBody(b'{"items":[' + items + b'],"next":' + end, set_aside)
