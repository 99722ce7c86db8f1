"""For how long queries have missed the changes by programs beside the application.

A change is missed by a query that began after its commit had returned and shows an earlier state of the same row: as
a document, as a part of a joined document, or on a page. (That a page lacks an entry is for the checker to judge.)
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tests.acceptance.faults.history import OWNER_OF, History, Write
from tests.acceptance.faults.timelines import Timeline, timelines_of, vouched_by_themselves


class Shown(NamedTuple):
    """What a query of this time has shown of a row; ``value`` None: that there is none."""

    entity: str
    key: str
    value: int | str | None
    owner: int | None
    begun: int
    ended: int


class Staleness(NamedTuple):
    """For each change by a program the time from its commit to the last query that missed it, 0 if none did."""

    seconds: Sequence[float]
    lease_s: float

    def __str__(self) -> str:
        if not self.seconds:
            return "no changes by programs beside the application"
        never = sum(second == 0 for second in self.seconds)
        return (
            f"{len(self.seconds):,} changes by programs beside the application; after their commit queries missed "
            f"them for {statistics.median(self.seconds):.3f} s (median), {max(self.seconds):.3f} s (worst), "
            f"with leases of {self.lease_s:g} s; {never:,} were never missed"
        )


def staleness(histories: Sequence[History]) -> Staleness:
    """Of all changes by programs that were ``missed``, for some time or for none, in these histories."""
    lease = [write.grace for history in histories for write in history.writes.values()]
    seconds = [time / 1e9 for history in histories for time in history.missed.values()]
    return Staleness(seconds, max(lease, default=0) / 1e9)


def missed(history: History) -> dict[int, int]:
    """For how many nanoseconds queries missed each change by a program that was committed for sure."""
    writes = history.writes.items()
    foreign = {number: write for number, write in writes if write.is_foreign and write.outcome == "done"}
    timelines = timelines_of(history, vouched_by_themselves(history))
    found = {row.write: 0 for row in history.log if row.write in foreign}
    for shown in _shown(history):
        timeline = timelines.get((shown.entity, shown.key))
        for write in _missed_by(shown, timeline, foreign) if timeline is not None else ():
            found[write.number] = max(found[write.number], shown.begun - write.ended)
    return found


def _shown(history: History) -> Iterator[Shown]:
    for get in history.gets:
        if get.is_aside:
            continue
        yield Shown(get.entity, get.key, get.value, get.owner, get.begun, get.ended)
        if get.joined and get.value is not None:
            owner = OWNER_OF[get.entity]
            yield Shown(owner, str(get.owner), get.owner_name, None, get.begun, get.ended)
    for page in history.pages:
        for entry in page.entries:
            yield Shown(page.entity, entry.key, entry.value, entry.owner, page.begun, page.ended)


def _missed_by(shown: Shown, timeline: Timeline, foreign: Mapping[int, Write]) -> Iterator[Write]:
    if shown.value is None:
        number: int | None = timeline.newest_absent(shown.ended)
    else:
        number = timeline.number_of(shown.value, shown.owner, shown.ended)
    for state in timeline.later(number, shown.begun) if number is not None else ():
        write = foreign.get(state.write)
        if write is not None and write.ended < shown.begun:
            yield write
