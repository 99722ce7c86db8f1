"""Rows that are set aside: the mark stored in place of their documents, and the log's lines about them.

A single row that does not fit its document must not take its read model from Redis. In place of the document, Redis
stores a mark and the misfit, so that a query by the row's key need not ask SQL, and a page can leave the row out and
go on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from diptych.sql.description import Unreadable

_log = logging.getLogger("diptych.read")

MARK = b"\x00"
"""First byte of the body of a set-aside row; JSON contains it nowhere."""

KEYLESS = b"\xff"
"""The key of all rows without a readable key; no other key is equal to it, since keys are UTF-8."""

_LONGEST_REASON = 200
_LONGEST_KEY = 200
_MOST_TOLD = 1000
"""Number of set-aside rows of a read model that are named in the log at most."""


class Misfit(NamedTuple):
    """The reason why a row is set aside, and the misfitting ``field`` ("" for several together)."""

    field: str
    reason: str


def marked(misfit: Misfit) -> bytes:
    """Returns the body stored in place of the document."""
    return MARK + msgspec.json.encode([misfit.field, misfit.reason[:_LONGEST_REASON]])


def misfit_of(stored: bytes) -> Misfit:
    """Returns the misfit in a ``marked`` body."""
    return Misfit(*msgspec.json.decode(stored[len(MARK) :], type=tuple[str, str]))


class SetAsideRow(NamedTuple):
    """A set-aside row: the key of its document as text, and the misfitting field."""

    key: str
    field: str


class SetAside(NamedTuple):
    """The number of set-aside rows of a read model, and some of the rows."""

    number: int
    rows: tuple[SetAsideRow, ...]


def shown_key(key: bytes) -> str:
    """Returns a document's key for people to read, cut to 200 characters."""
    text = "(none)" if key == KEYLESS else key.decode(errors="backslashreplace")
    return text if len(text) <= _LONGEST_KEY else f"{text[:_LONGEST_KEY]}…"


class Notices:
    """The log's lines about set-aside rows: each row is named once as long as set aside, and 1000 rows at most."""

    def __init__(self, name: str, table: str) -> None:
        self._name = name
        self._table = table
        self._told: dict[bytes, str] = {}
        self._is_full = False

    def concern(self, body: bytes) -> bool:
        """Says if ``met`` has to be called for this body; seldom true."""
        return bool(self._told) or body.startswith(MARK)

    def met(self, key: bytes, body: bytes) -> None:
        """Takes note of the present body for this key, a document or a ``marked`` body."""
        if body.startswith(MARK):
            self._tell(key, misfit_of(body))
        elif self._told and self._told.pop(key, None) is not None:
            self._is_full = False
            _log.info("%s: the row of %s with the key %s fits again", *self._names(key))

    def _tell(self, key: bytes, misfit: Misfit) -> None:
        if self._told.get(key) == misfit.field:
            return
        if len(self._told) < _MOST_TOLD or key in self._told:
            self._told[key] = misfit.field
            _log.warning(
                "%s: the row of %s with the key %s does not fit and is set aside until it is changed: %s %s",
                *(*self._names(key), misfit.field or "its document", misfit.reason),
            )
        elif not self._is_full:
            self._is_full = True
            _log.warning(
                "%s: more than %d rows are set aside; no more are named here", self._name, _MOST_TOLD
            )

    def _names(self, key: bytes) -> tuple[str, str, str]:
        return self._name, self._table, shown_key(key)


def reason_of(value: Any, otherwise: str) -> str:
    """Returns the reason why a value does not fit: that of an unreadable one in it, else ``otherwise``."""
    found = next(_unreadable_in(value), None)
    return otherwise if found is None else found.reason


def _unreadable_in(value: Any) -> Iterator[Unreadable]:
    """Yields the unreadable values of nested rows, or the value itself if it is one."""
    if isinstance(value, Unreadable):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _unreadable_in(each)
