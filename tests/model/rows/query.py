"""What a query that starts now is shown, and whether it may be."""

from tests.model.rows import redis, sql
from tests.model.rows.config import Config
from tests.model.rows.state import NOBODY, Shown, State


def wrong(state: State, config: Config) -> str:
    """What is older than what an answer rested on, was never so, or is missing; or nothing."""
    if not state.lease:
        return ""
    generation = redis.find(state, state.lease)
    documents = generation.documents if generation else (None,) * config.addresses
    shown = tuple(document.shown if document else None for document in documents)
    for at, document in enumerate(documents, 1):
        lists = (document.shown.listed,) if document and document.shown else ()
        if document and document.lists != lists:
            return f"lists {list(document.lists)} name {at}, which belongs to {list(lists)}"
    states = sql.history(state.log, state.order, config.addresses)
    for at, bar in enumerate(state.bars):
        if all(each[at] != shown[at] for each in states[bar:]):
            return f"a query for {at + 1} is shown {_told(shown[at])}; SQL has {_told(states[-1][at])}"
    for row in {entry.row for entry in state.log} - {NOBODY}:
        lived_on = config.lists and all(row in _rows(each) for each in states[1:])
        if lived_on and row not in _rows(shown):
            return f"row {row}, which was never deleted, is at no address"
    return ""


def _rows(shown: tuple[Shown | None, ...]) -> set[int]:
    return {each.row for each in shown if each}


def _told(shown: Shown | None) -> str:
    return f"row {shown.row} of position {shown.position}" if shown else "nothing"
