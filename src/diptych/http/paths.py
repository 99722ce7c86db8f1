"""Routing on the raw path, for frameworks with routing on the decoded path.

ASGI's `path` is percent-decoded as a whole, so `/books/x%2Fedit` (the book "x/edit") and `/books/x/edit` (the
edit page of "x") are the same to a framework, and a route `/books/action/add` may hide the book "action".
`RawPath` decides which route is meant before the framework looks, and hands on a path that can be read in one way
only.
"""

from __future__ import annotations

import re
from binascii import a2b_qp
from collections.abc import Iterable
from urllib.parse import quote

from diptych.http.asgi import ASGIApp, Receive, Scope, Send
from diptych.http.errors import BadRequest
from diptych.http.routes import RouteTable, template_segments

__all__ = [
    "PATH_ERROR",
    "PATH_PARAMS",
    "RawPath",
    "decode_percent",
    "encode_segment",
    "path_segments",
    "sent_path",
]

PATH_PARAMS = "diptych.path_params"
"""Scope key: the decoded text parameters by name; None where no route matched."""
PATH_ERROR = "diptych.path_error"
"""Scope key: the `BadRequest` to answer with, if the path cannot be decoded. Otherwise absent."""

_MALFORMED = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# Bytes are found as numbers several times faster than as byte strings.
_NUL, _PERCENT = b"\0%"

# Positions and names of the text parameters of a template.
_Texts = tuple[tuple[int, str], ...]


def encode_segment(text: str) -> str:
    """Returns ``text`` as a single path segment, for links and `Location`.

    No URL can carry a segment "." or ".." (clients resolve them, encoded or not), nor an empty one: refuse
    such names where they are made. Raises `UnicodeEncodeError`, a `ValueError`, for lone surrogates.

    >>> from diptych.http import encode_segment
    >>> encode_segment("AC/DC")
    'AC%2FDC'
    """
    return quote(text, safe="")


def decode_percent(sent: bytes, place: str) -> str:
    """Returns the text of percent-encoded UTF-8.

    Raises `BadRequest` for bytes that are not UTF-8 and for a "%" without two hex digits, with ``place`` in its text.
    """
    if _PERCENT in sent:
        if _MALFORMED.search(sent):
            raise BadRequest(f'the {place} has a "%" that is not followed by two hexadecimal digits')
        # Quoted-printable differs by its sign alone, "=", and is decoded at the speed of C.
        sent = a2b_qp(sent.replace(b"=", b"=3D").replace(b"%", b"="))
    try:
        return sent.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the {place} is not UTF-8") from error


def sent_path(scope: Scope) -> bytes:
    """Returns the raw path of a request; some servers leave the query string on."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:  # ASGI allows that; a "/" that was encoded is then lost, all else is not
        return quote(scope["path"], errors="surrogatepass").encode("ascii")
    return raw


def path_segments(sent: bytes, mount: str) -> list[str] | None:
    """Returns the decoded segments of a raw path below the application's ``mount`` (`root_path`).

    The mount itself has no segment below it, the mount with a slash a single empty segment. Returns None for a path
    outside of the mount, and for no path at all (`OPTIONS *`).

    Raises `BadRequest` for a malformed path: not UTF-8, with a "%" without two hex digits, or with a NUL, which no
    store keeps.
    """
    path = sent.partition(b"?")[0]
    if _NUL in path or path.count(b"%00"):
        raise BadRequest("the path has a NUL character")
    # An encoded slash is text. A NUL stands for every other slash until the path is decoded.
    segments = decode_percent(path.replace(b"/", b"\0"), "path").split("\0")
    above = mount.rstrip("/").split("/")
    return segments[len(above) :] if segments[: len(above)] == above else None


class RawPath:
    """An ASGI wrapper to match `raw_path` against the framework's route templates.

    Templates: `/books/{title}` or `{title:str}` (one segment of text), `/orders/{id:int}` (any other type:
    the framework converts it), `/static/{file:path}` (one or more segments) and `/admin/*` (a mounted
    application). Segments are compared one by one after decoding, fixed ones before parameters, going back
    where a fixed one leads nowhere: with `/books/action/add` and `/books/{title}/edit`, `/books/action/edit`
    edits the book "action".

    The application behind gets a copy of the scope with

    - `path`: fixed segments as they are in the template, a text parameter as `=` and its quoted text. No
      template starts a segment with `=`, so no name can be taken for a route;
    - `diptych.path_params`: the decoded text parameters, which the framework's room puts in place of its own.

    If no route matches (an empty segment matches none: `/books//edit`, `/books/`), `path` is deeper than any
    template and so a 404, and `diptych.path_params` is None. If the path is malformed (not UTF-8, a "%" without two
    hex digits, or a NUL, which no store keeps), `diptych.path_error` holds the `BadRequest` besides. `raw_path` is
    never changed. Dot segments are not resolved: they are text, and no `{…:path}` takes them.

    >>> import asyncio
    >>> from diptych.http import RawPath
    >>> async def framework(scope, receive, send):
    ...     print(scope["path"], scope["diptych.path_params"])
    >>> app = RawPath(framework, ["/books", "/books/{title}", "/books/{title}/edit"])
    >>> async def main():
    ...     for path in (b"/books/x/edit", b"/books/x%2Fedit"):
    ...         await app({"type": "http", "path": "/books/x/edit", "raw_path": path}, None, None)
    >>> asyncio.run(main())
    /books/=x/edit {'title': 'x'}
    /books/=x%2Fedit {'title': 'x/edit'}
    """

    def __init__(self, app: ASGIApp, patterns: Iterable[str]) -> None:
        self._app = app
        templates = list(patterns)
        self._routes = RouteTable((template, _texts_of(template)) for template in templates)
        self._nowhere = "/=" * (max((template.count("/") for template in templates), default=0) + 1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] in ("http", "websocket"):
            scope = self._route(scope)
        await self._app(scope, receive, send)

    def _route(self, scope: Scope) -> Scope:
        """Returns the scope for the application behind."""
        prefix: str = scope.get("root_path", "").rstrip("/")
        try:
            segments = path_segments(sent_path(scope), prefix)
        except BadRequest as error:
            return {**scope, "path": prefix + self._nowhere, PATH_PARAMS: None, PATH_ERROR: error}
        routes = self._routes.match(segments) if segments else ()
        if not segments or not routes:
            return {**scope, "path": prefix + self._nowhere, PATH_PARAMS: None}
        params = {name: segments[at] for texts in routes for at, name in texts}
        for at, _ in routes[0]:  # all templates of a route have text parameters at the same positions
            segments[at] = "=" + encode_segment(segments[at])
        return {**scope, "path": f"{prefix}/{'/'.join(segments)}", PATH_PARAMS: params}


def _texts_of(template: str) -> _Texts:
    segments = enumerate(template_segments(template))
    return tuple((at, segment.name) for at, segment in segments if segment.kind == "text")
