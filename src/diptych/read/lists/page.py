"""Pages of lists: what a page asks for, and its body, joined from the JSON of its documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from diptych.errors import Fault, InvalidMessage
from diptych.read.set_aside import MARK

if TYPE_CHECKING:
    from diptych.read.lists.selection import Selection

MAX_LIMIT = 500
"""Number of documents of a page at most."""

MAX_OFFSET = 10_000
"""Number of rows before a numbered page at most."""


class PageRequest(NamedTuple):
    """A page: at most ``limit`` rows of a selection.

    They follow a ``place`` with these ``values``, or come before it if the page ``is_backward``; without a place they
    are the first ones, behind ``offset`` rows. ``counts`` asks for the number of all selected rows.
    """

    selection: Selection
    limit: int
    place: bytes | None = None
    values: tuple[Any, ...] | None = None
    is_backward: bool = False
    offset: int = 0
    counts: bool = False


def page_request(
    selection: Selection, limit: Any, *, after: Any, before: Any, offset: Any, count: bool
) -> PageRequest:
    """Returns the page asked for. Raises ``InvalidMessage`` with every fault of the arguments."""
    faults = [*_faults(limit, offset)]
    if after is not None and before is not None:
        faults.append(Fault("before", "can't be given together with after"))
    elif offset and (after is not None or before is not None):
        faults.append(Fault("offset", "can't be given together with after or before"))
    elif offset and any(len(values) > 1 for values in selection.values):
        faults.append(Fault("offset", "can't be given together with several values of a column"))
    if faults:
        raise InvalidMessage("page", faults)
    cursor, name = (after, "after") if before is None else (before, "before")
    place, values = None, None
    if cursor is not None:
        place, values = selection.index.place(cursor, name, at=len(selection.values))
    return PageRequest(selection, limit, place, values, before is not None, offset, bool(count))


def _faults(limit: Any, offset: Any) -> list[Fault]:
    faults = []
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        faults.append(Fault("limit", f"must be a whole number from 1 to {MAX_LIMIT}"))
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset <= MAX_OFFSET:
        faults.append(Fault("offset", f"must be a whole number from 0 to {MAX_OFFSET}"))
    return faults


class PageBody(NamedTuple):
    """The JSON of a page, and the number of set-aside rows with places in the page."""

    body: bytes
    set_aside: int


def page_body(
    request: PageRequest,
    bodies: Sequence[bytes],
    ends: tuple[bytes, bytes] | None,
    *,
    has_more: bool,
    has_other: bool,
    total: int | None,
) -> PageBody:
    """Joins the JSON of documents to a page, without set-aside rows.

    ``ends`` are the places of the first and the last row, None without rows. More rows follow in the direction of the
    page if ``has_more``, in the other one if ``has_other``.
    """
    items, set_aside = b",".join(bodies), 0
    if MARK in items:
        shown = [body for body in bodies if not body.startswith(MARK)]
        items, set_aside = b",".join(shown), len(bodies) - len(shown)
    has_next, has_previous = (has_other, has_more) if request.is_backward else (has_more, has_other)
    # An empty page has nothing but the place that was asked for.
    first, last = ends or (request.place, request.place)
    end = b'],"next":' + (_cursor(request, last) if has_next else b"null")
    if has_previous and first is not None:
        end += b',"previous":' + _cursor(request, first)
    if total is not None:
        end += b',"total":%d' % total
    return PageBody(b"".join((b'{"items":[', items, end, b"}")), set_aside)  # the items are copied once


def _cursor(request: PageRequest, place: bytes | None) -> bytes:
    # It needs no escaping.
    return b"null" if place is None else b'"%s"' % request.selection.index.cursor(place).encode()
