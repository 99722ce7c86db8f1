"""The Redis half of a list: a page is a range of the list's sorted set. The SQL half is ``in_sql.py``.

The members of the sorted set are list entries, all of score 0, so Redis orders them by their bytes; an entry begins
with the row's place (``ListIndex.entry``).
"""

from __future__ import annotations

from typing import NamedTuple

from diptych.read.lists.index import ListIndex
from diptych.read.lists.page import PageBody, page_body
from diptych.read.stored import body_of


def range_start(after: bytes | None) -> bytes:
    """Returns the lower end of a page's range (``ZRANGE … BYLEX``): behind the place ``after``, or the beginning."""
    # Nothing sorts between a place and the place followed by 0xff: keys are UTF-8, which has no such byte.
    return b"-" if after is None else b"(" + after + b"\xff"


class StoredPage(NamedTuple):
    """The reply of the script ``page``: the lease, the last entry if more follow (else empty), and the documents."""

    lease: bytes | None
    last: bytes
    documents: list[bytes | None]

    def body(self, index: ListIndex) -> PageBody | None:
        """Returns the page's JSON; None if an entry names a missing document."""
        bodies = [] if None in self.documents else list(map(body_of, self.documents))
        if len(bodies) < len(self.documents) or not all(bodies):
            return None
        return page_body(bodies, index.cursor(index.sort_key_of(self.last)) if self.last else None)
