"""The answers of a read model: from Redis if proved fresh, from SQL otherwise."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from diptych.aio.event_loop import HomeLoop
from diptych.errors import Fault, InvalidMessage, UnreadableRowError
from diptych.read.addresses import Address
from diptych.read.answers import Document, Page, Served
from diptych.read.compiled import CompiledReadModel
from diptych.read.declaration import ListOrder
from diptych.read.lists.page import page_request
from diptych.read.lists.selection import select
from diptych.read.set_aside import MARK, misfit_of
from diptych.read.sql.fallback import SqlFallback

if TYPE_CHECKING:
    # Redis is an extra: without it SQL answers, and nothing that needs it may be imported.
    from diptych.read.store.source import RedisSource

MOST_KEYS = 500
"""Number of documents of one call of ``get_many`` at most."""

_REDIS = Served("redis")
_NO_KEY = Served("sql", "no-key")
"""Answer for a key no row can have: neither store is asked. SQL decides on the values of a column, so it is named."""


class Reader:
    """The choice of a store for each query. ``source`` is None without Redis.

    Queries in another event loop than ``home`` raise ``DifferentLoopError``. ``on_read`` is called with the tables of
    the documents before each query: a command may ask, and rests on the answer. ``answers_from_sql`` counts the
    answers that were not from Redis, by their reasons.
    """

    def __init__(
        self,
        home: HomeLoop,
        compiled: CompiledReadModel,
        fallback: SqlFallback,
        on_read: Callable[[Set[str]], None],
        source: RedisSource | None = None,
    ) -> None:
        self._home = home
        self._compiled = compiled
        self._fallback = fallback
        self._on_read = on_read
        self._source = source
        self.key = compiled.key
        self._document = compiled.document
        self.answers_from_sql: Counter[str] = Counter()

    def second_address(self, names: Sequence[str]) -> Address:
        """Returns the second address that is named, as documented by ``ReadModel.get``."""
        return self._compiled.second_address(names)

    async def get(self, address: Address, value: Any) -> Document[Any]:
        """Returns the document at this address, as documented by ``ReadModel.get``."""
        self._home.check()
        self._on_read(self._compiled.tables)
        try:
            value = address.fit(value)
        except ValueError:
            return Document(None, self._counted(_NO_KEY), self._document)
        if self._source is not None:
            found = await self._source.look_ups.get(address.encoded(value))
            if found is not None:
                if found[:1] == MARK:
                    raise self._unreadable(address, value, found)
                return Document(found or None, _REDIS, self._document)
        served = self._served_by_sql()
        body = await self._fallback.get(address.names, value)
        self._counted(served)
        if body is not None and body.startswith(MARK):
            raise self._unreadable(address, value, body)
        return Document(body, served, self._document)

    async def get_many(self, address: Address, keys: Iterable[Any]) -> list[Document[Any]]:
        """Returns the documents at these addresses, as documented by ``ReadModel.get_many``."""
        self._home.check()
        self._on_read(self._compiled.tables)
        wanted: list[bytes | None] = []
        values: dict[bytes, Any] = {}
        for key in _at_most(MOST_KEYS, keys):
            where = None
            with contextlib.suppress(ValueError):  # else no row can have it
                value = address.fit(key)
                where = address.encoded(value)
                values[where] = value
            wanted.append(where)
        found, served = await self._many(address, values) if values else ({}, self._counted(_NO_KEY))
        for where, value in values.items():
            if found.get(where, b"")[:1] == MARK:
                raise self._unreadable(address, value, found[where])
        bodies = (None if where is None else found.get(where) or None for where in wanted)
        return [Document(body, served, self._document) for body in bodies]

    async def _many(
        self, address: Address, values: Mapping[bytes, Any]
    ) -> tuple[Mapping[bytes, bytes], Served]:
        """Returns the bodies at these addresses, some left out that have no row, and the store of them all."""
        if self._source is not None:
            found = await self._source.get_many(list(values))
            if found is not None:
                return dict(zip(values, found, strict=True)), _REDIS
        served = self._served_by_sql()
        bodies = await self._fallback.get_many(address, tuple(values.values()))
        return bodies, self._counted(served)

    async def page(
        self,
        order: ListOrder | str | None,
        where: Mapping[str, Any] | None,
        limit: int,
        *,
        after: str | None,
        before: str | None,
        offset: int,
        count: bool,
    ) -> Page[Any]:
        """Returns a page of a list, as documented by ``ReadModel.page``."""
        self._home.check()
        self._on_read(self._compiled.tables)
        selection = select(self._compiled.list_by(order), where, self._compiled.lists)
        request = page_request(selection, limit, after=after, before=before, offset=offset, count=count)
        if self._source is not None:
            found = await self._source.page(request)
            if found is not None:
                return Page(found.body, _REDIS, self._document, found.set_aside)
        served = self._served_by_sql()
        found = await self._fallback.page(request)
        return Page(found.body, self._counted(served), self._document, found.set_aside)

    def _unreadable(self, address: Address, value: Any, stored: bytes) -> UnreadableRowError:
        if address is self.key:  # a row is named by its key, which a copy at another address does not tell
            self._compiled.notices.met(address.encoded(value), stored)
        return UnreadableRowError(self._compiled.entity.table, value, *misfit_of(stored))

    def _counted(self, served: Served) -> Served:
        self.answers_from_sql[served.reason or ""] += 1
        return served

    def _served_by_sql(self) -> Served:
        return Served("sql", "no-redis" if self._source is None else self._source.reason)


def _at_most(most: int, keys: Iterable[Any]) -> list[Any]:
    """Returns the keys. Raises ``InvalidMessage`` for more than ``most``, ``TypeError`` for what is no list."""
    if isinstance(keys, str | bytes | Mapping) or not isinstance(keys, Iterable):
        raise TypeError(f"get_many takes a list of keys, not a value of type {type(keys).__name__}")
    taken = list(itertools.islice(keys, most + 1))
    if len(taken) > most:
        raise InvalidMessage("get_many", [Fault("keys", f"has more than {most} keys: ask in several calls")])
    return taken
