"""Route templates, and the table to look up the routes of a path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

__all__ = ["RouteTable", "Segment", "template_segments"]

R = TypeVar("R")

_PARAMETER = re.compile(r"\{([^{}:]+)(?::([^{}]+))?\}")
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
