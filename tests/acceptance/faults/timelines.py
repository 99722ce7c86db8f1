"""The states of each key in the order of the log, and from when on every query has to show them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from tests.acceptance.faults.history import AUDIT, NEVER, History, Saw, Write


class State(NamedTuple):
    """A key from one position of the log to its next. ``value`` None: there is no row with this key.

    ``acknowledged``: from then on queries have to show it, or a later one, since write ``by`` was answered.
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
        self._of_value: dict[tuple[Any, Any], int] = {}
        for n, state in enumerate(self.states):
            if state.value is not None:
                self._of_value[state.value, state.owner] = n

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
            number = self.number_of(saw.value, saw.owner)
            is_possible = number is not None and number >= self.oldest_for(write.begun)
            return number if is_possible and self.states[number or 0].begun <= write.ended else None
        for number in self._possible(write.begun, write.ended):
            if (self.states[number].value is None) == saw.is_told:
                return number
        return None

    def number_of(self, value: int | str, owner: int | None) -> int | None:
        """Which state has this value, if any ever had."""
        return self._of_value.get((value, owner))


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


def visible_from(history: History, timelines: Timelines) -> dict[int, Vouched]:
    """For each write the time from which on every query has to show all of it.

    That is when it was acknowledged, or earlier: when a command was answered that rests on it. A command rests on
    what it has found under the keys that it has changed, and on what its answer tells, be that an error; and on what
    those commands rest on in their turn. ``timelines`` are those in which each command vouches for itself alone.
    """
    known = vouched_by_themselves(history)
    found = _found_by(history, timelines)
    # Who rests on a write began it after its commit, and so has drawn later positions: each is complete before it is
    # handed on. Those who have changed nothing come first, as nobody rests on them.
    last = {row.write: row.position for row in history.log}
    for number in sorted(found, key=lambda number: last.get(number, NEVER), reverse=True):
        write = history.writes[number]
        answered = min(known[number], Vouched(write.answered, number))
        for other in found[number]:
            if other in known and other != number:
                known[other] = min(known[other], answered)
    return known


def vouched_by_themselves(history: History) -> dict[int, Vouched]:
    """As ``visible_from``, of the answers to the writes themselves alone."""
    return {number: Vouched(write.acknowledged, number) for number, write in history.writes.items()}


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
