"""The SQL server of this model: rows, addresses and who is at them."""

from functools import lru_cache

from tests.model.rows.state import NOBODY, Entry, Shown, State
from tests.model.sql import sees
from tests.model.state import COMMITTED, RUNNING, Snapshot

Addresses = tuple[Shown | None, ...]


@lru_cache(maxsize=100_000)
def history(log: tuple[Entry, ...], order: tuple[int, ...], addresses: int) -> tuple[Addresses, ...]:
    """Who is shown at each address after so many commits; the first, before any, is of an empty table."""
    rows: dict[int, tuple[int, Shown]] = {}
    states: list[Addresses] = [(None,) * addresses]
    for transaction in order:
        for position, entry in enumerate(log, 1):
            if entry.transaction == transaction and entry.row != NOBODY:
                shown = Shown(entry.row, position, entry.fits, entry.listed)
                rows[entry.row] = entry.new if entry.listed else 0, shown
        at: list[Shown | None] = [None] * (addresses + 1)
        for address, shown in rows.values():
            at[address] = shown
        states.append(tuple(at[1:]))
    return tuple(states)


def last_of(state: State, row: int, transaction: int) -> Entry | None:
    """The newest entry of a row that is committed or of this transaction."""
    for entry in reversed(state.log):
        if entry.row == row and (entry.transaction == transaction or is_committed(state, entry)):
            return entry
    return None


def holder(state: State, address: int, transaction: int) -> int:
    """Who is at an address now, as a uniqueness check of this transaction finds it."""
    for row in {entry.row for entry in state.log} - {NOBODY}:
        last = last_of(state, row, transaction)
        if last and last.new == address:
            return row
    return NOBODY


def is_committed(state: State, entry: Entry) -> bool:
    """Whether its transaction is."""
    return state.transactions[entry.transaction - 1] == COMMITTED


def is_held(state: State, transaction: int, row: int, address: int) -> bool:
    """Whether a statement has to wait for another open transaction: for its row, or for an address it names."""
    return any(
        entry.transaction != transaction
        and state.transactions[entry.transaction - 1] == RUNNING
        and ((row and entry.row == row) or (address and address in (entry.old, entry.new)))
        for entry in state.log
    )


def unseen(state: State, cursor: Snapshot) -> tuple[int, ...]:
    """Positions of the committed entries of the read model's table that a cursor did not see."""
    return tuple(
        position
        for position, entry in enumerate(state.log, 1)
        if entry.row != NOBODY
        and position not in state.forgotten
        and is_committed(state, entry)
        and not sees(cursor, entry.transaction)
    )


def bars_at(state: State, bars: list[int]) -> tuple[int, ...]:
    """The oldest states that are the same, at each address, as those of `bars`: they may be shown as well."""
    states = history(state.log, state.order, len(bars))
    lowest = list(bars)
    for at in range(len(bars)):
        while 1 < lowest[at] < len(states) and states[lowest[at] - 1][at] == states[lowest[at]][at]:
            lowest[at] -= 1
    return tuple(lowest)
