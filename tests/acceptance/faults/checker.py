"""What is wrong in a history. Functions of the records alone; nothing is asked of any server.

The change log gives the true order of each key's states: positions of one key are in the order of its commits. A read
may show any state from the newest one that an answer vouched for before the read began, on to the newest one whose
command was begun before the read ended. Everything else is an anomaly: an older state is stale, another is invented.

Who vouches for a state, ``timelines.visible_from`` says: not only the command that made it, but every one that was
answered after it had built on it, or had told of it. For the state that a program beside the application has made the
time that it may take vouches: a lease after its commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from tests.acceptance.faults.history import (
    FRONT,
    FRONT_OWNERS,
    ITEM,
    MARKED,
    NESTED,
    NEVER,
    OWNER_OF,
    Entry,
    Get,
    History,
    LogRow,
    Page,
    Write,
    marks_of,
)
from tests.acceptance.faults.timelines import (
    ABSENT,
    NO_TIMELINE,
    State,
    Timeline,
    Timelines,
    timelines_of,
    visible_from,
    vouched_by_themselves,
)


class Anomaly(NamedTuple):
    """``kind`` is one of those in this module; ``key`` and ``at`` say where to look in the history."""

    kind: str
    entity: str
    key: str
    at: int
    text: str


def check(history: History) -> list[Anomaly]:
    """Every anomaly of the history, but for the state at its end (``check_end``)."""
    by_themselves = timelines_of(history, vouched_by_themselves(history))
    timelines = {
        (entity, key): timeline
        for family, owner in OWNER_OF.items()
        for (entity, key), timeline in timelines_of(
            history, visible_from(history, by_themselves, family)
        ).items()
        if entity in (family, owner)
    }
    return [
        *check_log(history),
        *check_writes(history),
        *(anomaly for write in history.writes.values() for anomaly in check_answer(write, by_themselves)),
        *check_failures(history),
        *(anomaly for get in history.gets for anomaly in check_get(get, timelines, history.writes)),
        *(anomaly for entity in OWNER_OF for anomaly in check_pages(history, timelines, entity)),
    ]


# The log and the commands


def check_log(history: History) -> Iterator[Anomaly]:
    """Whether the changes follow from each other: what is created was not there, what is changed was."""
    there: set[tuple[str, str]] = set()
    for row in history.log:
        old = None if row.old_key is None else (row.entity, row.old_key)
        new = None if row.kind == "deleted" else (row.entity, row.key)
        if (row.kind == "created") != (old is None) or (old is not None and old not in there):
            yield Anomaly("log out of order", row.entity, row.key, 0, f"{row} changes what is not there")
        there.discard(old or ("", ""))
        if new is not None:
            if new in there:
                yield Anomaly(
                    "log out of order", row.entity, row.key, 0, f"{row} makes what is there already"
                )
            there.add(new)


def check_writes(history: History) -> Iterator[Anomaly]:
    """Whether what was acknowledged is in the log, and what failed is not."""
    logged = {row.write for row in history.log}
    for write in history.writes.values():
        if write.outcome == "done" and write.number not in logged:
            yield _of_write("lost write", write, "was acknowledged and is not in the log")
        elif write.outcome in ("failed", "nothing") and write.number in logged:
            yield _of_write("unwanted write", write, f"ended with {write.outcome!r} and is in the log")
        elif write.outcome == "error":
            yield _of_write("unexpected error", write, write.note)


def check_answer(write: Write, timelines: Timelines) -> Iterator[Anomaly]:
    """Whether what an answer tells was there at some moment of its command."""
    for saw in write.saw or () if write.answered != NEVER else ():
        timeline = timelines.get((saw.entity, saw.key), NO_TIMELINE)
        if timeline.seen(saw, write) is None:
            told = f"told of {saw.entity} {saw.key!r}: {saw.value if saw.is_told else 'taken'!r}, which was not so"
            yield _of_write("impossible answer", write, told)


def _of_write(kind: str, write: Write, text: str) -> Anomaly:
    key = write.keys[0] if write.keys else ""
    return Anomaly(kind, write.entity, key, write.ended, f"write {write.number}, {write.kind}: {text}")


def check_failures(history: History) -> Iterator[Anomaly]:
    """Queries may fail only with what is documented for stores that are away."""
    for failure in history.failures:
        if not failure.expected:
            yield Anomaly(
                "unexpected error", ITEM, failure.key, failure.ended, f"{failure.kind}: {failure.error}"
            )


# Reads of documents


def check_get(get: Get, timelines: Timelines, writes: Mapping[int, Write]) -> Iterator[Anomaly]:
    """Whether a document, in each of its parts, is one that this read may show."""
    timeline = timelines.get((get.entity, get.key), NO_TIMELINE)
    told = f"{'joined' if get.joined else 'document'} {get.key!r} from {get.store} {get.reason}".rstrip()
    if get.is_aside:
        if all(state.fits for state in timeline.possible(get.begun, get.ended)):
            yield Anomaly(
                "set aside for nothing", get.entity, get.key, get.ended, f"{told}: does not fit, they say"
            )
        return
    if get.value is None:
        oldest = timeline.states[timeline.oldest_for(get.begun)]
        if oldest.value is not None and all(
            s.value is not None for s in timeline.possible(get.begun, get.ended)
        ):
            text = f"{told}: not found, though {_vouched(oldest)}"
            yield Anomaly("missing document", get.entity, get.key, get.ended, text)
        return
    if get.found != get.key:
        yield Anomaly(
            "crossed reply", get.entity, get.key, get.ended, f"{told}: the document of {get.found!r}"
        )
        return
    if fault := _fault_of(timeline, get.value, get.owner, get.begun, get.ended, writes):
        yield Anomaly(fault[0], get.entity, get.key, get.ended, f"{told}: {fault[1]}")
    if get.joined:
        owner = str(get.owner)
        names = timelines.get((OWNER_OF[get.entity], owner), NO_TIMELINE)
        if fault := _fault_of(names, get.owner_name or "", None, get.begun, get.ended, writes):
            yield Anomaly(
                fault[0], OWNER_OF[get.entity], owner, get.ended, f"{told}, its owner {owner}: {fault[1]}"
            )


def _fault_of(
    timeline: Timeline,
    value: int | str,
    owner: int | None,
    begun: int,
    ended: int,
    writes: Mapping[int, Write],
) -> tuple[str, str] | None:
    """What is wrong with a state that a read has shown: its kind and the facts; None if nothing is."""
    number = timeline.number_of(value, owner, ended)
    if number is None:
        return _invented(value, writes)
    state = timeline.states[number]
    if not state.fits:
        return "shown though it does not fit", f"{_named(state)}"
    if state.begun > ended:
        return "value before its write", f"{_named(state)} was begun after the read had ended"
    oldest = timeline.oldest_for(begun)
    if number >= oldest:
        return None
    newest = timeline.states[oldest]
    kind = "resurrected delete" if newest.value is None else "stale read"
    return kind, f"{_named(state)}, though {_vouched(newest)}"


def _invented(value: int | str, writes: Mapping[int, Write]) -> tuple[str, str]:
    write = writes.get(abs(_number_in(value)))
    if write is None:
        return "value never written", f"{value!r}, which nobody wrote"
    if write.outcome in ("failed", "unknown", "undone"):
        return (
            "value never committed",
            f"{value!r} of a write that ended with {write.outcome!r} and is not in the log",
        )
    return "value never written", f"{value!r}, which write {write.number} ({write.kind}) did not write there"


def _number_in(value: int | str) -> int:
    return value if isinstance(value, int) else int(value) if value.isdecimal() else -1


def _named(state: State) -> str:
    what = "the deletion" if state.value is None else repr(state.value)
    return f"{what} (position {state.position}, write {state.write})"


def _vouched(state: State) -> str:
    if state.by == state.write:
        return f"{_named(state)} was acknowledged before, or its time was over"
    return f"{_named(state)} was behind the answer to write {state.by}, which came before"


# Reads of lists


def place(order: str, entry: Entry) -> tuple[Any, ...]:
    """Where an entry stands in a list of this order."""
    key, value, owner = entry
    if order == "odd":
        return (0, -value, key) if value > 0 and value % 2 else (1, 0, key)
    owned = owner, -value, key
    return {"key": (key,), "owned": owned, NESTED: owned}.get(order, (value, key))


def has(order: str, value: int | str | None, owner: int | None) -> bool:
    """Whether a list has an item with this value and owner."""
    if order.startswith(MARKED):
        return isinstance(value, int) and int(order.removeprefix(MARKED)) in marks_of(value, owner or 0)
    return order != FRONT or (owner or 0) <= FRONT_OWNERS


def check_pages(history: History, timelines: Timelines, entity: str) -> Iterator[Anomaly]:
    """Whether each page of this entity shows what it must, and nothing else.

    The pages are taken in the order of their beginnings, and beside them goes, key by key, the oldest state that may
    still be shown: most keys need no look at more than that one.
    """
    items = {key: timeline for (of, key), timeline in timelines.items() if of == entity}
    oldest = dict.fromkeys(items, ABSENT)
    newest = dict.fromkeys(items, 0)
    acknowledged = sorted(
        (state.acknowledged, key, n)
        for key, timeline in items.items()
        for n, state in enumerate(timeline.states)
        if state.acknowledged != NEVER
    )
    following = iter((*acknowledged, (NEVER, "", 0)))
    at, key, number = next(following)
    pages = (page for page in history.pages if page.entity == entity)
    for page in sorted(pages, key=lambda page: page.begun):
        while at < page.begun:
            if number >= newest[key]:
                newest[key], oldest[key] = number, items[key].states[number]
            at, key, number = next(following)
        yield from _check_page(page, items, oldest, history.writes)


def _check_page(
    page: Page, items: Mapping[str, Timeline], oldest: Mapping[str, State], writes: Mapping[int, Write]
) -> Iterator[Anomaly]:
    told = f"page by {page.order} after {page.after}, limit {page.limit}, from {page.store} {page.reason}".rstrip()
    shown = {entry.key for entry in page.entries}
    yield from _check_shape(page, told)
    for entry in page.entries:
        timeline = items.get(entry.key, NO_TIMELINE)
        if fault := _fault_of(timeline, entry.value, entry.owner, page.begun, page.ended, writes):
            kind = {"stale read": "stale entry", "resurrected delete": "deleted entry"}.get(
                fault[0], fault[0]
            )
            yield Anomaly(kind, page.entity, entry.key, page.ended, f"{told}: {entry.key!r} as {fault[1]}")
    for key, state in oldest.items():
        if state.value is None or not state.fits or key in shown or not _covers(page, key, state):
            continue
        states = items[key].possible(page.begun, page.ended)
        if all(state.value is not None and state.fits and _covers(page, key, state) for state in states):
            text = f"{told}: {key!r} is not on it, though {_vouched(state)}"
            yield Anomaly("missing entry", page.entity, key, page.ended, text)
    yield from _check_set_aside(page, told, items)
    yield from _check_total(page, told, items)


def _check_total(page: Page, told: str, items: Mapping[str, Timeline]) -> Iterator[Anomaly]:
    """Whether the page counts the rows that are there, those that do not fit among them."""
    if page.total is None:
        return
    least = most = 0
    for timeline in items.values():
        selected = [_selects(page, state) for state in timeline.possible(page.begun, page.ended)]
        most += any(selected)
        least += all(selected)
    if not least <= page.total <= most:
        text = f"{told}: {page.total} in all, and not {least} to {most}"
        yield Anomaly("wrong total", page.entity, "", page.ended, text)


def _check_set_aside(page: Page, told: str, items: Mapping[str, Timeline]) -> Iterator[Anomaly]:
    """Whether the page counts rows that do not fit: those that must be on it, and none that can't be.

    The document of an owner has no place for them.
    """
    if page.order == NESTED:
        return
    least = most = 0
    for key, timeline in items.items():
        if not timeline.has_misfits:
            continue
        possible = list(timeline.possible(page.begun, page.ended))
        most += any(not state.fits for state in possible)
        least += all(not state.fits and _covers(page, key, state) for state in possible)
    if not least <= page.set_aside <= most:
        text = f"{told}: {page.set_aside} set aside, and not {least} to {most}"
        yield Anomaly("wrong number set aside", page.entity, "", page.ended, text)


def _check_shape(page: Page, told: str) -> Iterator[Anomaly]:
    places = [place(page.order, entry) for entry in page.entries]
    if page.after is not None:
        places.insert(0, place(page.order, page.after))
    faults = {
        "its entries are not in order": any(b <= a for a, b in pairwise(places)),
        "it is longer than asked for": len(page.entries) + page.set_aside > page.limit,
        "it says that more follow, but is not full": page.more
        and len(page.entries) + page.set_aside < page.limit,
        "it has an item of another owner, or mark": any(
            page.owner not in (None, entry.owner) or not has(page.order, entry.value, entry.owner)
            for entry in page.entries
        ),
    }
    for fault, is_there in faults.items():
        if is_there:
            yield Anomaly(
                "malformed page",
                page.entity,
                page.entries[0].key if page.entries else "",
                page.ended,
                f"{told}: {fault}",
            )


def _covers(page: Page, key: str, state: State) -> bool:
    """Whether an entry with this state would stand on the page."""
    if not isinstance(state.value, int) or not _selects(page, state):
        return False
    found = place(page.order, Entry(key, state.value, state.owner or 0))
    if page.after is not None and found <= place(page.order, page.after):
        return False
    last = page.entries[-1] if page.entries else None
    return not page.more or last is None or found < place(page.order, last)


def _selects(page: Page, state: State) -> bool:
    """Whether a row in this state is one of those that were asked for."""
    if state.value is None or page.owner not in (None, state.owner):
        return False
    if page.order == NESTED and not state.fits:
        return False
    return has(page.order, state.value, state.owner)


# The end


class Ending(NamedTuple):
    """What each place holds of an entity when all has come to rest, by key; ``joined`` with the owner's name.

    ``nested`` are the owners' documents, of each the name and the items; ``by_total`` are the owners in the order of
    their list.
    """

    rows: Mapping[str, Entry]
    owners: Mapping[str, str]
    documents: Mapping[str, Entry]
    joined: Mapping[str, tuple[Entry, str | None]] | None
    lists: Mapping[str, Sequence[Entry]]
    entity: str = ITEM
    nested: Mapping[str, tuple[str, Sequence[Entry]]] | None = None
    by_total: Sequence[str] = ()


def check_end(log: Iterable[LogRow], ending: Ending) -> Iterator[Anomaly]:
    """Whether SQL's rows are what their log amounts to, and documents and lists in Redis are the same."""
    entity, owner_entity = ending.entity, OWNER_OF[ending.entity]
    items: dict[str, Entry] = {}
    owners: dict[str, str] = {}
    for row in log:
        if row.entity == owner_entity:
            owners.pop(row.old_key or "", None)
            owners |= {row.key: str(row.value)} if row.kind != "deleted" else {}
        elif row.entity == entity:
            items.pop(row.old_key or "", None)
            if row.kind != "deleted":
                items[row.key] = Entry(row.key, int(row.value), row.owner or 0)
    yield from _differ("rows and log", entity, ending.rows, items)
    yield from _differ("rows and log", owner_entity, ending.owners, owners)
    fitting = {key: row for key, row in ending.rows.items() if row.value >= 0}
    yield from _differ("documents and rows", entity, ending.documents, fitting)
    for order, entries in ending.lists.items():
        listed = {key: row for key, row in fitting.items() if has(order, row.value, row.owner)}
        yield from _differ(f"list by {order} and rows", entity, {e.key: e for e in entries}, listed)
        if list(entries) != sorted(entries, key=lambda entry: place(order, entry)):
            yield Anomaly("different at the end", entity, "", 0, f"the list by {order} is not in order")
    if ending.joined is not None:
        wanted = {key: (row, ending.owners.get(str(row.owner))) for key, row in fitting.items()}
        yield from _differ("joined documents and rows", entity, ending.joined, wanted)
    if ending.nested is not None:
        yield from _check_nested(ending, ending.nested, fitting.values())


def _check_nested(
    ending: Ending, nested: Mapping[str, tuple[str, Sequence[Entry]]], fitting: Iterable[Entry]
) -> Iterator[Anomaly]:
    """Whether the owners' documents have the rows' items, and stand in the order of the sums."""
    entity = OWNER_OF[ending.entity]
    wanted: dict[str, tuple[str, list[Entry]]] = {key: (name, []) for key, name in ending.owners.items()}
    for entry in sorted(fitting, key=lambda entry: place(NESTED, entry)):
        wanted[str(entry.owner)][1].append(entry)
    yield from _differ("owners' documents and rows", entity, nested, wanted)
    order = sorted(wanted, key=lambda key: (-sum(e.value for e in wanted[key][1]), int(key)))
    if list(ending.by_total) != order:
        text = f"the owners by the sums of values are {ending.by_total}, and not {order}"
        yield Anomaly("different at the end", entity, "", 0, text)


def _differ(what: str, entity: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[Anomaly]:
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            text = f"{what}: {found.get(key)} is not {wanted.get(key)}"
            yield Anomaly("different at the end", entity, key, 0, text)
