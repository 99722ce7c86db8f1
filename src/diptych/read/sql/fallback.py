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
from diptych.read.addresses import Address
from diptych.read.compiled import CompiledReadModel
from diptych.read.lists.in_sql import Beside
from diptych.read.lists.page import PageBody, PageRequest, page_body
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
        self._many: SingleFlight[dict[bytes, bytes]] = SingleFlight(turns)
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

    async def get_many(self, address: Address, values: tuple[Any, ...]) -> dict[bytes, bytes]:
        """Returns the documents of the rows with these values, as JSON, by their keys in Redis.

        A set-aside row has ``marked`` bytes.
        """
        await self._budget.wait()
        async with self._time_limit():
            read = partial(self._read_many, address, values)
            return await self._many.run((address.names, values), read)

    async def page(self, request: PageRequest) -> PageBody:
        """Returns a page of a list."""
        await self._budget.wait()
        if request.selection.is_empty:
            return self._page_of([], request, Beside())
        rows = self._source.try_page(request, request.limit + 1)
        beside = None if rows is None else self._source.try_beside(request)
        if rows is not None and beside is not None:
            listed = await self._listed(rows, request)
            if len(listed) > request.limit or len(rows) <= request.limit:
                return self._page_of(listed, request, beside)
        async with self._time_limit():
            return await self._pages.run(request, partial(self._read_page, request))

    async def _read_one(self, names: Columns, value: Any) -> bytes | None:
        row = await self._source.one(names, value)
        return None if row is None else self._document(row)

    async def _read_many(self, address: Address, values: tuple[Any, ...]) -> dict[bytes, bytes]:
        rows = await self._source.many(address.names, values)
        found: dict[bytes, bytes] = {}
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            await self._budget.wait()
            some = rows[start : start + _ROWS_AT_ONCE]
            found |= {address.of(row): self._document(row) for row in some}
        return found

    async def _read_page(self, request: PageRequest) -> PageBody:
        beside = self._source.try_beside(request) or await self._source.beside(request)
        return self._page_of(await self._read_listed(request), request, beside)

    async def _read_listed(self, request: PageRequest) -> list[_Listed]:
        """Reads the rows of a page and one more, and further where SQL orders rows without a place in Redis's list.

        The reading ends: each SELECT begins after the last row with a place, or is for twice as many rows.
        """
        listed: list[_Listed] = []
        at_once, asked = request.limit + 1, request
        while True:
            rows = await self._source.page(asked, at_once)
            found = await self._listed(rows, request)
            listed += found
            if len(listed) > request.limit or len(rows) < at_once:
                return listed
            if found:
                rest = request.selection.index.columns[len(request.selection.values) :]
                values = tuple(found[-1].row[name] for name in rest)
                asked = request._replace(values=values, offset=0)
            else:
                at_once *= 2

    async def _listed(self, rows: list[Row], request: PageRequest) -> list[_Listed]:
        """Returns the rows with a place in the list, with their documents."""
        index = request.selection.index
        listed: list[_Listed] = []
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            await self._budget.wait()
            for row in rows[start : start + _ROWS_AT_ONCE]:
                is_placed = self._compiled.is_placed(row)
                if (is_placed and index.where is None) or index.sort_key(row):
                    listed.append(_Listed(row, self._document(row, is_placed=is_placed)))
        return listed

    def _page_of(self, listed: list[_Listed], request: PageRequest, beside: Beside) -> PageBody:
        """Makes the page of the first rows; there are more if it does not show all."""
        shown = listed[: request.limit]
        if request.is_backward:
            shown.reverse()
        index, at = request.selection.index, len(request.selection.values)
        ends = [
            index.encoded([each.row[name] for name in index.columns[at:]], at=at)
            for each in shown[:1] + shown[-1:]
        ]
        return page_body(
            request,
            [each.body for each in shown],
            (ends[0], ends[1]) if ends else None,
            has_more=len(listed) > request.limit,
            has_other=beside.has_other or (request.offset > 0 and bool(shown)),
            total=beside.total if request.counts else None,
        )

    def _document(self, row: Row, *, is_placed: bool | None = None) -> bytes:
        """Returns the row's document, or ``marked`` bytes if the row is set aside; the log is told of the latter."""
        compiled = self._compiled
        is_placed = compiled.is_placed(row) if is_placed is None else is_placed
        places = () if is_placed else compiled.places(row)
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
