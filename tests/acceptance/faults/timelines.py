"""The states of each key in the order of the log, and from when on every query has to show them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from tests.acceptance.faults.history import (
    AUDIT,
    CATCH_UP,
    ITEM,
    NEVER,
    OWNER_OF,
    UNSEEN,
    History,
    Saw,
    Write,
)


class State(NamedTuple):
    """A key from one position of the log to its next. ``value`` None: there is no row with this key.

    ``acknowledged``: from then on queries have to show it, or a later one, since write ``by`` was answered, or was
    committed a lease ago.
    """

    position: int
    value: int | str | None
    owner: int | None
    write: int
    begun: int
    acknowledged: int
    by: int

    @property
    def fits(self) -> bool:
        """Whether the row fits its document: a value that is less than 0 does not."""
        return not (isinstance(self.value, int) and self.value < 0)


class Vouched(NamedTuple):
    """From when on every query has to show a write, and whose answer makes it so."""

    at: int
    by: int


ABSENT = State(0, None, None, 0, 0, 0, 0)


class Timeline:
    """The states of one key in the order of the log, and which of them a read may show."""

    def __init__(self, states: Sequence[State]) -> None:
        self.states = (ABSENT, *states)
        acknowledged = sorted((state.acknowledged, n) for n, state in enumerate(self.states))
        self._times = [at for at, _ in acknowledged if at != NEVER]
        self._newest: list[int] = []
        for _, n in acknowledged[: len(self._times)]:
            self._newest.append(max(n, self._newest[-1]) if self._newest else n)
        # From here on all states were begun after …: a search for what a read may show ends there.
        self._begun_after = [state.begun for state in self.states]
        for n in range(len(self.states) - 2, -1, -1):
            self._begun_after[n] = min(self._begun_after[n], self._begun_after[n + 1])
        self.has_misfits = not all(state.fits for state in self.states)
        self._of_value: dict[tuple[Any, Any], list[int]] = {}
        for n, state in enumerate(self.states):
            if state.value is not None:
                self._of_value.setdefault((state.value, state.owner), []).append(n)

    def oldest_for(self, begun: int) -> int:
        """Which state is the oldest that a read begun then may show."""
        return self._newest[bisect_left(self._times, begun) - 1]

    def possible(self, begun: int, ended: int) -> Iterator[State]:
        """What a read of this time may show."""
        return (self.states[n] for n in self._possible(begun, ended))

    def _possible(self, begun: int, ended: int) -> Iterator[int]:
        for n in range(self.oldest_for(begun), len(self.states)):
            if self._begun_after[n] > ended:
                return
            if self.states[n].begun <= ended:
                yield n

    def seen(self, saw: Saw, write: Write) -> int | None:
        """The oldest state that the command can have found, if what it tells of it is true; else None."""
        if saw.is_told and saw.value is not None:
            oldest = self.oldest_for(write.begun)
            numbers = self._of_value.get((saw.value, saw.owner), ())
            possible = (n for n in numbers if n >= oldest and self.states[n].begun <= write.ended)
            return next(possible, None)
        for number in self._possible(write.begun, write.ended):
            if (self.states[number].value is None) == saw.is_told:
                return number
        return None

    def later(self, number: int, at: int) -> Iterator[State]:
        """The states after this one that were begun by that time."""
        there = range(number + 1, bisect_right(self._begun_after, at))
        return (self.states[n] for n in there if self.states[n].begun <= at)

    def newest_absent(self, ended: int) -> int:
        """The newest state without a row that was begun by that time."""
        there = range(bisect_right(self._begun_after, ended) - 1, 0, -1)
        return next((n for n in there if self.states[n].value is None and self.states[n].begun <= ended), 0)

    def number_of(self, value: int | str, owner: int | None, ended: int) -> int | None:
        """Which state has this value, if any ever had: of several the newest that was begun before ``ended``."""
        numbers = self._of_value.get((value, owner), ())
        begun = (n for n in reversed(numbers) if self.states[n].begun <= ended)
        return next(begun, numbers[-1] if numbers else None)


Timelines = Mapping[tuple[str, str], Timeline]
NO_TIMELINE = Timeline([])


def timelines_of(history: History, vouched: Mapping[int, Vouched]) -> dict[tuple[str, str], Timeline]:
    """By entity and key. A change of the key ends one row's time under the old one and begins it under the new.

    What ``vouched`` lacks is a write that no query has to show.
    """
    states: dict[tuple[str, str], list[State]] = {}
    for row in history.log:
        if row.entity == AUDIT:
            continue
        write = history.writes.get(row.write)
        begun = write.begun if write else 0
        known = vouched.get(row.write, Vouched(NEVER, 0))
        if row.old_key is not None and (row.kind == "deleted" or row.old_key != row.key):
            gone = State(row.position, None, None, row.write, begun, *known)
            states.setdefault((row.entity, row.old_key), []).append(gone)
        if row.kind != "deleted":
            state = State(row.position, row.value, row.owner, row.write, begun, *known)
            states.setdefault((row.entity, row.key), []).append(state)
    return {key: Timeline(found) for key, found in states.items()}


def visible_from(history: History, timelines: Timelines, family: str = ITEM) -> dict[int, Vouched]:
    """For each write the time from which on every query has to show its changes of the entities of a family.

    That is when it was acknowledged (a lease after its commit, if a program made it), or earlier: when a command was
    answered that rests on it, or a ``catch_up`` that had begun after its commit. A command rests on what it has found
    under the keys that it has changed, and on what its answer tells, be that an error; and on what those commands
    rest on in their turn. A command can have found nothing in tables that it has not touched: it vouches for changes
    of the entities that it has changed, or tells of, and of those that they are joined to. ``timelines`` are those in
    which each command vouches for itself alone.
    """
    touched = _touched_by(history)
    known = vouched_by_themselves(history)
    _catch_up(history, known)
    found = _found_by(history, timelines)
    # Who rests on a write began it after its commit, and so has drawn later positions: each is complete before it is
    # handed on. Those who have changed nothing come first, as nobody rests on them.
    last = {row.write: row.position for row in history.log}
    for number in sorted(found, key=lambda number: last.get(number, NEVER), reverse=True):
        write = history.writes[number]
        answered = min(known[number], Vouched(write.answered, number))
        for other in found[number] if (number, family) in touched else ():
            if other in known and other != number and history.writes[other].kind != UNSEEN:
                known[other] = min(known[other], answered)
    return known


def vouched_by_themselves(history: History) -> dict[int, Vouched]:
    """As ``visible_from``, of the answers to the writes themselves alone."""
    return {number: Vouched(write.acknowledged, number) for number, write in history.writes.items()}


def _touched_by(history: History) -> set[tuple[int, str]]:
    """The writes, each with the families of the entities that it has changed or tells of."""
    family_of = {owner: item for item, owner in OWNER_OF.items()}
    changed = ((row.write, row.entity) for row in history.log)
    told = ((write.number, saw.entity) for write in history.writes.values() for saw in write.saw or ())
    return {(number, family_of.get(entity, entity)) for number, entity in (*changed, *told)}


def _catch_up(history: History, known: dict[int, Vouched]) -> None:
    """Has each ``catch_up`` vouch for what programs had committed when it began."""
    calls = sorted(
        (write.begun, Vouched(write.answered, write.number))
        for write in history.writes.values()
        if write.kind == CATCH_UP and write.answered != NEVER
    )
    times = [begun for begun, _ in calls]
    # Of the calls from each one on, the one that was answered first.
    first = list(accumulate((vouched for _, vouched in reversed(calls)), min))[::-1]
    for number, write in history.writes.items():
        if write.is_foreign and write.outcome == "done" and write.kind != UNSEEN:
            later = bisect_left(times, write.ended)
            if later < len(first):
                known[number] = min(known[number], first[later])


def _found_by(history: History, timelines: Timelines) -> dict[int, set[int]]:
    """For each write those whose changes it has found, directly."""
    found: dict[int, set[int]] = {}
    for timeline in timelines.values():
        for before, state in pairwise(timeline.states):
            write = history.writes.get(state.write)
            if before.write and write is not None and write.saw is not None:
                found.setdefault(state.write, set()).add(before.write)
    for number, write in history.writes.items():
        for saw in write.saw or () if write.answered != NEVER else ():
            timeline = timelines.get((saw.entity, saw.key), NO_TIMELINE)
            seen = timeline.seen(saw, write)
            if seen is not None and timeline.states[seen].write:
                found.setdefault(number, set()).add(timeline.states[seen].write)
    return found
