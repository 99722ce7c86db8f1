"""The SQL route of a read model: the same projection over the same columns, the same bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, NamedTuple

from diptych.aio.loop_budget import LoopBudget
from diptych.aio.single_flight import SingleFlight
from diptych.errors import DatabaseBusyError
from diptych.read.compiled import CompiledReadModel
from diptych.read.lists.index import ListIndex
from diptych.read.lists.page import PageBody, page_body
from diptych.read.sql.rows import SqlRows
from diptych.sql.description import Row

_ROWS_AT_ONCE = 25
"""How many rows become documents before the event loop's turn is looked at."""


class SqlFallback:
    """Answers from SQL: at once where ``source`` can, else at most so many at once as ``turns`` admits.

    Losing Redis sends every query here: if they did not queue for ``turns``, they would take all connections from the
    commands. Equal queries in the queue are executed once. One that has not been answered ``timeout_s`` after it came
    into the queue fails with ``DatabaseBusyError``. ``budget`` is that of all queries.
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

    async def get(self, key: Any) -> bytes | None:
        """The document with this key as JSON bytes; of a row that is set aside, what stands in its place."""
        await self._budget.wait()
        rows = self._source.try_one(key)
        if rows is None:
            async with self._patience():
                return await self._documents.run(key, partial(self._wait_for_one, key))
        return self._document(rows[0]) if rows else None

    async def page(self, index: ListIndex, after: tuple[Any, ...] | None, limit: int) -> PageBody:
        """A page of a list as JSON bytes."""
        await self._budget.wait()
        rows = self._source.try_page(index.columns, after, limit + 1)
        if rows is not None:
            listed = await self._listed(rows, index)
            if len(listed) > limit or len(rows) <= limit:
                return _page_of(listed, index, limit)
        async with self._patience():
            question = (index.name, after, limit)
            return await self._pages.run(question, partial(self._wait_for_page, index, after, limit))

    async def _wait_for_one(self, key: Any) -> bytes | None:
        row = await self._source.one(key)
        return None if row is None else self._document(row)

    async def _wait_for_page(self, index: ListIndex, after: tuple[Any, ...] | None, limit: int) -> PageBody:
        """Reads on past rows that SQL orders somewhere and Redis can't: they have no places in the list.

        It comes to an end: each reading begins after the last one that has a place, or takes in twice as many.
        """
        listed: list[_Listed] = []
        at_once = limit + 1
        while True:
            rows = await self._source.page(index.columns, after, at_once)
            found = await self._listed(rows, index)
            listed += found
            if len(listed) > limit or len(rows) < at_once:
                return _page_of(listed, index, limit)
            if found:
                after = tuple(found[-1].row[name] for name in index.columns)
            else:
                at_once *= 2

    async def _listed(self, rows: list[Row], index: ListIndex) -> list[_Listed]:
        """Those of the rows that have places in the list."""
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
        """The document of a row, or what stands in its place."""
        compiled = self._compiled
        places = () if compiled.is_placed(row) else compiled.places(row)
        body = compiled.body(row, places)
        if compiled.notices.concern(body):
            compiled.notices.met(compiled.key_of(row), body)
        return body

    @contextlib.asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DatabaseBusyError("SQL did not answer a query within DATABASE_TIMEOUT_MS") from error


class _Listed(NamedTuple):
    """A row that has a place in a list, and its document."""

    row: Row
    body: bytes


def _page_of(listed: list[_Listed], index: ListIndex, limit: int) -> PageBody:
    """A page that begins with the first of these. Whether there is one more than it shows decides on the cursor."""
    shown = listed[:limit]
    cursor = index.cursor(index.sort_key(shown[-1].row)) if len(listed) > limit else None
    return page_body([row.body for row in shown], cursor)
