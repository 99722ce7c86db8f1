"""Redis in this model: what scripts write, and what a query or a check finds."""

from collections.abc import Iterable

from tests.model.rows.state import Document, Entry, Generation, Message, Shown, State, Write


def writes_of(
    log: tuple[Entry, ...],
    positions: Iterable[int],
    off: frozenset[str],
    there: tuple[Shown | None, ...] = (),
    again: bool = False,
) -> tuple[Write, ...]:
    """What entries, taken in their order, set at each address that they name: one write for each.

    `there` are the rows that were read again, for entries without an image, or for all of them with `again`.
    """
    writes: dict[int, Write] = {}
    for position in positions:
        entry = log[position - 1]
        if not entry.fits and "set-aside-written" in off:
            continue
        if not entry.listed and "left-out-written" in off:
            continue
        for address in (entry.old, entry.new):
            if address:
                shown = _shown(entry, position) if address == entry.new else None
                if there and (again or not entry.image) and not ("read-both" in off and address == entry.old):
                    shown = there[address - 1]
                writes[address] = Write(address, position, entry.transaction, shown)
        if "former-address" in off and entry.new:
            writes.pop(entry.old if entry.old != entry.new else 0, None)
    return tuple(writes.values())


def writes_by_row(log: tuple[Entry, ...], positions: Iterable[int]) -> tuple[Write, ...]:
    """A dropped rule: the last entry of each row, at each address at which the row was and is."""
    last = {log[position - 1].row: position for position in positions}
    writes: dict[int, Write] = {}
    for position in positions:
        entry = log[position - 1]
        stamp, end = last[entry.row], log[last[entry.row] - 1].new
        for address in {entry.old, entry.new} - {0}:
            shown = _shown(entry, stamp) if address == end else None
            if address not in writes or writes[address].stamp < stamp:
                writes[address] = Write(address, stamp, entry.transaction, shown)
    return tuple(writes.values())


def _shown(entry: Entry, position: int) -> Shown | None:
    return Shown(entry.row, position, entry.fits, entry.listed) if entry.listed else None


def find(state: State, name: int) -> Generation | None:
    """The generation, if its marker is there."""
    for generation in state.generations:
        if generation.name == name:
            return generation
    return None


def execute(state: State, message: Message, off: frozenset[str]) -> tuple[State, bool]:
    """Runs a script: whether it was accepted, which is whether the generation is there."""
    generation = find(state, message.generation)
    if generation is None:
        return state, False
    documents = list(generation.documents)
    for write in message.writes:
        if write.transaction >= generation.floor or "floor" in off:
            stored = documents[write.address - 1]
            documents[write.address - 1] = _put(stored, write, message.horizon, off)
    return put(state, generation._replace(documents=tuple(documents))), True


def _put(stored: Document | None, write: Write, horizon: int, off: frozenset[str]) -> Document | None:
    if write.shown is None:
        # Only who has a snapshot that saw the deletion knows when the tombstone may go.
        new = Document(write.stamp, None, horizon)
    else:
        stamp = 0 if "set-aside-stamp" in off and not write.shown.fits else write.stamp
        new = Document(stamp, write.shown, lists=(write.shown.listed,))
    if stored and "former-entry" in off:
        new = new._replace(lists=tuple(sorted({*stored.lists, *new.lists})))
    if stored is None or write.stamp > stored.stamp or "stamps" in off:
        return None if "tombstones" in off and write.shown is None else new
    if write.stamp == stored.stamp and stored.shown is None and write.shown is None and horizon:
        return new
    return new if write.stamp == stored.stamp and "equal-stamps" in off else stored


def put(state: State, generation: Generation) -> State:
    """The state with this generation in place of the one of its name."""
    rest = [other for other in state.generations if other.name != generation.name]
    return state._replace(generations=tuple(sorted([*rest, generation], key=lambda each: each.name)))


def is_in(generation: Generation, position: int, entry: Entry, off: frozenset[str]) -> bool:
    """Whether an entry is in: its transaction is below the floor, or nothing older stands where it was and is."""
    if entry.transaction < generation.floor:
        return True
    addresses = {entry.new or entry.old} if "both-addresses" in off else {entry.old, entry.new} - {0}
    found = [generation.documents[address - 1] for address in addresses]
    return all(document is not None and document.stamp >= position for document in found)
