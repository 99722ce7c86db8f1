"""The parameters of a request: texts in its path and its query string."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from diptych.errors import Fault, PlacedFault
from diptych.http.errors import BadRequest
from diptych.http.paths import decode_percent
from diptych.messages.validation import unknown_field

_MOST = 100


def read_query_string(
    query_string: bytes, known: Collection[str]
) -> tuple[dict[str, str], dict[str, str], list[Fault]]:
    """Returns all parameters, those that are ``known``, and the faults of unknown and repeated ones.

    An empty parameter counts as absent; of a repeated one the first value is returned. Raises `BadRequest` for what
    is not UTF-8, for a "%" without two hex digits, and for more than 100 parts.
    """
    if not query_string:
        return {}, {}, []
    if query_string.count(b"&") >= _MOST:
        raise BadRequest(f"the query string has more than {_MOST} fields")
    parts = (part.replace(b"+", b" ").partition(b"=") for part in query_string.split(b"&"))
    pairs = [
        (decode_percent(name, "query string"), decode_percent(value, "query string"))
        for name, _, value in parts
        if value
    ]
    sent = dict(reversed(pairs))
    counted = Counter(name for name, _ in pairs)
    faults = [unknown_field(name) for name in counted if name not in known]
    faults += [
        PlacedFault([n], "was sent more than once")
        for n, count in counted.items()
        if count > 1 and n in known
    ]
    return sent, {name: value for name, value in sent.items() if name in known}, faults
