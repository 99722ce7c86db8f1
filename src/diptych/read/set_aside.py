"""Rows that are set aside since they do not fit: what is stored in the place of their documents, and the log's word.

One row that can't be a document must not take its read model from Redis. In the place of its document it has a mark
and what does not fit, so that a query by its key need not ask SQL, and a page can leave it out and go on.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import msgspec

from diptych.sql.description import Unreadable

_log = logging.getLogger("diptych.read")

MARK = b"\x00"
"""What is stored for such a row begins with this byte, which JSON nowhere contains."""

KEYLESS = b"\xff"
"""Where rows without a key are: no key is this, since keys are UTF-8."""

_LONGEST_REASON = 200
_LONGEST_KEY = 200
_MOST_TOLD = 1000


class Misfit(NamedTuple):
    """Why a row is set aside: the ``field`` that does not fit ("" if it is all together), and what is wrong."""

    field: str
    reason: str


def marked(misfit: Misfit) -> bytes:
    """What is stored in the place of the document."""
    return MARK + msgspec.json.encode([misfit.field, misfit.reason[:_LONGEST_REASON]])


def misfit_of(stored: bytes) -> Misfit:
    """What ``marked`` was given."""
    return Misfit(*msgspec.json.decode(stored[len(MARK) :], type=tuple[str, str]))


class SetAsideRow(NamedTuple):
    """A row that is set aside, by the key of its document as text, and the field that does not fit."""

    key: str
    field: str


class SetAside(NamedTuple):
    """How many rows of a read model are set aside, and some of them."""

    number: int
    rows: tuple[SetAsideRow, ...]


def shown_key(key: bytes) -> str:
    """A document's key as a person can read it, and not too long."""
    text = "(none)" if key == KEYLESS else key.decode(errors="backslashreplace")
    return text if len(text) <= _LONGEST_KEY else f"{text[:_LONGEST_KEY]}…"


class Notices:
    """Has the log name each row that is set aside once, until it fits again. So many are remembered, not more."""

    def __init__(self, name: str, table: str) -> None:
        self._name = name
        self._table = table
        self._told: dict[bytes, str] = {}
        self._is_full = False

    def concern(self, body: bytes) -> bool:
        """Whether there is anything to take note of: for nearly all documents there is not."""
        return bool(self._told) or body.startswith(MARK)

    def met(self, key: bytes, body: bytes) -> None:
        """Takes note of what is to be answered for this key now: a document, or what stands in its place."""
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
    """Why a value fits nothing: the reason of an unreadable one, else ``otherwise``."""
    return value.reason if isinstance(value, Unreadable) else otherwise
