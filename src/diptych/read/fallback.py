"""The SQL route of a read model: the same projection over the same columns, the same bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from diptych.errors import DatabaseBusyError
from diptych.ports import Row, RowSource
from diptych.read.pace import Pace
from diptych.read.projection import ListIndex, Projection, page_body
from diptych.read.sharing import Shared

_ROWS_AT_ONCE = 25
"""How many rows become documents before the event loop's turn is looked at."""


class SqlFallback:
    """Answers from SQL: at once where ``source`` can, else at most so many at once as ``turns`` admits.

    Losing Redis sends every query here: if they did not queue for ``turns``, they would take all connections from the
    commands. Equal queries in the queue are executed once. One that has not been answered ``timeout_s`` after it came
    into the queue fails with ``DatabaseBusyError``. ``pace`` is that of all queries.
    """

    def __init__(
        self,
        projection: Projection,
        source: RowSource,
        turns: asyncio.Semaphore,
        pace: Pace,
        timeout_s: float,
    ) -> None:
        self._projection = projection
        self._source = source
        self._pace = pace
        self._timeout_s = timeout_s
        self._documents: Shared[bytes | None] = Shared(turns)
        self._pages: Shared[bytes] = Shared(turns)

    async def get(self, key: Any) -> bytes | None:
        """The document with this key as JSON bytes."""
        await self._pace.keep()
        rows = self._source.try_one(key)
        if rows is None:
            async with self._patience():
                return await self._documents.answer(key, partial(self._wait_for_one, key))
        return self._projection.body(rows[0]) if rows else None

    async def page(self, index: ListIndex, after: tuple[Any, ...] | None, limit: int) -> bytes:
        """A page of a list as JSON bytes."""
        await self._pace.keep()
        rows = self._source.try_page(index.columns, after, limit + 1)
        if rows is None:
            async with self._patience():
                question = (index.name, after, limit)
                return await self._pages.answer(question, partial(self._wait_for_page, index, after, limit))
        return await self._page_of(rows, index, limit)

    async def _wait_for_one(self, key: Any) -> bytes | None:
        row = await self._source.one(key)
        return None if row is None else self._projection.body(row)

    async def _wait_for_page(self, index: ListIndex, after: tuple[Any, ...] | None, limit: int) -> bytes:
        return await self._page_of(await self._source.page(index.columns, after, limit + 1), index, limit)

    async def _page_of(self, rows: list[Row], index: ListIndex, limit: int) -> bytes:
        """The JSON of a page from one row more than it shows: whether there is one decides on the cursor."""
        shown = rows[:limit]
        bodies: list[bytes] = []
        for start in range(0, len(shown), _ROWS_AT_ONCE):
            await self._pace.keep()
            bodies += map(self._projection.body, shown[start : start + _ROWS_AT_ONCE])
        cursor = index.cursor(index.sort_key(shown[-1])) if len(rows) > limit else None
        return page_body(bodies, cursor)

    @contextlib.asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DatabaseBusyError("SQL did not answer a query within DATABASE_TIMEOUT_MS") from error
