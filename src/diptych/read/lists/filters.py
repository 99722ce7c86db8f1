"""Filters of a page, beside values: a range, and the beginning of a text."""

from __future__ import annotations

from typing import Any

import msgspec


class Between(msgspec.Struct, frozen=True):
    """A range of values, its ends included; None leaves an end open. Made by ``between``."""

    start: Any
    end: Any


class StartsWith(msgspec.Struct, frozen=True):
    """Texts with this beginning. Made by ``starts_with``."""

    text: str


def between(start: Any = None, end: Any = None) -> Between:
    """Returns the filter for values from ``start`` to ``end``, both included, for ``where`` of ``ReadModel.page``.

    None leaves an end open. A null in the row is in no range.

    >>> from diptych import between
    >>> between(1, 10), between(start=5)
    (Between(start=1, end=10), Between(start=5, end=None))
    """
    return Between(start, end)


def starts_with(text: str) -> StartsWith:
    """Returns the filter for texts that begin with ``text``, for ``where`` of ``ReadModel.page``.

    Texts are compared by code point: for a search without case or accents, filter by a column that has neither.

    >>> from diptych import starts_with
    >>> starts_with("Du")
    StartsWith(text='Du')
    """
    return StartsWith(text)
