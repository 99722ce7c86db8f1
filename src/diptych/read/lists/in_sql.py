"""The SQL half of a list: a page is a SELECT in the list's order. The Redis half is ``in_redis.py``.

Both order rows by the same values: text by code point, enums by their text.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from diptych.sql.comparison import enum_as_text
from diptych.sql.entity import MappedEntity
from diptych.sql.statements import PreparedSelect


class PageSelects:
    """The SELECTs of pages of an entity's lists, made from ``selected``, the SELECT of rows without an order."""

    def __init__(self, entity: MappedEntity, selected: sa.Select[Any], dialect: sa.Dialect) -> None:
        self._entity = entity
        self._selected = selected
        self._dialect = dialect
        self._made = functools.cache(self._make)  # it takes its time

    def select(self, order: tuple[str, ...], after: Sequence[Any] | None) -> PreparedSelect:
        """Returns the SELECT of a page in the order of these columns, from the beginning or ``after`` a place.

        Its parameters are those of ``parameters``.
        """
        return self._made(order, after is not None)

    def _make(self, order: tuple[str, ...], goes_on: bool) -> PreparedSelect:
        columns = [self._entity.in_code_points(name, self._dialect) for name in order]
        page = self._selected.order_by(*columns).limit(sa.bindparam("limit", type_=sa.Integer))
        if goes_on:
            types = (self._entity.columns[name].type for name in order)
            place = (sa.bindparam(f"after_{i}", type_=kind) for i, kind in enumerate(types))
            texts = (enum_as_text(value, self._dialect) for value in place)
            page = page.where(sa.tuple_(*columns) > sa.tuple_(*texts))
        return PreparedSelect(page)


def parameters(after: Sequence[Any] | None, limit: int) -> dict[str, Any]:
    """Returns the parameters of a page of ``limit`` rows ``after`` a place (None: from the beginning)."""
    return {"limit": limit, **{f"after_{i}": value for i, value in enumerate(after or ())}}
