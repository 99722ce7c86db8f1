"""The answers of a read model: from Redis if proved fresh, from SQL otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.aio.event_loop import HomeLoop
from diptych.errors import UnreadableRowError
from diptych.read.answers import Document, Page, Served
from diptych.read.compiled import CompiledReadModel, key_bytes
from diptych.read.declaration import ListOrder
from diptych.read.lists.page import check_limit
from diptych.read.set_aside import MARK, misfit_of
from diptych.read.sql.fallback import SqlFallback

if TYPE_CHECKING:
    # Redis is an extra: without it SQL answers, and nothing that needs it may be imported.
    from diptych.read.store.source import RedisSource

_REDIS = Served("redis")
_NO_KEY = Served("sql", "no-key")
"""Answer for a key no row can have: neither store is asked. SQL decides on the values of a column, so it is named."""


class Reader:
    """The choice of a store for each query. ``source`` is None without Redis.

    Queries in another event loop than ``home`` raise ``DifferentLoopError``.
    """

    def __init__(
        self,
        home: HomeLoop,
        compiled: CompiledReadModel,
        fallback: SqlFallback,
        source: RedisSource | None = None,
    ) -> None:
        self._home = home
        self._compiled = compiled
        self._fallback = fallback
        self._source = source

    async def get(self, key: Any) -> Document[Any]:
        """Returns the document with this key, as documented by ``ReadModel.get``."""
        self._home.check()
        try:
            key = self._compiled.fit_key(key)
        except ValueError:
            return Document(None, _NO_KEY, self._compiled.document)
        if self._source is not None:
            found = await self._source.look_ups.get(key_bytes(key))
            if found is not None:
                if found[:1] == MARK:
                    raise self._unreadable(key, found)
                return Document(found or None, _REDIS, self._compiled.document)
        served = self._served_by_sql()
        body = await self._fallback.get(key)
        if body is not None and body.startswith(MARK):
            raise self._unreadable(key, body)
        return Document(body, served, self._compiled.document)

    async def page(self, order: ListOrder | None, limit: int, after: str | None) -> Page[Any]:
        """Returns a page of a list, as documented by ``ReadModel.page``."""
        self._home.check()
        check_limit(limit)
        index = self._compiled.list_by(order)
        place, values = index.place(after) if after is not None else (None, None)
        if self._source is not None:
            found = await self._source.page(index, place, limit)
            if found is not None:
                return Page(found.body, _REDIS, self._compiled.document, found.set_aside)
        served = self._served_by_sql()
        found = await self._fallback.page(index, values, limit)
        return Page(found.body, served, self._compiled.document, found.set_aside)

    def _unreadable(self, key: Any, stored: bytes) -> UnreadableRowError:
        self._compiled.notices.met(key_bytes(key), stored)
        return UnreadableRowError(self._compiled.entity.table, key, *misfit_of(stored))

    def _served_by_sql(self) -> Served:
        return Served("sql", "no-redis" if self._source is None else self._source.reason)
