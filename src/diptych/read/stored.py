"""The stored form of a document: an 8-byte big-endian stamp, then the body.

The body is the document's JSON as it goes out, empty in a tombstone, and ``set_aside.marked`` for a row that is set
aside.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

STAMP_BYTES = 8
"""Number of bytes of a stamp."""

body_of: Callable[[Any], bytes] = operator.itemgetter(slice(STAMP_BYTES, None))
"""Returns the body of a stored document, taken out in C."""


def stamp_bytes(stamp: int) -> bytes:
    """Returns a stamp in its stored form."""
    return stamp.to_bytes(STAMP_BYTES, "big")


def bodies_of(documents: Sequence[bytes | None]) -> list[bytes]:
    """Returns the bodies of stored documents; empty for a tombstone and for None (nothing is stored)."""
    return [body_of(stored) if stored else b"" for stored in documents]
