"""The rows of an entity in batches, in the order of the primary key."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy as sa

from diptych.sql.comparison import is_end, one_of
from diptych.sql.description import Unreadable
from diptych.sql.entity import MappedEntity
from diptych.sql.statements import FewValues, PreparedSelect

if TYPE_CHECKING:
    from diptych.read.nested.rows import Fetch

MOST_TUPLES = 100
"""Number of tuples that one statement looks for: PostgreSQL plans each as a condition of its own."""

_MOST_KEYS = 10_000
"""Number of primary keys that are read at a time of the rows that fulfil a condition."""

_Found: TypeAlias = Sequence[Sequence[Any]]


class RowBatches:
    """Rows of ``entity`` in batches: the ``count`` values that ``selected`` has of each, then its primary key."""

    def __init__(
        self, entity: MappedEntity, selected: sa.Select[Any], count: int, dialect: sa.Dialect
    ) -> None:
        self._entity = entity
        self._dialect = dialect
        self._primary_key = [entity.columns[name] for name in entity.primary_key]
        self._selected = selected.add_columns(*self._primary_key)
        self._count = count
        self._few = FewValues()

    async def all(
        self, fetch: Fetch, conditions: Iterable[sa.ColumnElement[bool]], size: int
    ) -> AsyncIterator[_Found]:
        """Yields all rows that fulfil the conditions, in non-empty batches."""
        selected = self._selected.where(*conditions)
        last: Sequence[Any] | None = None
        while found := await fetch(self._batch(selected, last, size), {}):
            yield found
            if len(found) < size:
                return
            last, size = self._after(found, last, size)

    async def fulfilling(
        self, fetch: Fetch, condition: sa.ColumnElement[bool], size: int
    ) -> AsyncIterator[_Found]:
        """Yields the rows that fulfil a condition which takes long to look up, in non-empty batches.

        A database finds all rows of a condition for each batch anew. So after the first full batch the primary keys
        are read, very many at a time, and the rows by them.
        """
        keys = sa.select(*self._primary_key).select_from(self._entity.table).where(condition)
        last: Sequence[Any] | None = None
        at_once = size
        while found := await fetch(self._batch(self._selected.where(condition), last, at_once), {}):
            yield found
            if len(found) < at_once:
                return
            last, at_once = self._after(found, last, at_once)
            if last is None:
                continue
            listed = await fetch(self._batch(keys, last, _MOST_KEYS), {})
            readable = list(itertools.takewhile(_is_readable, listed))
            keys_at_once = size if len(self._primary_key) == 1 else min(size, MOST_TUPLES)
            for start in range(0, len(readable), keys_at_once):
                part = readable[start : start + keys_at_once]
                if found := await fetch(*self._with_keys(part)):
                    yield found
                last = part[-1]

    async def having_few(
        self, fetch: Fetch, column: sa.Column[Any], values: Sequence[Any], most: int
    ) -> _Found | None:
        """Returns the rows with a value of these in a column; None for too many values, or from ``most`` rows on.

        None as well where one of the values may have two forms.
        """
        if any(map(is_end, values)):
            return None
        prepared = self._few.get(
            (column.name, most),
            values,
            column.type,
            lambda given: self._batch(self._selected.where(column.in_(given)), None, most),
        )
        if prepared is None:
            return None
        found = await fetch(*prepared)
        return found if len(found) < most else None

    def _batch(self, selected: sa.Select[Any], last: Sequence[Any] | None, size: int) -> sa.Select[Any]:
        """Returns the SELECT of the next batch, after the key ``last``."""
        statement = selected.order_by(*self._primary_key).limit(size)
        if last is None:
            return statement
        literals = [
            sa.literal(value, column.type) for column, value in zip(self._primary_key, last, strict=True)
        ]
        return statement.where(sa.tuple_(*self._primary_key) > sa.tuple_(*literals))

    def _with_keys(
        self, keys: Sequence[Sequence[Any]]
    ) -> tuple[sa.Select[Any] | PreparedSelect, Mapping[str, Any]]:
        """Returns the SELECT of the rows with these primary keys, and its parameters."""
        ordered = self._selected.order_by(*self._primary_key)
        if len(self._primary_key) > 1 or any(is_end(key[0]) for key in keys):
            return ordered.where(one_of(self._primary_key, keys, self._dialect)), {}
        [column], values = self._primary_key, [key for [key] in keys]
        few = self._few.get("keys", values, column.type, lambda given: ordered.where(column.in_(given)))
        return few or (ordered.where(column.in_(values)), {})

    def _after(
        self, found: _Found, last: Sequence[Any] | None, size: int
    ) -> tuple[Sequence[Any] | None, int]:
        """Returns the primary key before the next batch, and the next batch's size.

        A batch without a readable key is followed by a batch of twice its size, to get past the unreadable rows.
        """
        for values in reversed(found):
            key = values[self._count :]
            if _is_readable(key):
                return key, size
        return last, 2 * size


def _is_readable(key: Sequence[Any]) -> bool:
    return not any(isinstance(value, Unreadable) for value in key)
