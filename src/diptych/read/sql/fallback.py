"""The SQL route of a read model: the same bytes as from Redis, made from rows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, NamedTuple

from diptych.aio.event_loop import LoopBudget
from diptych.aio.sharing import SingleFlight
from diptych.errors import DatabaseBusyError
from diptych.read.compiled import CompiledReadModel
from diptych.read.lists.index import ListIndex
from diptych.read.lists.page import PageBody, page_body
from diptych.read.sql.rows import Columns, SqlRows
from diptych.sql.description import Row

_ROWS_AT_ONCE = 25
"""Number of rows that become documents before the budget of the event loop's turn is checked again."""


class SqlFallback:
    """Answers of a read model from SQL.

    A query is answered in the event loop where ``source`` can do so, else in the queue for ``turns``. Losing Redis
    sends every query here: without the queue they would take all connections from the commands. Equal queries in the
    queue are executed once. A query in the queue for more than ``timeout_s`` fails with ``DatabaseBusyError``.
    ``turns`` and ``budget`` are shared by all read models.
    """

    def __init__(
        self,
        compiled: CompiledReadModel,
        source: SqlRows,
        turns: asyncio.Semaphore,
        budget: LoopBudget,
        timeout_s: float,
    ) -> None:
        self._compiled = compiled
        self._source = source
        self._budget = budget
        self._timeout_s = timeout_s
        self._documents: SingleFlight[bytes | None] = SingleFlight(turns)
        self._pages: SingleFlight[PageBody] = SingleFlight(turns)

    async def get(self, names: Columns, value: Any) -> bytes | None:
        """Returns the document of the row with this value in these columns, as JSON; None without such a row.

        Returns ``marked`` bytes for a set-aside row.
        """
        await self._budget.wait()
        rows = self._source.try_one(names, value)
        if rows is None:
            async with self._time_limit():
                return await self._documents.run((names, value), partial(self._read_one, names, value))
        return self._document(rows[0]) if rows else None

    async def page(self, index: ListIndex, after: tuple[Any, ...] | None, limit: int) -> PageBody:
        """Returns a page of a list: at most ``limit`` documents, from the beginning or ``after`` a place."""
        await self._budget.wait()
        rows = self._source.try_page(index.sorted_by, after, limit + 1)
        if rows is not None:
            listed = await self._listed(rows, index)
            if len(listed) > limit or len(rows) <= limit:
                return _page_of(listed, index, limit)
        async with self._time_limit():
            key = (index.name, after, limit)
            return await self._pages.run(key, partial(self._read_page, index, after, limit))

    async def _read_one(self, names: Columns, value: Any) -> bytes | None:
        row = await self._source.one(names, value)
        return None if row is None else self._document(row)

    async def _read_page(self, index: ListIndex, after: tuple[Any, ...] | None, limit: int) -> PageBody:
        """Reads a page, and further than its rows where SQL orders rows without a place in Redis's list.

        The reading ends: each SELECT begins after the last row with a place, or is for twice as many rows.
        """
        listed: list[_Listed] = []
        at_once = limit + 1
        while True:
            rows = await self._source.page(index.sorted_by, after, at_once)
            found = await self._listed(rows, index)
            listed += found
            if len(listed) > limit or len(rows) < at_once:
                return _page_of(listed, index, limit)
            if found:
                after = tuple(found[-1].row[name] for name in index.columns)
            else:
                at_once *= 2

    async def _listed(self, rows: list[Row], index: ListIndex) -> list[_Listed]:
        """Returns the rows with a place in the list, with their documents."""
        listed: list[_Listed] = []
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            await self._budget.wait()
            some = rows[start : start + _ROWS_AT_ONCE]
            listed += [
                _Listed(row, self._document(row))
                for row in some
                if self._compiled.is_placed(row) or index.sort_key(row)
            ]
        return listed

    def _document(self, row: Row) -> bytes:
        """Returns the row's document, or ``marked`` bytes if the row is set aside; the log is told of the latter."""
        compiled = self._compiled
        places = () if compiled.is_placed(row) else compiled.places(row)
        body = compiled.body(row, places)
        if compiled.notices.concern(body):
            compiled.notices.met(compiled.key.of(row), body)
        return body

    @contextlib.asynccontextmanager
    async def _time_limit(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DatabaseBusyError("SQL did not answer a query within DATABASE_TIMEOUT_MS") from error


class _Listed(NamedTuple):
    """A row with a place in a list, and its document."""

    row: Row
    body: bytes


def _page_of(listed: list[_Listed], index: ListIndex, limit: int) -> PageBody:
    """Makes the page of the first ``limit`` rows, with a cursor if there are more rows."""
    shown = listed[:limit]
    cursor = index.cursor(index.sort_key(shown[-1].row)) if len(listed) > limit else None
    return page_body([row.body for row in shown], cursor)
