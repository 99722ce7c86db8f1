"""Browsers' forms: strict decoding, methods unknown to HTML, and protection from other sites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from diptych.errors import Fault, InvalidMessage
from diptych.http.asgi import RequestScope, header_values
from diptych.http.errors import BadRequest, CrossSite
from diptych.http.paths import decode_percent

__all__ = ["METHOD_FIELD", "Fields", "check_same_site", "method_override", "parse_form"]

METHOD_FIELD = "_method"
"""The form field that names the method of the request, where HTML knows only POST."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Fields(NamedTuple):
    """The fields of a request's body.

    `values` come as JSON has them, or, where `is_form`, as text and None (`build(…, text=fields.is_form)`).
    `repeated` has a fault for every field that a form has more than once, if `read_fields` was told to keep them;
    otherwise it is empty.

    >>> from diptych.http import Fields
    >>> fields = Fields({"title": "Dune", "isbn": None}, is_form=True)
    >>> fields.values["title"], fields.repeated
    ('Dune', ())
    """

    values: dict[str, Any]
    is_form: bool
    repeated: tuple[Fault, ...] = ()


def parse_form(body: bytes, max_fields: int = 200) -> dict[str, str | None]:
    """Returns the fields of an `application/x-www-form-urlencoded` body; a field without a value is None.

    Empty parts (`a=1&&b=2`) are no fields, but they count. Raises `BadRequest` for a body that is not UTF-8, for a
    "%" without two hex digits and for more than `max_fields` parts, and `InvalidMessage` with a fault for every field
    that was sent more than once (which of them was meant?).

    >>> from diptych.http import parse_form
    >>> parse_form(b"title=AC%2FDC&isbn=")
    {'title': 'AC/DC', 'isbn': None}
    """
    values, repeated = parse_repeated(body, max_fields)
    if repeated:
        raise InvalidMessage("form", repeated)
    return values


def parse_repeated(body: bytes, max_fields: int = 200) -> tuple[dict[str, str | None], tuple[Fault, ...]]:
    """Returns the fields, of repeated fields the first values, and a fault for every repeated field.

    Otherwise like `parse_form`.
    """
    if body.count(b"&") >= max_fields:
        raise BadRequest(f"the form has more than {max_fields} fields")
    parts = (part.replace(b"+", b" ").partition(b"=") for part in body.split(b"&") if part)
    pairs = [(decode_percent(name, "form"), decode_percent(value, "form")) for name, _, value in parts]
    counted = Counter(name for name, _ in pairs)
    repeated = (Fault(name, "was sent more than once") for name, count in counted.items() if count > 1)
    values: dict[str, str | None] = {}
    for name, value in pairs:
        values.setdefault(name, value or None)
    return values, tuple(repeated)


def method_override(
    fields: Fields, allowed: Collection[str] = ("PATCH", "DELETE")
) -> tuple[str | None, Fields]:
    """Returns the method in a form's field `_method` (None without the field), and the other fields.

    Only a form can override: in JSON `_method` is a field like any other, and so unknown to the command.
    Raises `InvalidMessage` for a method that is not in `allowed`.

    >>> from diptych.http import Fields, method_override
    >>> method, others = method_override(Fields({"_method": "PATCH", "title": "Dune"}, is_form=True))
    >>> method, others.values
    ('PATCH', {'title': 'Dune'})
    """
    if not fields.is_form or METHOD_FIELD not in fields.values:
        return None, fields
    values: dict[str, Any] = dict(fields.values)
    method = str(values.pop(METHOD_FIELD) or "").upper()
    if method not in allowed:
        raise InvalidMessage("form", [Fault(METHOD_FIELD, f"must be {' or '.join(allowed)}")])
    return method, fields._replace(values=values)


def check_same_site(scope: RequestScope) -> None:
    """Raises `CrossSite` if a browser sent this unsafe request on behalf of a page of some other site.

    `Sec-Fetch-Site` decides where the browser sends this header (over TLS and to localhost); `same-site` is refused
    too, as a neighbouring subdomain is not us. Else a page's `Origin` must name the `Host` that was asked;
    the scheme is not compared, because a proxy that ends TLS hides it. A client with neither header is no
    browser and is served.

    >>> from diptych.http import check_same_site
    >>> check_same_site({"method": "POST", "headers": [(b"sec-fetch-site", b"same-origin")]})
    >>> check_same_site({"method": "POST", "headers": [(b"sec-fetch-site", b"cross-site")]})
    Traceback (most recent call last):
    ...
    diptych.http.errors.CrossSite: this request was sent from another site's page; send it from a page of this site
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
