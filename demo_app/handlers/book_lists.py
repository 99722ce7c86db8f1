"""The list of the read model that answers a query: what can be asked for together, and what to say of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demo_app.messages import ListBooks
from demo_app.models.folding import folded
from diptych import Fault, InvalidMessage, between, starts_with

Filters = tuple[str, ...]

LISTS: Mapping[str, Mapping[Filters, str]] = {
    "title": {
        (): "title",
        ("author",): "author,title",
        ("title",): "search",
        ("author", "title"): "author_search",
        ("tag",): "tagged",
    },
    "-published_date": {
        (): "newest",
        ("author",): "author_newest",
        ("published",): "newest",
        ("author", "published"): "author_newest",
        ("tag",): "tagged_newest",
        ("tag", "published"): "tagged_newest",
    },
    "author": {
        (): "author,title",
        ("author",): "author,title",
        ("author", "title"): "author_search",
    },
    "-rating": {
        (): "best",
        ("tag",): "tagged_best",
    },
}
"""The list for each sort and its filters. "published" is `published_from`, `published_to`, or both."""


def list_for(query: ListBooks) -> tuple[str, dict[str, Any] | None]:
    """Returns the name of the list that answers the query, and the filter of the page.

    Raises `InvalidMessage` where no list answers the query, with all that can be asked for.
    """
    where: dict[str, Any] = {}
    filters: list[str] = []
    if query.author is not None:
        filters.append("author")
        where["author"] = query.author
    if query.title is not None:
        filters.append("title")
        where["search_title"] = starts_with(folded(query.title))
    if query.tag is not None:
        filters.append("tag")
        where["tags"] = query.tag
    if query.published_from is not None or query.published_to is not None:
        filters.append("published")
        where["published_date"] = between(query.published_from, query.published_to)
    name = LISTS[query.sort].get(tuple(filters))
    if name is None:
        refused = (
            f"can't be {query.sort} together with {_joined(filters)}; what can be asked for: {_in_words()}"
        )
        raise InvalidMessage("ListBooks", [Fault("sort", refused)])
    return name, where or None


def _in_words() -> str:
    return "; ".join(
        f"sort={sort} alone, with {', with '.join(map(_joined, filter(None, lists)))}"
        for sort, lists in LISTS.items()
    )


def _joined(filters: Filters | list[str]) -> str:
    return " and ".join(name.replace("published", "published_from/published_to") for name in filters)
