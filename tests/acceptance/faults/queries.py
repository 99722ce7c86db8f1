"""The queries that are asked of each entity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from diptych import Query
from tests.acceptance.faults import application as app
from tests.acceptance.faults.history import FRONT, ITEM, MARKED, MARKS, OPEN_ITEM
from tests.acceptance.faults.open_items import (
    GetOpenItem,
    GetOwnedOpenItem,
    ListMarkedOpenItems,
    ListOpenItems,
)

OWNED = "owned"
"""The list of which a page has the items of one owner."""

LISTS = ("key", "value", "odd", OWNED, FRONT)
"""The names of the lists of each entity."""

LISTS_OF = {ITEM: LISTS, OPEN_ITEM: (*LISTS, *(f"{MARKED} {number}" for number in range(MARKS)))}
"""The same with those of a single entity."""


def _open_page(
    order: str, limit: int, after: str | None = None, owner: int | None = None, count: bool = False
) -> Query[Any]:
    if order.startswith(MARKED):
        return ListMarkedOpenItems(int(order.removeprefix(MARKED)), limit, after, count)
    return ListOpenItems(order, limit, after, owner, count)


class Queries(NamedTuple):
    """A document by its key, plain or joined, and a page of a list; ``names`` is what processes call these three."""

    get: Callable[[str], Query[Any]]
    joined: Callable[[str], Query[Any]]
    page: Callable[..., Query[Any]]
    names: tuple[str, str, str]


QUERIES: Mapping[str, Queries] = {
    ITEM: Queries(app.GetItem, app.GetOwnedItem, app.ListItems, ("get", "joined", "page")),
    OPEN_ITEM: Queries(GetOpenItem, GetOwnedOpenItem, _open_page, ("open-get", "open-joined", "open-page")),
}
