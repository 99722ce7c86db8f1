"""The rows that a page selects from a list: by values of the leading columns, then by a range of the next one.

Both routes take the same selection. In Redis it is a range of the list's sorted set for each prefix, in SQL a
condition. A page cursor is a place behind the prefix, so that it never says what is selected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from diptych.errors import Fault, InvalidMessage, UnsupportedFilterError
from diptych.read.lists.filters import Between, StartsWith
from diptych.read.lists.index import ListIndex
from diptych.read.lists.ordering import successor

MOST_VALUES = 20
"""Greatest number of values of a column that a page selects at once."""

_SEVERAL = (list, tuple, set, frozenset)


class Selection(msgspec.Struct, frozen=True):
    """The rows of ``index`` with any of the ``values`` of each leading column, and in a range of the next column.

    All but the last of the leading columns have one value. ``given`` is the filter of the next column, its ends in
    the column's type; None if there is none.
    """

    index: ListIndex
    values: tuple[tuple[Any, ...], ...] = ()
    given: Between | StartsWith | None = None

    @property
    def is_empty(self) -> bool:
        """True if no row can be selected."""
        return any(not values for values in self.values)

    def prefixes(self) -> list[bytes]:
        """Returns the beginnings of the selected sort keys: one for each value of the last leading column."""
        if not self.values:
            return [b""]
        if self.is_empty:
            return []
        *first, last = self.values
        common = self.index.encoded([one for [one] in first])
        return [common + self.index.encoded([value], at=len(first)) for value in last]

    def range(self) -> tuple[bytes, bytes | None]:
        """Returns the range of what follows a prefix; its end is not included, None if it is open."""
        given, codec = self.given, self.index.codec(len(self.values))
        if given is None or codec is None:
            return b"", None
        if isinstance(given, StartsWith):
            start = codec.beginning(given.text)
            return start, successor(start)
        at = len(self.values)
        ends = [None if end is None else self.index.encoded([end], at=at) for end in (given.start, given.end)]
        first, last = reversed(ends) if self.index.sorted_by[at].descending else ends
        return first or codec.present, successor(codec.present if last is None else last)


def select(index: ListIndex, where: Mapping[str, Any] | None, others: Sequence[ListIndex]) -> Selection:
    """Returns the rows of a list that ``where`` selects.

    Raises ``UnsupportedFilterError`` for a filter that this list can't serve, with those of the ``others`` that can;
    ``InvalidMessage`` for values that are no filter of their column.
    """
    if not where and index.each_at is None:
        return Selection(index)
    selection = _select(index, where or {})
    if selection is None:
        able = [other.name for other in others if _select(other, where or {}) is not None]
        known = [f"{other.name} ({', '.join(other.columns)})" for other in others]
        needs = () if index.each_at is None else index.columns[: index.each_at + 1]
        raise UnsupportedFilterError(index.name, list(where or ()), able, known, needs)
    return selection


def _select(index: ListIndex, where: Mapping[str, Any]) -> Selection | None:
    left, values = dict(where), list[tuple[Any, ...]]()
    for at, name in enumerate(index.columns):
        if name not in left or isinstance(left[name], Between | StartsWith):
            break
        if values and len(values[-1]) > 1:
            return None  # several values are for the last of the columns alone
        wanted = left.pop(name)
        if at == index.each_at and isinstance(wanted, _SEVERAL):
            return None  # a row would be on the page once for each of them
        if name in index.key and isinstance(wanted, _SEVERAL):
            return None  # what remains of the order would not tell the rows apart
        values.append(_fitting(index, at, name, wanted))
    if index.each_at is not None and len(values) <= index.each_at:
        return None
    given = None
    if len(values) < len(index.columns):
        given = left.pop(index.columns[len(values)], None)
        if isinstance(given, StartsWith) and not index.is_text(len(values)):
            return None
    return None if left else Selection(index, tuple(values), _in_column(index, len(values), given))


def _fitting(index: ListIndex, at: int, name: str, wanted: Any) -> tuple[Any, ...]:
    """Returns the values, each once, that the column can hold: for others there is no row."""
    several = list(wanted) if isinstance(wanted, _SEVERAL) else [wanted]
    if len(several) > MOST_VALUES:
        raise InvalidMessage("page", [Fault(name, f"has more than {MOST_VALUES} values")])
    found: dict[bytes, Any] = {}
    for value in several:
        try:
            fitted = index.fit(at, value)
            found[index.encoded([fitted], at=at)] = fitted
        except (ValueError, TypeError, AttributeError, OverflowError):
            continue
    return tuple(found.values())


def _in_column(index: ListIndex, at: int, given: Any) -> Between | StartsWith | None:
    if given is None:
        return None
    try:
        if isinstance(given, StartsWith):
            given.text.encode()
            return given
        start, end = (None if bound is None else index.fit(at, bound) for bound in (given.start, given.end))
        for bound in (start, end):
            if bound is not None:
                index.encoded([bound], at=at)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise InvalidMessage(
            "page", [Fault(index.columns[at], "is compared with a value that the column can't hold")]
        ) from None
    return Between(start, end)
