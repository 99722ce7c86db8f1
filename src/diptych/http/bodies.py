"""Reading a request's body: never more than allowed, and only in known media types."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec

from diptych.errors import Fault, InvalidMessage
from diptych.http.asgi import RequestReceive, RequestScope, header_values, list_elements
from diptych.http.errors import BadRequest, ClientDisconnected, PayloadTooLarge, UnsupportedMediaType
from diptych.http.forms import Fields, parse_repeated

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


async def read_fields(
    scope: RequestScope, receive: RequestReceive, max_bytes: int, *, keep_repeated: bool = False
) -> Fields:
    """Reads the fields of a JSON object or a form; none for a request without a body and a `Content-Type`.

    With `keep_repeated`, of form fields that were sent more than once the first values are kept, to be shown in the
    form again, and the caller has to refuse them by the faults in `Fields.repeated`.

    Raises `UnsupportedMediaType` (before anything is read), `PayloadTooLarge` for more than `max_bytes` bytes,
    `BadRequest` for a malformed body, and `InvalidMessage` for JSON that is well-formed but not an object, and for
    form fields that were sent more than once.

    >>> import asyncio
    >>> from diptych.http import read_fields
    >>> async def receive():
    ...     return {"type": "http.request", "body": b'{"title": "Dune"}'}
    >>> scope = {"type": "http", "headers": [(b"content-type", b"application/json")]}
    >>> asyncio.run(read_fields(scope, receive, max_bytes=1000))
    Fields(values={'title': 'Dune'}, is_form=False, repeated=())
    """
    media_type = _media_type(scope)
    body = await read_body(scope, receive, max_bytes)
    if media_type == FORM:
        return _form_fields(body, keep_repeated)
    if media_type is None:
        if body:
            raise UnsupportedMediaType("the body has no Content-Type", (JSON, FORM))
        return Fields({}, is_form=False)
    values = parse_json(body)
    if not isinstance(values, dict):
        raise InvalidMessage("body", [Fault("", "must be a JSON object")])
    return Fields(values, is_form=False)


def _form_fields(body: bytes, keep_repeated: bool) -> Fields:
    values, repeated = parse_repeated(body)
    if repeated and not keep_repeated:
        raise InvalidMessage("form", repeated)
    return Fields(dict(values), is_form=True, repeated=repeated)


async def read_body(scope: RequestScope, receive: RequestReceive, max_bytes: int) -> bytes:
    """Reads the whole body, of at most `max_bytes` bytes.

    Raises `PayloadTooLarge` as early as possible: by `Content-Length` before anything is read, else after the first
    chunk too many. Raises `ClientDisconnected` if the client went away, so that half a body is never taken for a
    whole body, and `BadRequest` for a `Content-Length` that is no number.

    >>> import asyncio
    >>> from diptych.http import read_body
    >>> chunks = [{"type": "http.request", "body": b"ab", "more_body": True}, {"type": "http.request", "body": b"c"}]
    >>> async def receive():
    ...     return chunks.pop(0)
    >>> asyncio.run(read_body({"type": "http", "headers": []}, receive, max_bytes=3))
    b'abc'
    """
    for declared in header_values(scope, b"content-length"):
        if not (declared.isascii() and declared.isdigit()):
            raise BadRequest("Content-Length is not a number")
        # The digits are counted first: Python refuses to convert thousands of them.
        if len(declared) > 18 or int(declared) > max_bytes:
            raise PayloadTooLarge(max_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnected
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise PayloadTooLarge(max_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


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
        raise BadRequest(f"the JSON cannot be read: {_reason(error)}") from error
    return value


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        repeated = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object has the name {repeated[:80]!r} twice")
    return found


def _reason(error: ValueError) -> str:
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def _media_type(scope: RequestScope) -> str | None:
    """Returns `JSON` or `FORM`; None if the request names no type. Raises `UnsupportedMediaType`."""
    codings = list_elements(",".join(header_values(scope, b"content-encoding")).lower())
    if any(coding != "identity" for coding in codings):
        raise UnsupportedMediaType("a compressed body is not read here", (JSON, FORM))
    sent = header_values(scope, b"content-type")
    if not sent:
        return None
    media_type, *parameters = (part.strip().lower() for part in sent[0].split(";"))
    if len(sent) > 1 or media_type not in (JSON, FORM):
        raise UnsupportedMediaType("this media type is not read here", (JSON, FORM))
    charsets = [value[8:].strip('"') for value in parameters if value.startswith("charset=")]
    if any(charset not in ("utf-8", "utf8") for charset in charsets):
        raise UnsupportedMediaType("only UTF-8 is read here", (JSON, FORM))
    return media_type
