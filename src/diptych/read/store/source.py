"""The Redis route of a read model: answers read together with a trusted lease."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias, TypeVar

from diptych.aio.sharing import Batch, Batcher
from diptych.errors import RedisUnavailableError
from diptych.read.lists.in_redis import StoredPage
from diptych.read.lists.page import PageBody, PageRequest
from diptych.read.set_aside import SetAside, SetAsideRow, misfit_of, shown_key
from diptych.read.store.reads import StoredAside
from diptych.read.store.state import Lease
from diptych.read.store.store import RedisStore
from diptych.read.stored import bodies_of, body_of
from diptych.redis import RedisIdentity, WrongContentsError
from diptych.redis.channel import Channel
from diptych.redis.service import RedisService

T = TypeVar("T")

LookUps: TypeAlias = Batch[bytes, bytes | None]
"""A batch of look-ups: keys, and bodies (empty without a row, None if Redis is not to be trusted)."""

_TRIES = 3
"""Number of reads of a query, of which each may find another generation leased."""

_NO_LEASE = "no-lease"
_OTHER_SERVER = "other-server"
_OTHER_DATABASE = "other-database"
_OTHER_GENERATION = "other-generation"
"""Reasons against trust in an answer; queries are told of all but the last, after which they read again."""

_NAMED = 10
"""Number of set-aside rows that health names at most."""

_KEYS_AT_ONCE = 64
"""Number of keys of one command at most: with more, the first documents found would wait longer than it gains."""

_COMMANDS_AT_ONCE = 16
"""Number of commands under way at most. Further look-ups wait here, where a cancelled one costs Redis nothing."""

_PAGES_AT_ONCE = 64
"""Number of pages, and of answers with many documents, under way at most. Redis keeps a reply until it is read: a
thousand pages of large documents would take its memory."""


class Watch(Protocol):
    """Observer of which store answered; implemented by ``hinge.Status``."""

    @property
    def reason(self) -> str:
        """The reason why SQL answers, as a short token."""

    def answered_by_redis(self, answers: int) -> None:
        """Notes a number of queries that Redis has answered; 0 notes that Redis would have answered a query."""

    def answered_by_sql(self, reason: str) -> None:
        """Takes note of a query without a trusted lease in Redis."""

    def broken(self, generation: str, problem: str) -> None:
        """Takes note of wrong contents of a leased generation."""


class RedisSource:
    """A read model in Redis as queries see it.

    ★ An answer counts only with a lease read in the same command: the lease must name the Redis at the other end, the
    generation read and the history of this application's database. Queries raise ``RedisUnavailableError`` if Redis
    is critical and away.
    """

    def __init__(self, store: RedisStore, redis: RedisService, watch: Watch) -> None:
        self._reads = store.reads
        self._redis = redis
        self._watch = watch
        self._generation = self._history = b""
        self._trusted: tuple[bytes, RedisIdentity, bytes] | None = None  # lease, server and generation
        self._switch: asyncio.Task[bool] | None = None
        self.look_ups: Batcher[bytes, bytes | None] = Batcher(
            self._look_up, max_keys=_KEYS_AT_ONCE, max_batches=_COMMANDS_AT_ONCE
        )
        """Look-ups by key: the document's body, empty if there is no such row, None if Redis is not to be trusted."""
        self._pages = asyncio.Semaphore(_PAGES_AT_ONCE)

    @property
    def reason(self) -> str:
        """The reason why SQL answers, as a short token."""
        return self._watch.reason

    def is_of(self, history: str) -> None:
        """Takes note of the history of this application's database: only leases of this history count."""
        if self._history != history.encode():
            self._history, self._trusted = history.encode(), None

    async def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes] | None:
        """Returns the bodies of documents, empty without a row; None if Redis is not to be trusted.

        They are read by one command, and are no part of a batch, whose other look-ups would wait for them.
        """
        async with self._pages:
            return await self._bodies(keys, answers=1)

    async def page(self, request: PageRequest) -> PageBody | None:
        """Returns the page; None if Redis is not to be trusted."""

        async def read(channel: Channel, generation: bytes) -> tuple[bytes | None, StoredPage]:
            page = await self._reads.page(channel, generation, request)
            return page.lease, page

        async with self._pages:
            found = await self._read(read)
        if found is None:
            return None
        generation, page = found
        body = page.body(request)
        if body is None:
            # Entries and documents move together: somebody else has been at these keys.
            self._watch.broken(generation.decode(), "a list names a document that is not there")
            return None
        self._watch.answered_by_redis(1)
        return body

    async def set_aside(self) -> SetAside | None:
        """Returns the set-aside rows; None if Redis is not to be trusted.

        Tells ``watch`` as a query would, so that it knows which store would answer one now.
        """

        async def read(channel: Channel, generation: bytes) -> tuple[bytes | None, StoredAside]:
            aside = await self._reads.set_aside(channel, generation, _NAMED)
            return aside.lease, aside

        found = None
        with contextlib.suppress(RedisUnavailableError):
            found = await self._read(read)
        if found is None:
            return None
        _, aside = found
        rows = (SetAsideRow(shown_key(k), misfit_of(body_of(v)).field) for k, v in aside.named.items())
        return SetAside(aside.number, tuple(rows))

    # Look-ups

    def _look_up(self, batch: LookUps) -> None:
        channel, generation = self._redis.channel, self._generation
        if channel is None or self._trusted is None:
            batch.resolve_later(self._bodies_or_none(batch.keys))
        else:
            self._reads.documents(
                channel, generation, batch.keys, _BatchReceiver(self, batch, channel, generation)
            )

    def _resolve(
        self, batch: LookUps, channel: Channel, generation: bytes, reply: Sequence[bytes | None]
    ) -> None:
        lease, *documents = reply
        if (lease, channel.server, generation) == self._trusted:  # as nearly always
            self._redis.answered()
            self._watch.answered_by_redis(len(documents))
            batch.resolve(bodies_of(documents))
        else:
            batch.resolve_later(self._bodies_or_none(batch.keys))

    async def _bodies_or_none(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Returns the values of a batch."""
        found = await self._bodies(keys, answers=len(keys))
        return [None] * len(keys) if found is None else found

    async def _bodies(self, keys: Sequence[bytes], *, answers: int) -> list[bytes] | None:
        """Returns the bodies of documents, with as many reads as necessary; None if Redis is not to be trusted."""

        async def read(channel: Channel, generation: bytes) -> tuple[bytes | None, list[bytes | None]]:
            reply: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
            self._reads.documents(channel, generation, keys, reply)
            lease, *documents = await reply
            return lease, documents

        found = await self._read(read, answers)
        return None if found is None else bodies_of(found[1])

    async def _without_redis(self, keys: Sequence[bytes], error: Exception) -> Sequence[None]:
        self._failed(error)
        return [None] * len(keys)

    # Trust

    async def _read(
        self, read: Callable[[Channel, bytes], Awaitable[tuple[bytes | None, T]]], answers: int = 0
    ) -> tuple[bytes, T] | None:
        """Calls ``read`` until its lease is to be trusted. Returns the generation and the result.

        ``read`` gets a channel and a generation and returns the lease's text and the result. Returns None if SQL
        has to answer; ``watch`` is told, and that this was so many ``answers``.
        """
        redis = self._redis
        if not redis.available:
            self._check_redis()
            return None
        try:
            channel = redis.channel or await redis.queries.opened()
            has_identified = False
            for _ in range(_TRIES):
                generation = self._generation
                lease, found = await read(channel, generation)
                redis.answered()
                was_trusted = self._trusted is not None
                doubt = self._doubt(lease, channel.server, generation)
                if not doubt:
                    self._watch.answered_by_redis(answers)
                    return generation, found
                if doubt == _OTHER_SERVER and not has_identified:
                    await channel.identify()
                    has_identified = True
                elif doubt == _NO_LEASE and (was_trusted or self._switch) and await self._switched(channel):
                    continue
                elif doubt != _OTHER_GENERATION:
                    break
            self._watch.answered_by_sql(_OTHER_SERVER if doubt == _OTHER_GENERATION else doubt)
        except Exception as error:
            self._failed(error)
        return None

    async def _switched(self, channel: Channel) -> bool:
        """Waits while a rebuilt generation is put in place of another. Returns True if there is a lease then.

        SQL, which costs more, would get all queries of these milliseconds at once, and those after them would wait
        until it has answered them. All queries share the wait.
        """
        if self._switch is None:
            self._switch = asyncio.create_task(self._reads.switched(channel))
            self._switch.add_done_callback(self._switch_ended)
        return await asyncio.shield(self._switch)

    def _switch_ended(self, waiting: asyncio.Task[bool]) -> None:
        self._switch = None
        if not waiting.cancelled():
            waiting.exception()  # told to those who wait, if anybody still does

    def _doubt(self, text: bytes | None, server: RedisIdentity, generation: bytes) -> str:
        """Returns the reason against trust in this lease and the data read with it; "" without a reason.

        Takes note of the lease and of its generation.
        """
        if (text, server, generation) == self._trusted:  # as nearly always
            return ""
        if not text:
            self._trusted = None
            return _NO_LEASE
        lease = Lease.parse(text)
        # ★ Another application's database may have documents under the same keys.
        if lease.history != self._history:
            return _OTHER_DATABASE if self._history else _NO_LEASE
        # ★ A lease is the word of one incarnation of Redis: another (restarted from a dump that held the lease, or a
        # second master) may have the lease, and lack what was written since.
        if lease.incarnation != server:
            return _OTHER_SERVER
        if lease.generation != generation:
            self._generation = lease.generation
            return _OTHER_GENERATION
        self._trusted = (text, server, generation)
        return ""

    def _failed(self, error: Exception) -> None:
        """Takes note of a query without an answer. Raises errors not of Redis, and any error if Redis is critical."""
        try:
            self._redis.failed(error)
        except WrongContentsError as wrong:
            self._watch.broken(self._generation.decode(), str(wrong))
        else:
            self._check_redis()

    def _check_redis(self) -> None:
        if self._redis.critical:
            self._redis.check_available()
            raise RedisUnavailableError(f"Redis at {self._redis.address} did not answer in time")


class _BatchReceiver:
    """The receiver of a batch's reply; resolves the batch at once, where a future would do so a turn later."""

    def __init__(self, source: RedisSource, batch: LookUps, channel: Channel, generation: bytes) -> None:
        self._source = source
        self._batch = batch
        self._channel = channel
        self._generation = generation

    def done(self) -> bool:
        return False

    def set_result(self, reply: Sequence[bytes | None]) -> None:
        self._source._resolve(self._batch, self._channel, self._generation, reply)

    def set_exception(self, error: Exception) -> None:
        self._batch.resolve_later(self._source._without_redis(self._batch.keys, error))
