"""Routing on the raw path, for frameworks with routing on the decoded path.

ASGI's `path` is percent-decoded as a whole, so `/books/x%2Fedit` (the book "x/edit") and `/books/x/edit` (the
edit page of "x") are the same to a framework, and a route `/books/action/add` may hide the book "action".
`RawPath` decides which route is meant before the framework looks, and hands on a path that can be read in one way
only.
"""

from __future__ import annotations

import re
from binascii import a2b_qp
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar
from urllib.parse import quote

from diptych.http.asgi import ASGIApp, Receive, Scope, Send
from diptych.http.errors import BadRequest

R = TypeVar("R")

_PARAMETER = re.compile(r"\{([^{}:]+)(?::([^{}]+))?\}")
WHOLE_NUMBER = re.compile("0|-?[1-9][0-9]{0,17}").fullmatch
"""Tells whether a segment of a path is a whole number: each has one address, so there is no `07`."""
_without_slash = re.compile("[^/]+").fullmatch


class Segment(NamedTuple):
    """A segment of a route template.

    ``kind`` says which segments of a path fit: the very ``text`` (fixed), one segment of any text, one segment that
    the framework converts to a type (typed, with the type's name as ``text``), one or more segments up to the end
    (rest), or all that follow, if any, for a mounted application (mount). ``name`` is that of the parameter.
    """

    kind: Literal["fixed", "text", "typed", "rest", "mount"]
    text: str
    name: str = ""


def template_segments(template: str) -> list[Segment]:
    """Returns the segments of a route template, up to the first of kind rest or mount.

    Raises `ValueError` for a fixed segment that reads like a parameter.
    """
    found: list[Segment] = []
    for text in filter(None, template.split("/")):
        found.append(_segment(text, template))
        if found[-1].kind in ("rest", "mount"):
            break
    return found


def _segment(text: str, template: str) -> Segment:
    if text == "*":
        return Segment("mount", text)
    if parameter := _PARAMETER.fullmatch(text):
        name, kind = parameter[1].strip(), (parameter[2] or "str").strip()
        return Segment({"str": "text", "path": "rest"}.get(kind, "typed"), kind, name)  # type: ignore[arg-type]
    if text.startswith("=") or "{" in text:
        raise ValueError(f"route {template!r}: the segment {text!r} reads like a parameter")
    return Segment("fixed", text)


class _Node(Generic[R]):
    """The routes with the same first segments: by the next segment, and the routes without a next segment."""

    __slots__ = ("ends", "fixed", "mounts", "rests", "text", "typed")

    def __init__(self) -> None:
        self.fixed: dict[str, _Node[R]] = {}
        self.text: _Node[R] | None = None  # {title}, {title:str}
        self.typed: _Node[R] | None = None  # {id:int}
        # A route has several templates where a framework names the same segment differently for different methods.
        self.ends: list[R] = []
        self.rests: list[R] = []  # {file:path}
        self.mounts: list[R] = []  # /static/*


class RouteTable(Generic[R]):
    """A table of route templates, each with a value, to look up by the segments of a path.

    Of the templates that fit, the one that is most exact in the first segment where they differ is taken, in the
    order of the kinds of `Segment`. Where a segment leads nowhere, the next kind is tried. ``takes`` tells which
    texts a typed segment takes; by default any without a slash.

    Raises `ValueError` for a template with a fixed segment that reads like a parameter.
    """

    def __init__(
        self, routes: Iterable[tuple[str, R]], takes: Callable[[str], object] = _without_slash
    ) -> None:
        self._root: _Node[R] = _Node()
        self._takes = takes
        for template, value in routes:
            self._add(template, value)

    def match(self, segments: Sequence[str]) -> Sequence[R]:
        """Returns the values of the templates of a path's route, in their given order; none without a route.

        ``segments`` are decoded. No segment, and a single empty segment, are the route `/`.
        """
        return self._find(self._root, () if segments == [""] else segments, 0)

    def _add(self, template: str, value: R) -> None:
        node = self._root
        for kind, text, _ in template_segments(template):
            if kind == "fixed":
                node = node.fixed.setdefault(text, _Node())
            elif kind == "text":
                node.text = node.text or _Node()
                node = node.text
            elif kind == "typed":
                node.typed = node.typed or _Node()
                node = node.typed
            else:
                (node.rests if kind == "rest" else node.mounts).append(value)
                return
        node.ends.append(value)

    def _find(self, node: _Node[R], segments: Sequence[str], at: int) -> Sequence[R]:
        """Returns the values below ``node``. Each node is tried at most once, since its depth fixes ``at``: no path
        makes the search slow."""
        if at == len(segments):
            return node.ends or node.mounts
        if segment := segments[at]:
            child = node.fixed.get(segment)
            if child and (found := self._find(child, segments, at + 1)):
                return found
            if node.text and (found := self._find(node.text, segments, at + 1)):
                return found
            if node.typed and self._takes(segment) and (found := self._find(node.typed, segments, at + 1)):
                return found
        if node.rests and all(map(_is_plain, segments[at:])):
            return node.rests
        return node.mounts


def _is_plain(segment: str) -> bool:
    """Returns True for a segment with no danger in a joined path: without a slash, and no step upwards."""
    return segment not in ("", ".", "..") and "/" not in segment and "\\" not in segment


PATH_PARAMS = "diptych.path_params"
"""Scope key: the decoded text parameters by name; None where no route matched."""
PATH_ERROR = "diptych.path_error"
"""Scope key: the `BadRequest` to answer with, if the path cannot be decoded. Otherwise absent."""

_MALFORMED = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# Bytes are found as numbers several times faster than as byte strings.
_NUL, _PERCENT = b"\0%"


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


def mount_of(scope: Scope) -> str:
    """Returns the prefix of a request's path that the application is mounted at.

    `root_path` may be one that a proxy has taken away: then it is no part of the path.
    """
    root: str = scope.get("root_path", "")
    return root if f"{scope['path']}/".startswith(root.rstrip("/") + "/") else ""


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
            scope = self.routed(scope)
        await self._app(scope, receive, send)

    def routed(self, scope: Scope) -> Scope:
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


def _texts_of(template: str) -> tuple[tuple[int, str], ...]:
    """Returns the positions and names of the text parameters."""
    segments = enumerate(template_segments(template))
    return tuple((at, segment.name) for at, segment in segments if segment.kind == "text")
