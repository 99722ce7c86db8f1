"""The SQL route of a read model: the same projection over the same columns, the same bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from diptych.errors import DatabaseBusyError
from diptych.ports import Row, RowSource
from diptych.read.projection import ListIndex, Projection, page_body


class SqlFallback:
    """Answers from SQL. At most so many at once as ``turns`` admits; the rest queue.

    Losing Redis sends every query here: without the queue they would take all connections from the commands. One
    that has not been answered after ``timeout_s``, its wait included, fails with ``DatabaseBusyError``.
    """

    def __init__(
        self, projection: Projection, source: RowSource, turns: asyncio.Semaphore, timeout_s: float
    ) -> None:
        self._projection = projection
        self._source = source
        self._turns = turns
        self._timeout_s = timeout_s

    async def get(self, key: Any) -> bytes | None:
        """The document with this key as JSON bytes."""
        async with self._turn():
            row = await self._source.one(key)
        return None if row is None else self._projection.body(row)

    async def page(self, index: ListIndex, after: tuple[Any, ...] | None, limit: int) -> bytes:
        """A page of a list as JSON bytes."""
        async with self._turn():
            rows = await self._source.page(index.columns, after, limit + 1)
        return page_of_rows(rows, limit, index, self._projection.body)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s) as limit, self._turns:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DatabaseBusyError("SQL did not answer a query within DATABASE_TIMEOUT_MS") from error


def page_of_rows(rows: list[Row], limit: int, index: ListIndex, body: Callable[[Row], bytes]) -> bytes:
    """The JSON of a page from one row more than it shows: whether there is one decides on the cursor."""
    shown = rows[:limit]
    cursor = index.cursor(index.sort_key(shown[-1])) if len(rows) > limit else None
    return page_body([body(row) for row in shown], cursor)
