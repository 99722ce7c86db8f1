"""The representation preferred by a client, after RFC 9110, section 12.5.1."""

from __future__ import annotations

import re

from diptych.http.asgi import RequestScope, header_values, list_elements

__all__ = ["prefers_html"]

_JSON = ("application/json",)
_HTML = ("text/html", "application/xhtml+xml")
_QVALUE = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


def prefers_html(scope: RequestScope) -> bool:
    """Returns True if `Accept` likes HTML strictly better than JSON: every browser's page loads do, `*/*` does not.

    The most specific range that names a type decides its weight. Other parameters than `q` are not compared,
    and a malformed range is skipped.

    >>> from diptych.http import prefers_html
    >>> prefers_html({"headers": [(b"accept", b"text/html,*/*;q=0.8")]})
    True
    >>> prefers_html({"headers": []})
    False
    """
    weights = _weights(",".join(header_values(scope, b"accept")))
    return max(_weight(weights, kind) for kind in _HTML) > max(_weight(weights, kind) for kind in _JSON)


def _weights(accept: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for item in list_elements(accept):
        media_range, *parameters = list_elements(item.lower(), ";") or [""]
        q = next((value[2:] for value in parameters if value.startswith("q=")), "1")
        if "/" in media_range and _QVALUE.fullmatch(q):
            weights[media_range] = max(weights.get(media_range, 0.0), float(q))
    return weights


def _weight(weights: dict[str, float], kind: str) -> float:
    for media_range in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        if media_range in weights:
            return weights[media_range]
    return 0.0
