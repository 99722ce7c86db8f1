"""What tests of pages share: the rows that Python selects in a list's order, and a walk through all of its pages."""

from __future__ import annotations

import enum
import functools
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from diptych.read.lists.filters import Between, StartsWith
from diptych.read.lists.index import ListIndex


class Item(Struct):
    id: int


class Shown(Struct):
    """A page of documents with an ``id``."""

    items: list[Item]
    next: str | None
    previous: str | None = None
    total: int | None = None

    @property
    def ids(self) -> list[int]:
        return [item.id for item in self.items]


def selected_ids(
    rows: Sequence[Mapping[str, Any]], index: ListIndex, where: Mapping[str, Any] | None
) -> list[int]:
    """The ids of the selected rows; several values of a column are merged in the order of the others."""
    several = [name for name, wanted in (where or {}).items() if isinstance(wanted, list)]
    order = [sorting for sorting in index.sorted_by if sorting.name not in several]

    def compared(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
        for sorting in order:
            first, second = (_sortable(row[sorting.name]) for row in (one, other))
            if first is None or second is None:
                if first is not second:
                    return -1 if (first is None) == sorting.nulls_first else 1
            elif first != second:
                return -1 if (first < second) != sorting.descending else 1
        return 0

    selected = [row for row in rows if is_selected(row, where)]
    return [row["id"] for row in sorted(selected, key=functools.cmp_to_key(compared))]


def is_selected(row: Mapping[str, Any], where: Mapping[str, Any] | None) -> bool:
    return all(_fits(row[name], wanted) for name, wanted in (where or {}).items())


def _fits(value: Any, wanted: Any) -> bool:
    match wanted:
        case list():
            return value in wanted
        case StartsWith(text):
            return value is not None and value.startswith(text)
        case Between(start, end):
            value, start, end = map(_sortable, (value, start, end))
            return value is not None and (start is None or value >= start) and (end is None or value <= end)
    return bool(value == wanted)


def _sortable(value: Any) -> Any:
    return value.name if isinstance(value, enum.Enum) else value


def asked_of(chance: random.Random, where: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of a page, beside its filter."""
    several = any(isinstance(wanted, list) for wanted in (where or {}).values())
    asked: dict[str, Any] = {"limit": chance.choice([1, 2, 3, 7, 50]), "count": chance.random() < 0.5}
    if not several and chance.random() < 0.3:
        asked["offset"] = chance.randint(0, 12)
    return asked


async def walk(
    page: Callable[..., Awaitable[Shown]], wanted: Sequence[int], asked: dict[str, Any], told: object
) -> None:
    """Reads all pages forwards and then backwards: together they are the ``wanted`` rows."""
    found = await page(**asked)
    start, asked = asked.get("offset", 0), {name: asked[name] for name in ("limit", "count")}
    shown: list[int] = found.ids
    assert shown == wanted[start : start + asked["limit"]], told
    assert found.total == (len(wanted) if asked["count"] else None), told
    assert (found.previous is not None) == (bool(shown) and start > 0), told
    back = found
    while back.next is not None:
        back = await page(after=back.next, **asked)
        shown = [*shown, *back.ids]
    assert shown == wanted[start:], told
    while back.previous is not None:
        place = wanted.index(back.ids[0])
        back = await page(before=back.previous, **asked)
        assert back.next is not None, told
        assert back.ids == wanted[max(0, place - asked["limit"]) : place], told
    assert not shown or back.ids[0] == wanted[0], told
