"""Bodies of requests: JSON and browsers' forms, read strictly and never further than allowed.

Forms have methods that HTML does not know, and are protected from other sites.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from diptych.errors import Fault, InvalidMessage, PlacedFault
from diptych.http.asgi import RequestReceive, RequestScope, header_values, list_elements
from diptych.http.errors import BadRequest, CrossSite, UnsupportedMediaType
from diptych.http.paths import decode_percent
from diptych.http.reading import read_body
from diptych.messages.validation import printable

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


class UnsupportedCoding(UnsupportedMediaType):
    """The body is compressed (`Content-Encoding`); ``accepted`` names no media types."""

    def __init__(self) -> None:
        super().__init__("a compressed body is not read here", ())
        self.headers = {"Accept-Encoding": "identity"}


async def read_fields(
    scope: RequestScope,
    receive: RequestReceive,
    max_bytes: int,
    *,
    keep_repeated: bool = False,
    several: Collection[str] = (),
    forms: bool = True,
) -> Fields:
    """Reads the fields of a JSON object or a form; none for a request without a body and a `Content-Type`.

    Where `forms` is False, only JSON is read.

    With `keep_repeated`, of form fields that were sent more than once the first values are kept, to be shown in the
    form again, and the caller has to refuse them by the faults in `Fields.repeated`. The form fields `several` may be
    sent any number of times, as check boxes are: each is the list of its values, without the empty ones.

    Raises `UnsupportedMediaType` (before anything is read), `PayloadTooLarge` for more than `max_bytes` bytes,
    `BadRequest` for a malformed body, and `InvalidMessage` for JSON that is well-formed but not an object, and for
    form fields that were sent more than once. A body that was read before is treated as by `read_body`.

    >>> import asyncio
    >>> from diptych.http import read_fields
    >>> async def receive():
    ...     return {"type": "http.request", "body": b'{"title": "Dune"}'}
    >>> scope = {"type": "http", "headers": [(b"content-type", b"application/json")]}
    >>> asyncio.run(read_fields(scope, receive, max_bytes=1000))
    Fields(values={'title': 'Dune'}, is_form=False, repeated=())
    """
    accepted = (JSON, FORM) if forms else (JSON,)
    media_type = _media_type(scope, accepted)
    body = await read_body(scope, receive, max_bytes)
    if media_type == FORM:
        sent, repeated = parse_repeated(body, several=several)
        if repeated and not keep_repeated:
            raise InvalidMessage("form", repeated)
        return Fields(sent, is_form=True, repeated=repeated)
    if media_type is None:
        if body:
            raise UnsupportedMediaType("the body has no Content-Type", accepted)
        return Fields({}, is_form=False)
    return Fields(_object(body), is_form=False)


def _object(body: bytes) -> dict[str, Any]:
    values = parse_json(body)
    if not isinstance(values, dict):
        raise InvalidMessage("body", [Fault("", "must be a JSON object")])
    return values


def json_value(scope: RequestScope, body: bytes) -> Any:
    """Returns the value of a body that a framework has read, as strictly as `read_fields` reads JSON."""
    if _media_type(scope, (JSON,)) is None:
        raise UnsupportedMediaType("the body has no Content-Type", (JSON,))
    return parse_json(body)


def form_values(scope: RequestScope, body: bytes) -> dict[str, str | None]:
    """Returns the fields of a form that a framework has read, as strictly as `read_fields` reads forms."""
    if _media_type(scope, (FORM,)) is None and body:
        raise UnsupportedMediaType("the body has no Content-Type", (FORM,))
    return parse_form(body)


def parse_json(body: bytes) -> Any:
    """Returns the value of a JSON text, read strictly.

    Raises `BadRequest` for JSON that is malformed, not UTF-8 or nested too deeply, that has half a surrogate pair or
    a number out of range, and for an object with the same name twice: readers disagree which of the two counts.

    >>> from diptych.http import parse_json
    >>> parse_json(b'{"title": "Dune", "isbn": null}')
    {'title': 'Dune', 'isbn': None}
    """
    try:
        value = msgspec.json.decode(body)
        # msgspec is strict, but of two equal names it keeps the last without a word; the second reading finds them.
        # There are no equal names if each name that is left has a colon, and there are no more colons.
        if not isinstance(value, dict) or body.count(b":") != len(value):
            json.loads(body.decode("utf-8"), object_pairs_hook=_refuse_repeated)
    except RecursionError as error:
        raise BadRequest("the JSON is nested too deeply") from error
    except ValueError as error:  # malformed, not UTF-8, or a number too long for Python
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise BadRequest(f"the JSON cannot be read: {reason}") from error
    return value


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        repeated = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object has the name {repeated[:80]!r} twice")
    return found


def _media_type(scope: RequestScope, accepted: Collection[str]) -> str | None:
    """Returns the type, one of ``accepted``; None if the request names no type. Raises `UnsupportedMediaType`."""
    codings = list_elements(",".join(header_values(scope, b"content-encoding")).lower())
    if any(coding != "identity" for coding in codings):
        raise UnsupportedCoding
    sent = header_values(scope, b"content-type")
    if not sent:
        return None
    media_type, *parameters = (part.strip().lower() for part in sent[0].split(";"))
    if len(sent) > 1 or media_type not in accepted:
        raise UnsupportedMediaType("this media type is not read here", accepted)
    named = (parameter.partition("=") for parameter in parameters)
    # No blank belongs before the "=", and "charset =utf-16" is no reason to take the body for UTF-8.
    charsets = [value.strip().strip('"') for name, _, value in named if name.strip() == "charset"]
    if any(charset not in ("utf-8", "utf8") for charset in charsets):
        raise UnsupportedMediaType("only UTF-8 is read here", accepted)
    return media_type


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


def parse_repeated(
    body: bytes, max_fields: int = 200, several: Collection[str] = ()
) -> tuple[dict[str, Any], tuple[Fault, ...]]:
    """Returns the fields, of repeated fields the first values, and a fault for every repeated field.

    Those of ``several`` are lists of all values that are not empty. Otherwise like `parse_form`.
    """
    if body.count(b"&") >= max_fields:
        raise BadRequest(f"the form has more than {max_fields} fields")
    parts = (part.replace(b"+", b" ").partition(b"=") for part in body.split(b"&") if part)
    pairs = [(decode_percent(name, "form"), decode_percent(value, "form")) for name, _, value in parts]
    counted = Counter(name for name, _ in pairs)
    repeated = (
        PlacedFault([printable(name)], "was sent more than once")
        for name, count in counted.items()
        if count > 1 and name not in several
    )
    values: dict[str, Any] = {name: [] for name in several if name in counted}
    for name, value in pairs:
        if name not in several:
            values.setdefault(name, value or None)
        elif value:
            values[name].append(value)
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
