"""The Redis half of a list: a page is a range of the list's sorted set, or several ranges merged.

The members of the sorted set are list entries, all of score 0, so Redis orders them by their bytes; an entry begins
with the row's place (``ListIndex.entry``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from diptych.read.lists.ordering import successor
from diptych.read.lists.page import PageBody, PageRequest, page_body
from diptych.read.stored import body_of


class Bounds(NamedTuple):
    """The ranges (``ZRANGE … BYLEX``) of the entries with a prefix of this length.

    From ``start`` to ``end`` is what is read, the other range is on the other side of the page cursor; empty texts
    without a cursor.
    """

    length: int
    start: bytes
    end: bytes
    other_start: bytes = b""
    other_end: bytes = b""


_ALL = (Bounds(0, b"-", b"+"),)
"""The range of a list's first page, which most ask for."""


def bounds_of(request: PageRequest) -> Sequence[Bounds]:
    """Returns the ranges of each prefix that a page selects."""
    selection = request.selection
    if request.place is None and not selection.values and selection.given is None:
        return _ALL
    return [_bounds(request, prefix) for prefix in selection.prefixes()]


def _bounds(request: PageRequest, prefix: bytes) -> Bounds:
    start, end = request.selection.range()
    low = prefix + start
    high = successor(prefix) if end is None else prefix + end
    first = b"[" + low if low else b"-"
    last = b"+" if high is None else b"(" + high
    if request.place is None:
        return Bounds(len(prefix), first, last)
    place = prefix + request.place
    if request.is_backward:
        # Entries with a place begin with it: none is before it.
        edge = place if high is None else min(place, high)
        return Bounds(len(prefix), first, b"(" + max(edge, low), b"[" + max(place, low), last)
    # Nothing sorts between a place and the place followed by 0xff: keys are UTF-8, which has no such byte.
    behind = place + b"\xff"
    if behind <= low:
        return Bounds(len(prefix), first, last)
    edge = behind if high is None else min(behind, high)
    return Bounds(len(prefix), b"(" + edge, last, first, b"(" + edge)


class StoredPage(NamedTuple):
    """The reply of the script ``page``.

    ``first`` and ``last`` are entries of the page behind their prefixes, empty on an empty page; more entries follow
    in the direction of the page if ``has_more``, and in the other one if ``has_other``. ``total`` is -1 if not asked.
    """

    lease: bytes | None
    first: bytes
    last: bytes
    has_more: int
    has_other: int
    total: int
    documents: list[bytes | None]

    def body(self, request: PageRequest) -> PageBody | None:
        """Returns the page's JSON; None if an entry names a missing document."""
        try:
            bodies = list(map(body_of, self.documents))
        except TypeError:  # there is None among them
            return None
        if not all(bodies):
            return None
        index = request.selection.index
        ends = (index.sort_key_of(self.first), index.sort_key_of(self.last)) if bodies else None
        return page_body(
            request,
            bodies,
            ends,
            has_more=bool(self.has_more),
            has_other=bool(self.has_other) or (request.offset > 0 and bool(bodies)),
            total=self.total if request.counts else None,
        )
