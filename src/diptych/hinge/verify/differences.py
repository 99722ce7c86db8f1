"""Differences between a row and its document and list entries in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from diptych.read.addresses import is_second
from diptych.read.lists.index import ListIndex
from diptych.read.set_aside import MARK, misfit_of, shown_key
from diptych.read.store.contents import Stored
from diptych.read.store.record import Entries, entries_of, recorded_in
from diptych.read.store.writes import Write

MISSING, EXTRA, OTHER = "missing-document", "extra-document", "other-content"
NO_ENTRY, EXTRA_ENTRY, OTHER_RECORD = "missing-list-entry", "extra-list-entry", "other-list-record"
MISCOUNTED = "miscounted-set-aside"
IMPOSSIBLE = "impossible-stamp"
_COPY = {MISSING: "missing-copy", EXTRA: "extra-copy", OTHER: "other-copy"}


class Finding(NamedTuple):
    """A kind of difference: a word of this module, and the name of the list with the difference ("" for none)."""

    what: str
    list_name: str = ""


class Difference(NamedTuple):
    """A document that differs from its row: its key as text, the column of a second address ("" for the key), and
    what differs."""

    key: str
    address: str
    findings: tuple[Finding, ...]


def difference_at(where: bytes, findings: Sequence[Finding]) -> Difference:
    """Returns the difference found at a key in Redis."""
    if not is_second(where):
        return Difference(shown_key(where), "", tuple(findings))
    column, _, value = where[1:].partition(b":")
    return Difference(shown_key(value), shown_key(column), tuple(findings))


def is_same_body(stored: bytes, wanted: bytes) -> bool:
    """Returns whether two bodies are the same. Of a row that is set aside the reason may be worded otherwise."""
    if stored == wanted:
        return True
    if not (stored.startswith(MARK) and wanted.startswith(MARK)):
        return False
    try:
        return misfit_of(stored).field == misfit_of(wanted).field
    except msgspec.MsgspecError:
        return False


def findings_of(
    where: bytes, stored: Stored, expected: Write | None, lists: Sequence[ListIndex]
) -> tuple[Finding, ...]:
    """Returns what differs at a key from the write of its row; None as ``expected``: there is to be nothing."""
    wanted = (expected.body or b"") if expected is not None else b""
    found: list[Finding] = []
    if not is_same_body(stored.body, wanted):
        what = MISSING if not stored.body else OTHER if wanted else EXTRA
        if is_second(where):
            return (Finding(_COPY[what]),)
        found.append(Finding(what))
        if what != OTHER:
            return tuple(found)  # that its list entries are missing, or there, goes with it
    elif not is_second(where) and stored.is_counted != wanted.startswith(MARK):
        found.append(Finding(MISCOUNTED))
    if is_second(where):
        return ()
    entries = (
        tuple(frozenset[bytes]() for _ in lists) if expected is None else entries_of(expected.entries, lists)
    )
    found += _in_lists(entries, stored.entries, lists)
    if not found and lists:
        is_right = recorded_in(stored.record, lists) == entries if wanted else stored.record is None
        found += [] if is_right else [Finding(OTHER_RECORD)]
    return tuple(found)


def faults_of(where: bytes, stored: Stored, lists: Sequence[ListIndex]) -> tuple[Finding, ...]:
    """Returns what does not go together in Redis itself, whatever the row.

    A document, the record of its list entries and the entries are written by one script: no moment shows such a fault
    while the protocol is kept.
    """
    if is_second(where):
        return ()
    record = recorded_in(stored.record, lists)
    if record is not None and any(key_in(entry) != where for own in record for entry in own):
        record = None
    found: list[Finding] = []
    is_recorded = record is not None if stored.body else stored.record is not None
    if lists and is_recorded != bool(stored.body):
        found.append(Finding(OTHER_RECORD))
    if stored.is_counted != stored.body.startswith(MARK):
        found.append(Finding(MISCOUNTED))
    none = tuple(frozenset[bytes]() for _ in lists)
    return (*_in_lists(none if record is None else record, stored.entries, lists), *found)


def key_in(entry: bytes) -> bytes:
    """Returns the document's key in a list entry, as the script of pages reads it."""
    length = int.from_bytes(entry[-4:], "big")
    return entry[max(0, len(entry) - 4 - length) : -4]


def _in_lists(wanted: Entries, there: Entries, lists: Sequence[ListIndex]) -> list[Finding]:
    found = []
    for index, expected, entries in zip(lists, wanted, there, strict=True):
        found += [Finding(NO_ENTRY, index.name)] if expected - entries else []
        found += [Finding(EXTRA_ENTRY, index.name)] if entries - expected else []
    return found
