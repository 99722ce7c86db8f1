"""The queries that are asked of each entity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from diptych import Query
from tests.acceptance.faults import application as app
from tests.acceptance.faults.history import FRONT, ITEM, MARKED, MARKS, OPEN_ITEM
from tests.acceptance.faults.open_items import (
    GetOpenItem,
    GetOpenOwner,
    GetOwnedOpenItem,
    ListMarkedOpenItems,
    ListOpenItems,
    ListOpenOwners,
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
    """A document by its key, plain or joined, a page of a list, and an owner; ``names`` is what processes call these.

    ``owners`` is a page of the owners, by the sums of their items' values.
    """

    get: Callable[[str], Query[Any]]
    joined: Callable[[str], Query[Any]]
    page: Callable[..., Query[Any]]
    owner: Callable[[int], Query[Any]]
    owners: Callable[..., Query[Any]]
    names: tuple[str, str, str, str]


QUERIES: Mapping[str, Queries] = {
    ITEM: Queries(
        app.GetItem,
        app.GetOwnedItem,
        app.ListItems,
        app.GetOwner,
        app.ListOwners,
        ("get", "joined", "page", "owner"),
    ),
    OPEN_ITEM: Queries(
        GetOpenItem,
        GetOwnedOpenItem,
        _open_page,
        GetOpenOwner,
        ListOpenOwners,
        ("open-get", "open-joined", "open-page", "open-owner"),
    ),
}
