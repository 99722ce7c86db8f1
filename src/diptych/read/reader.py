"""The reading of one read model: from Redis if it is proved fresh, from SQL otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.errors import RedisUnavailableError
from diptych.ports import STAMP_BYTES, Freshness
from diptych.read.fallback import SqlFallback
from diptych.read.model import Document, ListOrder, Page, Served
from diptych.read.projection import ListIndex, Projection, check_limit, page_body

if TYPE_CHECKING:
    from diptych.read.store import RedisStore  # needs the extra; a reader of SQL alone does not

_REDIS = Served("redis")


class Reader:
    """Decides per query which store answers. ``store`` is None where there is no Redis."""

    def __init__(
        self, projection: Projection, fallback: SqlFallback, store: RedisStore | None, freshness: Freshness
    ) -> None:
        self._projection = projection
        self._fallback = fallback
        self._store = store
        self._freshness = freshness

    async def get(self, key: Any) -> Document[Any]:
        """The document with this key; what ``ReadModel.get`` promises."""
        key = self._projection.looked_for(key)
        trusted = self._freshness.trusted()
        if trusted is not None and self._store is not None:
            try:
                lease, stored = await self._store.fetch(trusted.generation, key)
            except RedisUnavailableError:
                self._freshness.check_redis()
            else:
                if self._freshness.confirm(trusted, lease):
                    return self._document(stored[STAMP_BYTES:] if stored else None, _REDIS)
        served = Served("sql", self._freshness.reason)
        return self._document(await self._fallback.get(key), served)

    async def page(self, order: ListOrder | None, limit: int, after: str | None) -> Page[Any]:
        """A page of a list; what ``ReadModel.page`` promises."""
        check_limit(limit)
        index = self._projection.list_by(order)
        place, values = index.place(after) if after is not None else (None, None)
        trusted = self._freshness.trusted()
        if trusted is not None and self._store is not None:
            try:
                fetched = await self._store.fetch_page(trusted.generation, index, place, limit)
            except RedisUnavailableError:
                self._freshness.check_redis()
            else:
                if self._freshness.confirm(trusted, fetched.lease):
                    body = self._page_body(index, fetched.documents, fetched.last)
                    if body is not None:
                        return Page(body, _REDIS, self._projection.document)
                    self._freshness.lost("a list names a document that is not there")
        served = Served("sql", self._freshness.reason)
        body = await self._fallback.page(index, values, limit)
        return Page(body, served, self._projection.document)

    def _document(self, body: bytes | None, served: Served) -> Document[Any]:
        return Document(body or None, served, self._projection.document)

    def _page_body(self, index: ListIndex, documents: list[bytes | None], last: bytes | None) -> bytes | None:
        """None if a listed document is missing, which a page that can be trusted never shows."""
        bodies = [stored[STAMP_BYTES:] for stored in documents if stored is not None]
        if len(bodies) < len(documents) or not all(bodies):
            return None
        return page_body(bodies, None if last is None else index.cursor(index.sort_key_of(last)))
