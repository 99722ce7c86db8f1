"""Routing on the path as it was sent, for frameworks that route on the decoded one.

ASGI's `path` is percent-decoded as a whole, so `/books/x%2Fedit` (the book "x/edit") and `/books/x/edit` (the
edit page of "x") are the same to a framework, and a route `/books/action/add` may hide the book "action".
`RawPath` decides which route is meant before the framework looks, and hands on a path that can only be read
one way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from diptych.http.asgi import ASGIApp, Receive, Scope, Send
from diptych.http.errors import BadRequest

__all__ = [
    "PATH_ERROR",
    "PATH_PARAMS",
    "RawPath",
    "Segment",
    "encode_segment",
    "path_below",
    "sent_path",
    "split_path",
    "template_segments",
]

PATH_PARAMS = "diptych.path_params"
"""Scope key: the decoded text parameters by name; None where no route matched."""
PATH_ERROR = "diptych.path_error"
"""Scope key: the `BadRequest` to answer with, if the path cannot be decoded. Otherwise absent."""

_MALFORMED = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_PARAMETER = re.compile(r"\{([^{}:]+)(?::([^{}]+))?\}")


def encode_segment(text: str) -> str:
    """`text` as one path segment, for links and `Location`: "AC/DC" is `AC%2FDC`.

    No URL can carry a segment "." or ".." (clients resolve them, encoded or not), nor an empty one: refuse
    such names where they are made. Raises `UnicodeEncodeError`, a `ValueError`, for lone surrogates.
    """
    return quote(text, safe="")


class Segment(NamedTuple):
    """One segment of a route template. `kind` is what takes it: its own `text` if it is fixed, one segment of text,
    one of another type (`text` names it) that the framework converts, all that are left, or a mounted application.
    They are tried in this order."""

    kind: Literal["fixed", "text", "typed", "rest", "mount"]
    text: str
    name: str = ""


def template_segments(template: str) -> Iterator[Segment]:
    """The segments of a template as `RawPath` reads it. Raises `ValueError` for one that can't be told apart."""
    for text in filter(None, template.split("/")):
        parameter = _PARAMETER.fullmatch(text)
        if text == "*":
            yield Segment("mount", text)
            return
        if parameter is not None:
            name, kind = parameter[1].strip(), (parameter[2] or "str").strip()
            yield Segment({"str": "text", "path": "rest"}.get(kind, "typed"), kind, name)  # type: ignore[arg-type]
        elif text.startswith("=") or "{" in text:
            raise ValueError(f"route {template!r}: the segment {text!r} reads like a parameter")
        else:
            yield Segment("fixed", text)


class _Node:
    """One segment of the route templates: what may follow it, and which routes end here."""

    __slots__ = ("ends", "is_mount", "rest", "static", "text", "typed")

    def __init__(self) -> None:
        self.static: dict[str, _Node] = {}
        self.text: _Node | None = None  # {title}, {title:str}
        self.typed: _Node | None = None  # {id:int}: the framework converts it
        self.rest: _Node | None = None  # {file:path}: all the segments that are left
        self.is_mount = False  # /static/*
        # The names of the text parameters of each template that ends here. There are several where a
        # framework names the same segment differently for different methods.
        self.ends: list[tuple[str, ...]] = []


class RawPath:
    """An ASGI wrapper that matches `raw_path` against the framework's route templates.

    Templates: `/books/{title}` or `{title:str}` (one segment of text), `/orders/{id:int}` (any other type:
    the framework converts it), `/static/{file:path}` (one or more segments) and `/admin/*` (a mounted
    application). Segments are compared one by one after decoding, fixed ones before parameters, going back
    where a fixed one leads nowhere: with `/books/action/add` and `/books/{title}/edit`, `/books/action/edit`
    edits the book "action".

    The application behind gets a copy of the scope with

    - `path`: fixed segments as they are in the template, a text parameter as `=` and its quoted text. No
      template starts a segment with `=`, so no name can be taken for a route;
    - `diptych.path_params`: the decoded text parameters, which the framework's room puts in place of its own.

    If no route matches (an empty segment matches none: `/books//edit`, `/books/`), `path` is one that is
    deeper than any template and so a 404, and `diptych.path_params` is None. If the path is malformed (not
    UTF-8, a "%" without two hex digits, or a NUL, which no store keeps), `diptych.path_error` holds the
    `BadRequest` besides. `raw_path` is never changed. Dot segments are not resolved: they are text, and no
    `{…:path}` takes them.
    """

    def __init__(self, app: ASGIApp, patterns: Iterable[str]) -> None:
        self._app = app
        self._root = _Node()
        depth = 0
        for pattern in patterns:
            depth = max(depth, pattern.count("/"))
            _add(self._root, pattern)
        self._nowhere = "/=" * (depth + 1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] in ("http", "websocket"):
            scope = self._route(scope)
        await self._app(scope, receive, send)

    def _route(self, scope: Scope) -> Scope:
        prefix: str = scope.get("root_path", "").rstrip("/")
        try:
            segments = _segments(_without_query(sent_path(scope)), prefix)
        except BadRequest as error:
            return {**scope, "path": prefix + self._nowhere, PATH_PARAMS: None, PATH_ERROR: error}
        match = None if segments is None else _match(self._root, segments, 0)
        if match is None:
            return {**scope, "path": prefix + self._nowhere, PATH_PARAMS: None}
        path, texts, node = match
        params = {name: text for names in node.ends for name, text in zip(names, texts, strict=True)}
        return {**scope, "path": f"{prefix}/{'/'.join(path)}", PATH_PARAMS: params}


def _add(root: _Node, pattern: str) -> None:
    node, names = root, []
    for kind, text, name in template_segments(pattern):
        if kind == "mount":
            node.is_mount = True
            return
        if kind == "fixed":
            node = node.static.setdefault(text, _Node())
        else:
            if getattr(node, kind) is None:
                setattr(node, kind, _Node())
            node = getattr(node, kind)
            if kind == "text":
                names.append(name)
    node.ends.append(tuple(names))


def path_below(mount: str, sent: bytes) -> bytes | None:
    """The path of `sent` without that of the application's mount (`root_path`); None if it is not below it."""
    path, prefix = _without_query(sent), mount.rstrip("/")
    if not prefix:
        return path
    under, parts = prefix.split("/"), path.split(b"/")  # of a mount, what was encoded is decoded
    above = [unquote_to_bytes(part).decode("utf-8", "replace") for part in parts[: len(under)]]
    return b"/" + b"/".join(parts[len(under) :]) if above == under else None


def sent_path(scope: Scope) -> bytes:
    """The path as it was sent; some servers leave the query on."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:  # it is optional in ASGI; a "/" that was encoded is then lost, all else is not
        return quote(scope["path"], errors="surrogatepass").encode("ascii")
    return raw


def split_path(path: bytes) -> list[str]:
    """The decoded segments of a path. Raises `BadRequest` for a malformed one."""
    return list(_segments(path, "") or [])


def _without_query(sent: bytes) -> bytes:
    return sent.partition(b"?")[0]


def _segments(raw: bytes, prefix: str) -> Sequence[str] | None:
    """The decoded segments; None if the path is not under `prefix` or not a path at all (`OPTIONS *`)."""
    try:
        decoded = _decoded(raw)
    except UnicodeDecodeError as error:
        raise BadRequest("the path is not UTF-8") from error
    under = prefix.split("/")
    if len(decoded) <= len(under) or decoded[: len(under)] != under:
        return None
    rest = decoded[len(under) :]
    return [] if rest == [""] else rest


def _decoded(raw: bytes) -> list[str]:
    if b"\0" in raw or b"%00" in raw:
        raise BadRequest("the path has a NUL character")
    if b"%" not in raw:  # most paths are plain
        return raw.decode("utf-8").split("/")
    if _MALFORMED.search(raw):
        raise BadRequest('the path has a "%" that is not followed by two hexadecimal digits')
    return [unquote_to_bytes(part).decode("utf-8") for part in raw.split(b"/")]


_Match = tuple[list[str], list[str], _Node]


def _match(node: _Node, segments: Sequence[str], at: int) -> _Match | None:
    """The path to hand on and the text parameters, both from `at` on, and the node where they end.

    Each node is tried at most once, since its depth fixes `at`: no path makes this slow.
    """
    if at == len(segments):
        return ([], [], node) if node.ends or node.is_mount else None
    segment = segments[at]
    if segment:
        child = node.static.get(segment)
        if child and (found := _match(child, segments, at + 1)):
            return [segment, *found[0]], found[1], found[2]
        if node.text and (found := _match(node.text, segments, at + 1)):
            return ["=" + encode_segment(segment), *found[0]], [segment, *found[1]], found[2]
        # The framework has to convert it, so it stays as it is.
        if node.typed and "/" not in segment and (found := _match(node.typed, segments, at + 1)):
            return [segment, *found[0]], found[1], found[2]
    left = list(segments[at:])
    if node.rest and all(_is_plain(part) for part in left):
        return left, [], node.rest
    return (left, [], node) if node.is_mount else None


def _is_plain(segment: str) -> bool:
    """Whether it is safe within a path of several segments: it neither adds a segment nor climbs out of one."""
    return segment not in ("", ".", "..") and "/" not in segment and "\\" not in segment
