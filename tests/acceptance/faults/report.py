"""A run, and each anomaly in it, told for a terminal."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tests.acceptance.faults.checker import Anomaly
from tests.acceptance.faults.history import CATCH_UP, NEVER, OWNER_OF, Get, History, Page, process_of
from tests.acceptance.faults.staleness import staleness
from tests.acceptance.faults.timelines import timelines_of

_AROUND_NS = 700_000_000
_LINES = 24


class OnSql(NamedTuple):
    """For how many seconds SQL answered queries because of one fault: while it lasted, and from its end on."""

    name: str
    during_s: float
    after_s: float


def on_sql(history: History) -> list[OnSql]:
    """For each fault of a run. A process that has no Redis does not count."""
    reads: list[Get | Page] = [*history.gets, *history.pages]
    asked = sorted(read.ended for read in reads if read.store == "sql" and read.reason != "no-redis")
    faults = sorted(history.faults, key=lambda fault: fault.begun)
    found = []
    for fault in faults:
        end = min((other.begun for other in faults if other.begun > fault.healed), default=NEVER)
        during = [at for at in asked if fault.begun < at <= fault.healed]
        after = [at for at in asked if fault.healed < at < end]
        lasted = (during[-1] - during[0]) / 1e9 if during else 0.0
        found.append(OnSql(fault.name, lasted, (after[-1] - fault.healed) / 1e9 if after else 0.0))
    return found


def summary(histories: Sequence[History]) -> str:
    """Operations, changes by programs, faults by kind, and how long queries ran on SQL after each."""
    counts: Counter[str] = Counter()
    for history in histories:
        for get in history.gets:
            counts[f"{'joined' if get.joined else 'document'} from {get.store}"] += 1
        for page in history.pages:
            counts[f"page from {page.store}"] += 1
        for write in history.writes.values():
            by = "catch_up" if write.kind == CATCH_UP else "program" if write.is_foreign else "command"
            counts[f"{by}: {write.outcome}"] += 1
        counts["query: failed, as documented"] += sum(failure.expected for failure in history.failures)
    total = sum(history.operations for history in histories)
    lines = [
        f"{total:,} operations",
        *(f"  {count:>9,}  {what}" for what, count in sorted(counts.items()) if count),
    ]
    lines.append(str(staleness(histories)))
    return "\n".join([*lines, *_faults_told([times for history in histories for times in on_sql(history)])])


def _faults_told(times: list[OnSql]) -> Iterator[str]:
    yield f"{len(times)} faults; queries on SQL, in seconds:     while it lasts          after it"
    yield f"  {'':62} median  worst   median  worst"
    for name in sorted({time.name for time in times}):
        during = [time.during_s for time in times if time.name == name]
        after = [time.after_s for time in times if time.name == name]
        figures = (statistics.median(during), max(during), statistics.median(after), max(after))
        yield f"  {len(during):>3} × {name[:56]:56} " + "  ".join(f"{figure:6.2f}" for figure in figures)


def told(anomaly: Anomaly, history: History) -> str:
    """The anomaly, and what happened to its key around its time."""
    lines = [f"{anomaly.kind}: {anomaly.entity} {anomaly.key!r}: {anomaly.text}"]
    if anomaly.key:
        around = sorted(_around(anomaly, history))
        near = sorted(sorted(around, key=lambda line: abs(line[0] - anomaly.at))[:_LINES])
        lines += [f"    {(at - anomaly.at) / 1e6:+10.2f} ms  {line}" for at, line in near]
    return "\n".join(lines)


def told_all(anomalies: Iterable[Anomaly], history: History, most: int = 8) -> str:
    """How many of each kind, and the first few in full."""
    anomalies = list(anomalies)
    kinds = Counter(anomaly.kind for anomaly in anomalies)
    shown = sorted(anomalies, key=lambda anomaly: anomaly.at)[:most]
    counts = ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common())
    return "\n\n".join(
        [f"{len(anomalies)} anomalies: {counts}", *(told(anomaly, history) for anomaly in shown)]
    )


def _around(anomaly: Anomaly, history: History) -> Iterator[tuple[int, str]]:
    for fault in history.faults:
        if fault.begun - _AROUND_NS < anomaly.at < fault.healed + 5 * _AROUND_NS:
            yield fault.begun, f"FAULT {fault.name} begins"
            yield fault.healed, f"FAULT {fault.name} is over"
    yield from _writes_around(anomaly, history)
    for get in history.gets:
        if _shows(get, anomaly) and _near(get.ended, anomaly):
            kind = "joined" if get.joined else "get"
            text = f"{kind} by process {get.process} since {_before(get.begun, get.ended)}: {get.value}"
            owner = f"of owner {get.owner} {get.owner_name or ''}".rstrip()
            yield get.ended, f"{text} {owner} from {get.store} {get.reason}".rstrip()
    for page in history.pages:
        if anomaly.entity == page.entity and _near(page.ended, anomaly):
            entry = next((entry for entry in page.entries if entry.key == anomaly.key), None)
            if entry is not None:
                text = (
                    f"page by process {page.process} since {_before(page.begun, page.ended)}: {entry.value}"
                )
                yield page.ended, f"{text} of owner {entry.owner} from {page.store} {page.reason}".rstrip()


def _writes_around(anomaly: Anomaly, history: History) -> Iterator[tuple[int, str]]:
    timeline = timelines_of(history, {}).get((anomaly.entity, anomaly.key))
    for state in timeline.states[1:] if timeline is not None else ():
        write = history.writes.get(state.write)
        if write is None or not (_near(write.begun, anomaly) or _near(write.ended, anomaly)):
            continue
        what = f"{write.kind} {write.number} (process {process_of(write.number)}, position {state.position})"
        yield write.begun, f"{what} begins: {'deletes' if state.value is None else state.value}"
        if write.ended != NEVER:
            yield write.ended, f"{what} ends: {write.outcome} {write.note}".rstrip()


def _shows(get: Get, anomaly: Anomaly) -> bool:
    if anomaly.entity == OWNER_OF[get.entity]:
        return get.joined and str(get.owner) == anomaly.key
    return get.entity == anomaly.entity and get.key == anomaly.key


def _near(at: int, anomaly: Anomaly) -> bool:
    return abs(at - anomaly.at) < _AROUND_NS


def _before(begun: int, ended: int) -> str:
    return f"{(begun - ended) / 1e6:.2f} ms"


def kinds_of(anomalies: Iterable[Anomaly]) -> set[str]:
    """Which kinds there are."""
    return {anomaly.kind for anomaly in anomalies}
