"""The SQL route of a read model: the same projection over the same columns, the same bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from diptych.ports import Row, RowSource, Trusted
from diptych.read.projection import ListIndex, Projection, page_body


class SqlFallback:
    """Answers from SQL. At most so many at once as ``turns`` admits; the rest queue.

    Losing Redis sends every query here: without the queue they would take all connections from the commands.
    """

    def __init__(self, projection: Projection, source: RowSource, turns: asyncio.Semaphore) -> None:
        self._projection = projection
        self._source = source
        self._turns = turns

    async def get(self, key: Any) -> bytes | None:
        """The document with this key as JSON bytes."""
        async with self._turns:
            row = await self._source.one(key)
        return None if row is None else self._projection.body(row)

    async def page(self, index: ListIndex, after: tuple[Any, ...] | None, limit: int) -> bytes:
        """A page of a list as JSON bytes."""
        async with self._turns:
            rows = await self._source.page(index.columns, after, limit + 1)
        return page_of_rows(rows, limit, index, self._projection.body)


def page_of_rows(rows: list[Row], limit: int, index: ListIndex, body: Callable[[Row], bytes]) -> bytes:
    """The JSON of a page from one row more than it shows: whether there is one decides on the cursor."""
    shown = rows[:limit]
    cursor = index.cursor(index.sort_key(shown[-1])) if len(rows) > limit else None
    return page_body([body(row) for row in shown], cursor)


class NoReplica:
    """The ``Freshness`` of a read model that is in SQL alone."""

    @property
    def reason(self) -> str:
        return "no-redis"

    def trusted(self) -> Trusted | None:
        return None

    def confirm(self, trusted: Trusted, lease: bytes | None) -> bool:
        return False

    def check_redis(self) -> None:
        """There is none that could be missing."""

    def lost(self, problem: str) -> None:
        """There is nothing that could be."""
