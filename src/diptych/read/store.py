"""One read model in Redis: the names of its keys, and the few operations on them.

All keys of a read model of one declaration carry one hash tag, ``{namespace:ReadModel:declaration}``, here ``m``:

- ``m:lease`` is ``<run id>:<replication id>:<generation>:<history>`` with an absolute expiry: whoever reads it from
  the Redis it names, and has a database with that history, may trust that generation, as it is at that moment.
- ``m:generations`` is a set of the generations that may have left keys.
- ``m:<generation>:marker`` exists while the generation may be written: ``b<n>`` after the builder's script number n,
  ``f<floor>`` once it is built, ``f<floor>:<pass>`` after a pass. What transactions below the floor have changed is
  in.
- ``m:<generation>:d:<key>`` is an 8-byte big-endian stamp, then the document's JSON bytes as they go out; a deleted
  document leaves its stamp alone, a tombstone. The stamp is the change's log position; of a joined document, that of
  the snapshot it was made from (``Snapshot.stamp``).
- ``m:<generation>:i:<list>`` is a sorted set of list entries, all of score 0.
- ``m:<generation>:entries`` is a hash from a document's key to its list entries.
- ``m:<generation>:recent`` is a sorted set of the positions of commands' changes that are in, the last thousand.
- ``m:<generation>:tombstones`` is a sorted set of tombstones (stamp, then document key), by the floor at which each
  may go.
- ``m:<generation>:aside`` is a sorted set of the documents in whose places something else is stored, since their rows
  do not fit (``aside``).
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError

from diptych.ports import STAMP_BYTES, Change, FenceId, Incarnation, Known, Row, Snapshot
from diptych.read import scripts
from diptych.read.connection import Channel, Receiver, packed
from diptych.read.projection import ListIndex, Projection
from diptych.read.redis import Link, RedisService

MAX_DOCUMENTS = 1000
MAX_BYTES = 1_000_000
_PURGED_AT_ONCE = 1000

_RECENT = 64
"""How many positions before its own a command is told of, whether their changes are in."""


class Write(NamedTuple):
    """A document to be written: its key, stamp, transaction, body (None: deleted) and entry in each list.

    ``purge_at`` is the floor at which it may go if it is a tombstone; None if that is not known. ``is_second``: it is
    of the same change as the write before it, and belongs into the same script.
    """

    key: bytes
    stamp: int
    transaction: int
    body: bytes | None
    entries: tuple[bytes, ...]
    purge_at: int | None = None
    is_second: bool = False


class Fetched(NamedTuple):
    """What a page script found: the lease, the last entry if more follow, and the documents with their stamps."""

    lease: bytes | None
    last: bytes
    documents: list[bytes | None]


class FetchedAside(NamedTuple):
    """The lease, how many rows are set aside, and some of them: their keys, with what is stored."""

    lease: bytes | None
    number: int
    named: dict[bytes, bytes]


class Look(NamedTuple):
    """What a keeper has to know of Redis before a pass, all of one moment and of one Redis, ``incarnation``.

    ★ It is worth nothing on another one: of two masters each has a clock, a floor and generations of its own. What is
    computed from a look is therefore handed on with it, to be checked against the Redis that it is used on.

    ``time_ms`` is its clock. ``generations`` are those that may have left keys there. ``maxmemory`` 0: no limit.
    """

    incarnation: Incarnation
    generation: str
    time_ms: int
    generations: frozenset[bytes]
    is_master: bool
    policy: str
    marker: str
    lease: bytes
    used_memory: int
    maxmemory: int

    @property
    def known(self) -> Known:
        """Which generation of which Redis was looked at."""
        return Known(self.incarnation, self.generation)

    @property
    def leased(self) -> Lease | None:
        """The lease in force; None if there is none.

        ★ One that names another server is not: it came with that server's data, and ends by that server's clock.
        """
        lease = Lease.parse(self.lease)
        return lease if lease.incarnation == self.incarnation else None

    @property
    def floor(self) -> int | None:
        """The generation's floor; None if it is not built, or not there."""
        return int(self.marker[1:].partition(":")[0]) if self.marker.startswith("f") else None

    @property
    def passed(self) -> int:
        """The number of the latest pass that this generation was published by; 0 if there was none."""
        return int(self.marker.partition(":")[2] or 0)


class Lease(NamedTuple):
    """What a lease says: which generation of which Redis may be read, by the word of which history of a database."""

    incarnation: Incarnation
    generation: bytes
    history: bytes

    @classmethod
    def parse(cls, text: bytes) -> Lease:
        """The lease of a text; one that names nothing if somebody else has written there."""
        run_id, replication_id, generation, history = [*text.split(b":"), b"", b"", b""][:4]
        server = Incarnation(run_id.decode("latin-1"), replication_id.decode("latin-1"))
        return cls(server, generation, history)

    def is_of_another(self, history: str) -> bool:
        """Whether it is the word of another database, or of this one before it was put elsewhere."""
        return bool(self.history) and self.history != history.encode()


class RedisStore:
    """The operations on one read model in Redis. Each may raise ``RedisUnavailableError``.

    Those that write return ``OK``, or why they did not: ``ELSEWHERE`` (this is not the Redis that was meant),
    ``GONE`` (the generation is not there), ``FOREIGN`` (another database's lease is there), ``BEHIND`` (the data are
    older than the fence relies on), ``CLOSED`` or ``GAP`` (a builder's script out of turn).
    """

    def __init__(self, projection: Projection, redis: RedisService) -> None:
        self._projection = projection
        self._redis = redis
        self.id = FenceId(f"{redis.namespace}:{projection.name}", projection.declaration)
        self._prefix = prefix_of(self.id)
        self._lease = self._prefix + b":lease"
        self._generations = self._prefix + b":generations"
        self._apply = _Script("apply")
        self._missing = _Script("missing", read_only=True)
        self._publish = _Script("publish")
        self._begin = _Script("begin")
        self._bury = _Script("bury")
        self._drop = _Script("drop")
        self._page = _Script("page", read_only=True, common=False)
        self._look = _Script("look", read_only=True, common=False)
        self._list_aside = _Script("aside", read_only=True, common=False)

    # Queries

    async def fetch_aside(self, channel: Channel, generation: bytes, most: int) -> FetchedAside:
        """How many rows are set aside, ``most`` of them by name, and the lease with them."""
        keys = [self._lease, self._aside(generation)]
        lease, number, names, stored = await self._list_aside(channel, keys, [most])
        own = len(self._document(generation, b""))
        named = {name[own:]: what for name, what in zip(names, stored, strict=True) if what}
        return FetchedAside(lease, number, named)

    def fetch(self, channel: Channel, generation: bytes, keys: Iterable[bytes], receiver: Receiver) -> None:
        """Has ``receiver`` given the lease, then the stored documents (stamp and body) with these keys.

        ★ In one command: a lease read before a document may be over, and the document old, when that is read.
        """
        prefix = self._document(generation, b"")
        names = [prefix + key for key in keys]
        channel.send(packed(b"MGET", self._lease, *names), receiver, length=1 + len(names))
        channel.flush()  # those of this turn have been gathered already

    async def fetch_page(
        self, channel: Channel, generation: bytes, index: ListIndex, after: bytes | None, limit: int
    ) -> Fetched:
        """At most ``limit`` documents of a list whose places are greater than ``after``, and the lease with them."""
        # Nothing sorts between a place and the place followed by 0xff: keys are UTF-8, which has no such byte.
        start = b"-" if after is None else b"(" + after + b"\xff"
        keys = [self._lease, self._index(generation, index)]
        reply = await self._page(channel, keys, [self._document(generation, b""), start, limit])
        return Fetched(*reply)

    # Commands and passes

    async def apply(
        self,
        known: Known,
        writes: Sequence[Write],
        *,
        floor: int | None = None,
        told: set[int] | None = None,
    ) -> str:
        """Writes the documents that are newer than what is stored; afterwards the generation has this floor.

        Where these are commands' changes, ``told`` gets the positions of those that are in by then, by any process:
        of these, and of others about as recent.
        """
        return await self._write(known, writes, None, floor, told)

    async def missing(self, known: Known, changes: Sequence[Change]) -> list[Change] | None:
        """Those of these changes that are not in the generation yet; None if this is not the Redis that was meant, or
        the generation is not there. A change needs no more of its rows than their keys.
        """
        at = [(key, change) for change in changes for key in self._addresses(change)]
        found: set[int] = set()
        for start in range(0, len(at), MAX_DOCUMENTS):
            part = at[start : start + MAX_DOCUMENTS]
            generation = known.generation.encode()
            keys = [self._marker(generation), *(self._document(generation, key) for key, _ in part)]
            arguments: list[Any] = [*known.incarnation]
            for _, change in part:
                arguments += [change.position.to_bytes(STAMP_BYTES, "big"), change.transaction]
            async with self._redis.commanding() as link:
                reply = await self._missing(link, keys, arguments)
            if not isinstance(reply, list):
                return None
            found.update(part[number - 1][1].position for number in reply)
        return [change for change in changes if change.position in found]

    def _addresses(self, change: Change) -> set[bytes]:
        """Under which keys the row was, before and after the change."""
        rows = (row for row in (change.before, change.after) if row is not None)
        return {self._projection.key_of(row) for row in rows}

    async def look(self, generation: str) -> Look:
        """The state of Redis and of this generation."""
        async with self._redis.commanding() as link:
            keys = [self._marker(generation.encode()), self._lease, self._generations]
            found = await self._look(link, keys, [])
        seconds, micros, run_id, replication_id, role, policy, marker, lease, generations, used, limit = found
        return Look(
            incarnation=Incarnation(run_id.decode(), replication_id.decode()),
            generation=generation,
            time_ms=int(seconds) * 1000 + int(micros) // 1000,
            generations=frozenset(generations),
            is_master=role == b"master",
            policy=policy.decode(),
            marker=marker.decode(),
            lease=lease,
            used_memory=int(used or 0),
            maxmemory=int(limit or 0),
        )

    async def publish(
        self, look: Look, history: str, lease_ms: int, floor: int, relied_on: int, number: int = 0
    ) -> str:
        """Lets readers trust the generation that was looked at for so long from then on, and purges tombstones.

        ``history`` is the database's, ``floor`` that of the pass, ``relied_on`` the one that the fence takes for
        reached, ``number`` the pass's.
        """
        generation = look.generation.encode()
        keys = [self._lease, self._marker(generation), self._tombstones(generation)]
        lease, ends_ms = self._lease_of(look.known, history), look.time_ms + lease_ms
        # ★ The Redis whose clock was read: by another's the lease would end later than the promise, or never.
        arguments = [*look.incarnation, lease, ends_ms, floor, relied_on, number, _PURGED_AT_ONCE]
        async with self._redis.commanding() as link:
            return await self._answer(self._publish, link, keys, arguments)

    # Builds

    async def begin(self, known: Known) -> str:
        """Starts a generation: from now on it may be written."""
        keys = [self._marker(known.generation.encode()), self._generations]
        async with self._redis.commanding() as link:
            return await self._answer(self._begin, link, keys, [*known.incarnation, known.generation])

    async def backfill(
        self, known: Known, writes: Sequence[Write], number: int, *, floor: int | None = None
    ) -> str:
        """A builder's script, in the order of their numbers from 1; the last one says the floor.

        The writes must be one of ``batches``.
        """
        return await self._write(known, writes, number, floor)

    async def drop(self, known: Known, history: str) -> str:
        """Ends a generation of this history: it is neither read nor written from now on."""
        keys = [self._lease, self._marker(known.generation.encode())]
        async with self._redis.commanding() as link:
            return await self._answer(
                self._drop, link, keys, [*known.incarnation, self._lease_of(known, history)]
            )

    async def delete(self, incarnation: Incarnation, generations: Iterable[bytes]) -> str:
        """Deletes these generations of this Redis, in small steps, since their memory is needed.

        Nothing is deleted on another Redis, nor if one of them is leased.
        """
        generations = list(set(generations))
        if not generations:
            return "OK"
        async with self._redis.commanding() as link:
            if not await _leads_to(link, incarnation):
                return "ELSEWHERE"
            # The markers first: a generation of which only a part is left must be neither written nor published.
            keys = [self._lease, *map(self._marker, generations)]
            outcome = await self._answer(self._bury, link, keys, [*incarnation, *generations])
            if outcome != "OK":
                return outcome
            await _delete(link, self._prefix, [self._key(generation, b"") for generation in generations])
            await link.call("SREM", self._generations, *generations)
        return "OK"

    # Documents

    def writes_of(self, change: Change, purge_at: int | None = None) -> list[Write]:
        """What a change does to this read model: the old address is given up before the new one is taken."""
        writes: list[Write] = []
        before, after = change.before, change.after
        old = None if before is None else self._projection.key_of(before)
        new = None if after is None else self._projection.key_of(after)
        if before is not None and old is not None and old != new:
            writes.append(self.tombstone(old, change.position, change.transaction, purge_at))
        if after is not None:
            written = self.write_of(after, change.position, change.transaction)
            writes.append(written._replace(is_second=bool(writes)))
        return writes

    def write_of(self, row: Row, stamp: int, transaction: int) -> Write:
        """The document of a row, or what stands in its place if the row does not fit: its change is in either way.

        Stamp 0 gives way to everything that is stored already.
        """
        key, places = self._projection.key_of(row), self._projection.places(row)
        indexes = zip(self._projection.lists, places, strict=True)
        entries = tuple(index.entry(place, key) for index, place in indexes)
        body = self._projection.body(row, places)
        self._projection.notices.met(key, body)
        return Write(key, stamp, transaction, body, entries)

    def tombstone(self, key: bytes, stamp: int, transaction: int, purge_at: int | None) -> Write:
        """The end of a document."""
        return Write(key, stamp, transaction, None, (b"",) * len(self._projection.lists), purge_at=purge_at)

    def joined_write(self, row: Row, snapshot: Snapshot) -> Write:
        """The joined document of a row that this snapshot saw."""
        return self.write_of(row, snapshot.stamp, _of(snapshot))

    def joined_tombstone(self, key: bytes, snapshot: Snapshot) -> Write:
        """The end of a joined document that this snapshot did not see."""
        return self.tombstone(key, snapshot.stamp, _of(snapshot), snapshot.xmax)

    async def _write(
        self,
        known: Known,
        writes: Sequence[Write],
        number: int | None,
        floor: int | None,
        told: set[int] | None = None,
    ) -> str:
        parts = batches(writes) or [[]]
        for part in parts:
            reached = floor if part is parts[-1] else None
            recent_from = None if told is None else max(0, min(w.stamp for w in part) - _RECENT)
            reply = await self._write_part(known, part, number, reached, recent_from)
            if told is not None and isinstance(reply, list):
                told.update(struct.unpack(f">{len(reply[1]) // STAMP_BYTES}Q", reply[1]))
            elif reply != b"OK":
                return str(reply.decode())
        return "OK"

    async def _write_part(
        self,
        known: Known,
        part: Sequence[Write],
        number: int | None,
        floor: int | None,
        recent_from: int | None,
    ) -> Any:
        generation = known.generation.encode()
        keys = [self._marker(generation), self._entries(generation), self._tombstones(generation)]
        keys += [self._aside(generation), self._key(generation, b"recent")]
        keys += [self._index(generation, index) for index in self._projection.lists]
        keys += [self._document(generation, write.key) for write in part]
        header = ("" if value is None else value for value in (number, floor, recent_from))
        arguments: list[Any] = [*known.incarnation, *header, len(self._projection.lists)]
        for write in part:
            purge_at = "" if write.purge_at is None else write.purge_at
            stamp = write.stamp.to_bytes(STAMP_BYTES, "big")
            arguments += [stamp, write.transaction, purge_at, write.body or b"", *write.entries]
        async with self._redis.commanding() as link:
            await _leads_to(link, known.incarnation)
            return await self._apply(link, keys, arguments)

    @staticmethod
    async def _answer(script: _Script, link: Link, keys: Sequence[bytes], arguments: Sequence[Any]) -> str:
        reply: bytes = await script(link, keys, arguments)
        return reply.decode()

    def _lease_of(self, known: Known, history: str) -> str:
        return ":".join((*known.incarnation, known.generation, history))

    def _key(self, generation: bytes, rest: bytes) -> bytes:
        return self._prefix + b":" + generation + b":" + rest

    def _marker(self, generation: bytes) -> bytes:
        return self._key(generation, b"marker")

    def _entries(self, generation: bytes) -> bytes:
        return self._key(generation, b"entries")

    def _tombstones(self, generation: bytes) -> bytes:
        return self._key(generation, b"tombstones")

    def _aside(self, generation: bytes) -> bytes:
        return self._key(generation, b"aside")

    def _document(self, generation: bytes, key: bytes) -> bytes:
        return self._key(generation, b"d:" + key)

    def _index(self, generation: bytes, index: ListIndex) -> bytes:
        return self._key(generation, b"i:" + index.name.encode())


class _Script:
    """A script called by its hash, and sent whole when the server does not know it (it was restarted)."""

    def __init__(self, name: str, *, read_only: bool = False, common: bool = True) -> None:
        self._source = scripts.source(name, common=common)
        self._hash: bytes | None = None
        self._command = "EVALSHA_RO" if read_only else "EVALSHA"

    async def __call__(self, link: Link | Channel, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        if self._hash is None:
            self._hash = await link.call("SCRIPT", "LOAD", self._source)
        try:
            return await link.call(self._command, self._hash, len(keys), *keys, *arguments)
        except NoScriptError:
            self._hash = await link.call("SCRIPT", "LOAD", self._source)
            return await link.call(self._command, self._hash, len(keys), *keys, *arguments)


def prefix_of(fence: FenceId) -> bytes:
    """What all keys of a read model of one declaration begin with."""
    return f"{{{fence.read_model}:{fence.declaration}}}".encode()


async def delete_abandoned(redis: RedisService, fence: FenceId) -> bool:
    """Deletes the generations of a read model of a declaration that nobody keeps any more.

    Should somebody begin to keep it again meanwhile, that is with another generation, which is not touched. False,
    and nothing is deleted, if there is a lease: then another database is kept there under the same namespace.
    """
    prefix = prefix_of(fence)
    async with redis.commanding() as link:
        if await link.call("EXISTS", prefix + b":lease"):
            return False
        names = await link.call("SMEMBERS", prefix + b":generations")
        generations = [prefix + b":" + name + b":" for name in names]
        # Together: without a marker a generation is neither written nor published, without a lease it is not read.
        await link.call("UNLINK", prefix + b":lease", *(generation + b"marker" for generation in generations))
        await _delete(link, prefix, generations)
        if names:
            await link.call("SREM", prefix + b":generations", *names)
        return True


async def _leads_to(link: Link, incarnation: Incarnation) -> bool:
    """Whether the connection leads to this Redis; looked at again if it did not."""
    if link.server != incarnation:
        await link.look_again()
    return link.server == incarnation


async def _delete(link: Link, prefix: bytes, generations: Sequence[bytes]) -> None:
    """Deletes what begins with these, in small steps, since Redis answers nobody else meanwhile."""
    async for found in _found(link, prefix):
        doomed = [key for key in found if key.startswith(tuple(generations))]
        if doomed:
            await link.call("UNLINK", *doomed)


async def _found(link: Link, prefix: bytes) -> AsyncIterator[list[bytes]]:
    """The keys that begin with the prefix, some at a time."""
    cursor = b"0"
    while True:
        cursor, keys = await link.call("SCAN", cursor, "MATCH", prefix + b":*", "COUNT", 1000)
        if keys:
            yield keys
        if cursor == b"0":
            return


def _of(snapshot: Snapshot) -> int:
    """The transaction number that stands for a joined document.

    It is refused once the floor has reached the snapshot's ``xmax``: a pass with a later snapshot has been here then,
    and the tombstone that would refuse an older document may be gone.
    """
    return snapshot.xmax - 1


def batches(writes: Sequence[Write]) -> list[list[Write]]:
    """Parts that one script may take: Redis answers nobody else while it runs."""
    batches: list[list[Write]] = []
    size = 0
    for write in writes:
        length = len(write.key) + len(write.body or b"") + sum(map(len, write.entries))
        is_full = bool(batches) and (len(batches[-1]) >= MAX_DOCUMENTS or size + length > MAX_BYTES)
        if not batches or (is_full and not write.is_second):
            batches.append([])
            size = 0
        batches[-1].append(write)
        size += length
    return batches
