"""One read model in Redis: the few operations on it."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from diptych.fence.contract import FenceId, Target
from diptych.log.change import Change
from diptych.read.compiled import CompiledReadModel
from diptych.read.lists.index import ListIndex
from diptych.read.store.deletion import delete_keys
from diptych.read.store.keys import Keys
from diptych.read.store.script import Script
from diptych.read.store.state import RedisState
from diptych.read.store.writes import MAX_DOCUMENTS, STAMP_BYTES, Write, Writes, batches
from diptych.redis.channel import Channel, Receiver, packed
from diptych.redis.identity import RedisIdentity
from diptych.redis.service import Link, RedisService

_PURGED_AT_ONCE = 1000

_RECENT = 64
"""How many positions before its own a command is told of, whether their changes are in."""


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


class RedisStore:
    """The operations on one read model in Redis. Each may raise ``RedisUnavailableError``.

    Those that write return ``OK``, or why they did not: ``ELSEWHERE`` (this is not the Redis that was meant),
    ``GONE`` (the generation is not there), ``FOREIGN`` (another database's lease is there), ``BEHIND`` (the data are
    older than the fence relies on), ``CLOSED`` or ``GAP`` (a builder's script out of turn).
    """

    def __init__(self, compiled: CompiledReadModel, redis: RedisService) -> None:
        self._compiled = compiled
        self._redis = redis
        self.id = FenceId(f"{redis.namespace}:{compiled.name}", compiled.declaration)
        self.writes = Writes(compiled)
        self._keys = Keys(self.id)
        self._apply = Script("apply")
        self._missing = Script("missing", read_only=True)
        self._publish = Script("publish")
        self._begin = Script("begin")
        self._bury = Script("bury")
        self._drop = Script("drop")
        self._page = Script("page", read_only=True, common=False)
        self._inspect = Script("inspect", read_only=True, common=False)
        self._list_aside = Script("aside", read_only=True, common=False)

    # Queries

    async def fetch_aside(self, channel: Channel, generation: bytes, most: int) -> FetchedAside:
        """How many rows are set aside, ``most`` of them by name, and the lease with them."""
        keys = [self._keys.lease, self._keys.set_aside(generation)]
        lease, number, names, stored = await self._list_aside(channel, keys, [most])
        own = len(self._keys.document(generation, b""))
        named = {name[own:]: what for name, what in zip(names, stored, strict=True) if what}
        return FetchedAside(lease, number, named)

    def fetch(self, channel: Channel, generation: bytes, keys: Iterable[bytes], receiver: Receiver) -> None:
        """Has ``receiver`` given the lease, then the stored documents (stamp and body) with these keys.

        ★ In one command: a lease read before a document may be over, and the document old, when that is read.
        """
        prefix = self._keys.document(generation, b"")
        names = [prefix + key for key in keys]
        channel.send(packed(b"MGET", self._keys.lease, *names), receiver, length=1 + len(names))
        channel.flush()  # those of this turn have been gathered already

    async def fetch_page(
        self, channel: Channel, generation: bytes, index: ListIndex, after: bytes | None, limit: int
    ) -> Fetched:
        """At most ``limit`` documents of a list whose places are greater than ``after``, and the lease with them."""
        # Nothing sorts between a place and the place followed by 0xff: keys are UTF-8, which has no such byte.
        start = b"-" if after is None else b"(" + after + b"\xff"
        keys = [self._keys.lease, self._keys.index(generation, index)]
        reply = await self._page(channel, keys, [self._keys.document(generation, b""), start, limit])
        return Fetched(*reply)

    # Commands and passes

    async def apply(
        self,
        known: Target,
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

    async def missing(self, known: Target, changes: Sequence[Change]) -> list[Change] | None:
        """Those of these changes that are not in the generation yet; None if this is not the Redis that was meant, or
        the generation is not there. A change needs no more of its rows than their keys.
        """
        at = [(key, change) for change in changes for key in self._addresses(change)]
        found: set[int] = set()
        for start in range(0, len(at), MAX_DOCUMENTS):
            part = at[start : start + MAX_DOCUMENTS]
            generation = known.generation.encode()
            keys = [self._keys.marker(generation), *(self._keys.document(generation, key) for key, _ in part)]
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
        return {self._compiled.key_of(row) for row in rows}

    async def inspect(self, generation: str) -> RedisState:
        """The state of Redis and of this generation."""
        async with self._redis.commanding() as link:
            keys = [self._keys.marker(generation.encode()), self._keys.lease, self._keys.generations]
            found = await self._inspect(link, keys, [])
        seconds, micros, run_id, replication_id, role, policy, marker, lease, generations, used, limit = found
        return RedisState(
            incarnation=RedisIdentity(run_id.decode(), replication_id.decode()),
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
        self, state: RedisState, history: str, lease_ms: int, floor: int, relied_on: int, number: int = 0
    ) -> str:
        """Lets readers trust the generation that was looked at for so long from then on, and purges tombstones.

        ``history`` is the database's, ``floor`` that of the pass, ``relied_on`` the one that the fence takes for
        reached, ``number`` the pass's.
        """
        generation = state.generation.encode()
        keys = [self._keys.lease, self._keys.marker(generation), self._keys.tombstones(generation)]
        lease, ends_ms = _lease_of(state.known, history), state.time_ms + lease_ms
        # ★ The Redis whose clock was read: by another's the lease would end later than the promise, or never.
        arguments = [*state.incarnation, lease, ends_ms, floor, relied_on, number, _PURGED_AT_ONCE]
        async with self._redis.commanding() as link:
            return await self._answer(self._publish, link, keys, arguments)

    # Builds

    async def begin(self, known: Target) -> str:
        """Starts a generation: from now on it may be written."""
        keys = [self._keys.marker(known.generation.encode()), self._keys.generations]
        async with self._redis.commanding() as link:
            return await self._answer(self._begin, link, keys, [*known.incarnation, known.generation])

    async def backfill(
        self, known: Target, writes: Sequence[Write], number: int, *, floor: int | None = None
    ) -> str:
        """A builder's script, in the order of their numbers from 1; the last one says the floor.

        The writes must be one of ``batches``.
        """
        return await self._write(known, writes, number, floor)

    async def drop(self, known: Target, history: str) -> str:
        """Ends a generation of this history: it is neither read nor written from now on."""
        keys = [self._keys.lease, self._keys.marker(known.generation.encode())]
        async with self._redis.commanding() as link:
            return await self._answer(self._drop, link, keys, [*known.incarnation, _lease_of(known, history)])

    async def delete(self, incarnation: RedisIdentity, generations: Iterable[bytes]) -> str:
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
            keys = [self._keys.lease, *map(self._keys.marker, generations)]
            outcome = await self._answer(self._bury, link, keys, [*incarnation, *generations])
            if outcome != "OK":
                return outcome
            await delete_keys(
                link, self._keys.prefix, [self._keys.of(generation, b"") for generation in generations]
            )
            await link.call("SREM", self._keys.generations, *generations)
        return "OK"

    async def _write(
        self,
        known: Target,
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
        known: Target,
        part: Sequence[Write],
        number: int | None,
        floor: int | None,
        recent_from: int | None,
    ) -> Any:
        generation = known.generation.encode()
        keys = [
            self._keys.marker(generation),
            self._keys.entries(generation),
            self._keys.tombstones(generation),
        ]
        keys += [self._keys.set_aside(generation), self._keys.recent(generation)]
        keys += [self._keys.index(generation, index) for index in self._compiled.lists]
        keys += [self._keys.document(generation, write.key) for write in part]
        header = ("" if value is None else value for value in (number, floor, recent_from))
        arguments: list[Any] = [*known.incarnation, *header, len(self._compiled.lists)]
        for write in part:
            purge_at = "" if write.purge_at is None else write.purge_at
            stamp = write.stamp.to_bytes(STAMP_BYTES, "big")
            arguments += [stamp, write.transaction, purge_at, write.body or b"", *write.entries]
        async with self._redis.commanding() as link:
            await _leads_to(link, known.incarnation)
            return await self._apply(link, keys, arguments)

    @staticmethod
    async def _answer(script: Script, link: Link, keys: Sequence[bytes], arguments: Sequence[Any]) -> str:
        reply: bytes = await script(link, keys, arguments)
        return reply.decode()


def _lease_of(known: Target, history: str) -> str:
    return ":".join((*known.incarnation, known.generation, history))


async def _leads_to(link: Link, incarnation: RedisIdentity) -> bool:
    """Whether the connection leads to this Redis; looked at again if it did not."""
    if link.server != incarnation:
        await link.identify()
    return link.server == incarnation
