"""The Redis route of a read model: what is found, if the lease that is found with it is to be trusted."""

from __future__ import annotations

import asyncio
import contextlib
import operator
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from diptych.aio.batcher import Batch, Batcher
from diptych.errors import RedisUnavailableError
from diptych.read.lists.index import ListIndex
from diptych.read.lists.page import PageBody, page_body
from diptych.read.set_aside import SetAside, SetAsideRow, misfit_of, shown_key
from diptych.read.store.state import Lease
from diptych.read.store.store import Fetched, FetchedAside, RedisStore
from diptych.read.store.writes import STAMP_BYTES
from diptych.redis.channel import Channel
from diptych.redis.identity import RedisIdentity
from diptych.redis.service import RedisService

T = TypeVar("T")

_TRIES = 3

_body_of: Callable[[Any], bytes] = operator.itemgetter(slice(STAMP_BYTES, None))
"""The body in what is stored, taken out in C."""

_NAMED = 10
"""Number of set-aside rows that health names at most."""

_KEYS_AT_ONCE = 64
"""Number of keys of one command at most: with more, the first documents found would wait longer than it gains."""

_COMMANDS_AT_ONCE = 16
"""Number of commands under way at most. Further look-ups wait here, where a cancelled one costs Redis nothing."""

_PAGES_AT_ONCE = 64
"""Redis keeps a reply until it is read: a thousand pages of large documents would take its memory."""


class Watch(Protocol):
    """Observer of which store answered; implemented by ``hinge.Status``."""

    @property
    def reason(self) -> str:
        """Why SQL answers, as a short token."""

    def answered_by_redis(self) -> None:
        """A query was served from Redis."""

    def answered_by_sql(self, reason: str) -> None:
        """A query was not, although Redis was asked: it gave no lease that this process may trust."""

    def broken(self, generation: str, problem: str) -> None:
        """What is in this generation proved to be wrong, although it was leased."""


class RedisSource:
    """A read model in Redis as queries see it: what is found, if the lease found with it is to be trusted.

    Raises ``RedisUnavailableError`` if Redis is critical and away.
    """

    def __init__(self, store: RedisStore, redis: RedisService, watch: Watch) -> None:

        self._store = store
        self._redis = redis
        self._watch = watch
        self._generation = self._history = b""
        self._vouched: tuple[bytes, RedisIdentity, bytes] | None = None
        self.look_ups = Batcher(self._look_up, max_keys=_KEYS_AT_ONCE, max_batches=_COMMANDS_AT_ONCE)
        """By keys. Awaited, a look-up is the document's body, empty if there is no such row; None if Redis is not to
        be trusted."""
        self._pages = asyncio.Semaphore(_PAGES_AT_ONCE)
        self._parse = Lease.parse

    @property
    def reason(self) -> str:
        """Why SQL answers."""
        return self._watch.reason

    def is_of(self, history: str) -> None:
        """Takes note of the history that this application's database has: only its own word counts."""
        if self._history != history.encode():
            self._history, self._vouched = history.encode(), None

    async def page(self, index: ListIndex, after: bytes | None, limit: int) -> PageBody | None:
        """The page; None if Redis is not to be trusted."""

        async def read(channel: Channel, generation: bytes) -> tuple[bytes | None, Fetched]:
            fetched = await self._store.fetch_page(channel, generation, index, after, limit)
            return fetched.lease, fetched

        async with self._pages:
            found = await self._trusted(read)
        if found is None:
            return None
        generation, page = found
        bodies = [] if None in page.documents else list(map(_body_of, page.documents))
        if len(bodies) < len(page.documents) or not all(bodies):
            # Entries and documents move together: somebody else has been at these keys.
            self._watch.broken(generation.decode(), "a list names a document that is not there")
            return None
        return page_body(bodies, index.cursor(index.sort_key_of(page.last)) if page.last else None)

    async def set_aside(self) -> SetAside | None:
        """Which rows are set aside; None if Redis is not to be trusted.

        And has ``watch`` told which store would answer a query now.
        """

        async def read(channel: Channel, generation: bytes) -> tuple[bytes | None, FetchedAside]:
            fetched = await self._store.fetch_aside(channel, generation, _NAMED)
            return fetched.lease, fetched

        found = None
        with contextlib.suppress(RedisUnavailableError):
            found = await self._trusted(read)
        if found is None:
            return None
        named = ((key, stored[STAMP_BYTES:]) for key, stored in found[1].named.items())
        rows = (SetAsideRow(shown_key(key), misfit_of(body).field) for key, body in named)
        return SetAside(found[1].number, tuple(rows))

    def _look_up(self, batch: Batch[bytes, bytes | None]) -> None:
        channel, generation = self._redis.channel, self._generation
        if channel is None or self._vouched is None:
            batch.resolve_later(self._bodies(batch.keys))
        else:
            self._store.fetch(channel, generation, batch.keys, _ShortWay(self, batch, channel, generation))

    def _deal_out(
        self,
        batch: Batch[bytes, bytes | None],
        channel: Channel,
        generation: bytes,
        reply: Sequence[bytes | None],
    ) -> None:
        lease, *documents = reply
        if (lease, channel.server, generation) == self._vouched:  # as nearly always
            self._redis.answered()
            self._watch.answered_by_redis()
            batch.resolve(_bodies_of(documents))
        else:
            batch.resolve_later(self._bodies(batch.keys))

    async def _bodies(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """What ``look_ups`` promises, for each of the keys."""

        async def read(channel: Channel, generation: bytes) -> tuple[bytes | None, list[bytes | None]]:
            reply: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
            self._store.fetch(channel, generation, keys, reply)
            lease, *documents = await reply
            return lease, documents

        found = await self._trusted(read)
        return [None] * len(keys) if found is None else _bodies_of(found[1])

    async def _given_up(self, keys: Sequence[bytes], error: Exception) -> Sequence[None]:
        self._failed(error)
        return [None] * len(keys)

    async def _trusted(
        self, read: Callable[[Channel, bytes], Awaitable[tuple[bytes | None, T]]]
    ) -> tuple[bytes, T] | None:
        """What was read together with a lease that names this Redis and a generation; and that generation."""
        redis = self._redis
        if not redis.available:
            self._check_redis()
            return None
        try:
            channel = redis.channel or await redis.queries.opened()
            has_looked = False
            for _ in range(_TRIES):
                generation = self._generation
                text, found = await read(channel, generation)
                redis.answered()
                if (text, channel.server, generation) == self._vouched:  # as nearly always
                    self._watch.answered_by_redis()
                    return generation, found
                if not text:
                    self._vouched = None
                    self._watch.answered_by_sql("no-lease")
                    return None
                lease = self._parse(text)
                # ★ Another application's database may have documents under the same keys.
                if lease.history != self._history:
                    self._watch.answered_by_sql("other-database" if self._history else "no-lease")
                    return None
                # ★ A lease is the word of one life of one Redis: another one (restarted from a dump that held the
                # lease, or a second master) may have it, and lack what was written since.
                if lease.incarnation != channel.server:
                    if has_looked:
                        break
                    await redis.identify(channel)
                    has_looked = True
                elif lease.generation != generation:
                    self._generation = lease.generation
                else:
                    self._vouched = (text, channel.server, generation)
                    self._watch.answered_by_redis()
                    return generation, found
            self._watch.answered_by_sql("other-server")
            return None
        except Exception as error:
            self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        """Takes note that Redis did not answer. Raises what is not its fault, and if Redis is critical."""
        self._redis.failed(error)
        self._check_redis()

    def _check_redis(self) -> None:
        if self._redis.critical:
            self._redis.check_available()
            raise RedisUnavailableError(f"Redis at {self._redis.address} did not answer in time")


class _ShortWay:
    """Takes the reply to a batch at once. A future would hand it on in the next turn of the loop."""

    def __init__(
        self, source: RedisSource, batch: Batch[bytes, bytes | None], channel: Channel, generation: bytes
    ) -> None:
        self._source = source
        self._batch = batch
        self._channel = channel
        self._generation = generation

    def done(self) -> bool:
        return False

    def set_result(self, reply: Sequence[bytes | None]) -> None:
        self._source._deal_out(self._batch, self._channel, self._generation, reply)

    def set_exception(self, error: Exception) -> None:
        self._batch.resolve_later(self._source._given_up(self._batch.keys, error))


def _bodies_of(documents: Sequence[bytes | None]) -> list[bytes]:
    """What is stored without its stamp; empty where there is nothing, or a tombstone."""
    return [_body_of(stored) if stored else b"" for stored in documents]
