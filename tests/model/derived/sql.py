"""The SQL server of this model: rows, their parents, and the documents that are made of them."""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from tests.model.derived.state import Content, Entry, Place, State
from tests.model.sql import sees, snapshot_of
from tests.model.state import COMMITTED, RUNNING, Snapshot

Rows = Mapping[int, tuple[Place, int]]
"""Where each row is, and the position of its last change."""


@lru_cache(maxsize=100_000)
def rows_after(log: tuple[Entry, ...], order: tuple[int, ...]) -> Rows:
    """The rows after these transactions."""
    rows: dict[int, tuple[Place, int]] = {}
    for transaction in order:
        for position, entry in enumerate(log, 1):
            if entry.transaction == transaction and entry.after is not None:
                rows[entry.row] = entry.after, position
            elif entry.transaction == transaction:
                rows.pop(entry.row, None)
    return rows


def content(rows: Rows, key: int) -> Content:
    """The document under a key: of a parent, or of the row at an address; () if there is none."""
    if key in rows and rows[key][0] == Place():
        children = sorted((row, position) for row, (place, position) in rows.items() if place.parent == key)
        return (key, rows[key][1], *(part for child in children for part in child))
    for row, (place, position) in rows.items():
        if place.address == key:
            return (row, position, place.parent, rows[place.parent][1] if place.parent in rows else 0)
    return ()


@lru_cache(maxsize=100_000)
def history(
    log: tuple[Entry, ...], order: tuple[int, ...], keys: tuple[int, ...]
) -> tuple[tuple[Content, ...], ...]:
    """Every document after so many commits; the first, before any, is of empty tables."""
    states = (rows_after(log, order[:number]) for number in range(len(order) + 1))
    return tuple(tuple(content(rows, key) for key in keys) for rows in states)


def is_committed(state: State, entry: Entry) -> bool:
    """Whether its transaction is."""
    return state.transactions[entry.transaction - 1] == COMMITTED


def last_of(state: State, row: int, transaction: int) -> Entry | None:
    """The newest entry of a row that is committed or of this transaction."""
    for entry in reversed(state.log):
        if entry.row == row and (entry.transaction == transaction or is_committed(state, entry)):
            return entry
    return None


def holds(state: State, address: int, transaction: int) -> bool:
    """Whether some row is at an address now, as a uniqueness check of this transaction finds it."""
    rows = {entry.row for entry in state.log}
    lasts = (last_of(state, row, transaction) for row in rows)
    return any(
        last is not None and last.after is not None and last.after.address == address for last in lasts
    )


def is_held(state: State, transaction: int, row: int, address: int) -> bool:
    """Whether a statement has to wait for another open transaction: for its row, or for an address it takes."""
    return any(
        entry.transaction != transaction
        and state.transactions[entry.transaction - 1] == RUNNING
        and (entry.row == row or (address and any(place.address == address for place in entry.places)))
        for entry in state.log
    )


def unseen(state: State, cursor: Snapshot, order: tuple[int, ...]) -> tuple[int, ...]:
    """Positions of the entries of these transactions that a snapshot did not see."""
    return tuple(
        position
        for position, entry in enumerate(state.log, 1)
        if entry.transaction in order and not sees(cursor, entry.transaction)
    )


def snapshot_after(state: State, order: tuple[int, ...]) -> Snapshot:
    """The snapshot that has seen these commits: all of them, unless it is a standby's."""
    ends = (
        RUNNING if end == COMMITTED and number not in order else end
        for number, end in enumerate(state.transactions, 1)
    )
    return snapshot_of(tuple(ends))


def touched(
    entries: Iterable[Entry], rows: Rows, keys: tuple[int, ...], off: frozenset[str]
) -> tuple[int, ...]:
    """The keys of the documents that these entries touch; those that show a changed parent are found in `rows`."""
    found: set[int] = set()
    for entry in entries:
        if Place() in entry.places:
            found.add(entry.row)
            if "found-in-snapshot" not in off:
                found |= {place.address for place, _ in rows.values() if place.parent == entry.row}
        addresses = entry.places[-1:] if "both-addresses" in off else entry.places
        parents = entry.places[-1:] if "both-parents" in off else entry.places
        found |= {place.address for place in addresses} | {place.parent for place in parents}
    return tuple(key for key in keys if key in found)


def bars_at(state: State, bars: list[int], keys: tuple[int, ...]) -> tuple[int, ...]:
    """The oldest states that are the same, for each document, as those of `bars`: they may be shown as well."""
    states = history(state.log, state.order, keys)
    lowest = list(bars)
    for at in range(len(bars)):
        while 1 < lowest[at] < len(states) and states[lowest[at] - 1][at] == states[lowest[at]][at]:
            lowest[at] -= 1
    return tuple(lowest)
