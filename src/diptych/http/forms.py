"""What browsers' forms need: strict decoding, methods that HTML has not, and protection from other sites."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from diptych.errors import Fault, InvalidMessage
from diptych.http.asgi import RequestScope, header_values
from diptych.http.errors import BadRequest, CrossSite
from diptych.http.fields import Fields

__all__ = ["METHOD_FIELD", "check_same_site", "method_override", "parse_form"]

METHOD_FIELD = "_method"
"""The form field that names the method which is meant."""

_MALFORMED = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_form(body: bytes, max_fields: int = 200) -> dict[str, str | None]:
    """The fields of an `application/x-www-form-urlencoded` body; one without a value is None.

    Empty parts (`a=1&&b=2`) are no fields, but they count. Raises `BadRequest` for what is not UTF-8, a "%"
    without two hex digits and more than `max_fields` parts, and `InvalidMessage` with a fault for every field
    that was sent more than once (which of them was meant?).
    """
    values, repeated = parse_repeated(body, max_fields)
    if repeated:
        raise InvalidMessage("form", repeated)
    return values


def parse_repeated(body: bytes, max_fields: int = 200) -> tuple[dict[str, str | None], tuple[Fault, ...]]:
    """The same for whoever answers fields sent more than once: their first values, and the faults."""
    if body.count(b"&") >= max_fields:
        raise BadRequest(f"the form has more than {max_fields} fields")
    parts = (part.partition(b"=") for part in body.split(b"&") if part)
    pairs = [(_decode(name), _decode(value)) for name, _, value in parts]
    counted = Counter(name for name, _ in pairs)
    repeated = (Fault(name, "was sent more than once") for name, count in counted.items() if count > 1)
    values: dict[str, str | None] = {}
    for name, value in pairs:
        values.setdefault(name, value or None)
    return values, tuple(repeated)


def _decode(part: bytes) -> str:
    if _MALFORMED.search(part):
        raise BadRequest('the form has a "%" that is not followed by two hexadecimal digits')
    try:
        return unquote_to_bytes(part.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest("the form is not UTF-8") from error


def method_override(
    fields: Fields, allowed: Collection[str] = ("PATCH", "DELETE")
) -> tuple[str | None, Fields]:
    """The method a form means by its `_method` field (None without one), and the fields without it.

    Only a form can override: in JSON `_method` is a field like any other, and so unknown to the command.
    Raises `InvalidMessage` for a method that is not in `allowed`.
    """
    if not fields.is_form or METHOD_FIELD not in fields.values:
        return None, fields
    values: dict[str, Any] = dict(fields.values)
    method = str(values.pop(METHOD_FIELD) or "").upper()
    if method not in allowed:
        raise InvalidMessage("form", [Fault(METHOD_FIELD, f"must be {' or '.join(allowed)}")])
    return method, fields._replace(values=values)


def check_same_site(scope: RequestScope) -> None:
    """Raises `CrossSite` if a browser sent this unsafe request on behalf of another site's page.

    `Sec-Fetch-Site` decides where the browser sends it (over TLS and to localhost); `same-site` is refused
    too, as a neighbouring subdomain is not us. Else a page's `Origin` must name the `Host` that was asked;
    the scheme is not compared, because a proxy that ends TLS hides it. A client with neither header is no
    browser and is served.
    """
    if scope["method"] in _SAFE_METHODS:
        return
    if fetch_site := header_values(scope, b"sec-fetch-site"):
        same = all(value.lower() in ("same-origin", "none") for value in fetch_site)
    elif origin := header_values(scope, b"origin"):
        host = header_values(scope, b"host")
        same = len(origin) == len(host) == 1 and _is_origin_of(origin[0], host[0])
    else:
        same = True
    if not same:
        raise CrossSite


def _is_origin_of(origin: str, host: str) -> bool:
    try:
        page, asked = urlsplit(origin), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS[page.scheme.lower()]
        ports_agree = (page.port or default) == (asked.port or default)
    except (ValueError, KeyError):  # "null", and what is no origin at all
        return False
    return bool(page.hostname) and page.hostname == asked.hostname and ports_agree
