"""The operations of keepers and commands on a read model in Redis."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from diptych.fence.contract import FenceId, Target
from diptych.log import NOTHING, Change, Snapshot
from diptych.read.compiled import CompiledReadModel
from diptych.read.lists.index import unpacked
from diptych.read.store.deletion import delete_keys
from diptych.read.store.keys import Keys
from diptych.read.store.reads import LONGEST_SWITCH_S, Reads
from diptych.read.store.script import Script
from diptych.read.store.state import RedisState, lease_text
from diptych.read.store.survey import Survey, survey_of
from diptych.read.store.writes import MAX_DOCUMENTS, Write, Writes, batches
from diptych.read.stored import STAMP_BYTES, stamp_bytes
from diptych.redis import RedisIdentity, WrongContentsError
from diptych.redis.service import Channel, RedisService

_PURGED_AT_ONCE = 1000
"""Number of tombstones that one pass purges at most."""

_RECENT = 64
"""Number of positions before its own of which a command is told if their changes are in."""


class RedisStore:
    """The operations on a read model in Redis; queries use ``reads``. Each may raise ``RedisUnavailableError``.

    Writing operations return ``OK``, or why nothing was written: ``ELSEWHERE`` (this is another incarnation),
    ``GONE`` (the generation is not there), ``FOREIGN`` (another database's lease is there), ``BEHIND`` (the data are
    older than the fence relies on), ``CLOSED`` or ``GAP`` (a builder's script out of turn). ``on_wrong`` is called
    with a generation where a key holds a value of another type, and with words for that.
    """

    def __init__(self, compiled: CompiledReadModel, redis: RedisService) -> None:
        self._compiled = compiled
        self._redis = redis
        lists = enumerate(compiled.lists, 1)
        self._several = ",".join(str(number) for number, index in lists if index.collection is not None)
        self.id = FenceId(f"{redis.namespace}:{compiled.name}", compiled.fingerprint)
        self.writes = Writes(compiled)
        self._keys = Keys(self.id)
        self.reads = Reads(self._keys)
        self._apply = Script("apply")
        self._missing = Script("missing", read_only=True)
        self._publish = Script("publish")
        self._begin = Script("begin")
        self._bury = Script("bury")
        self._drop = Script("drop")
        self._inspect = Script("inspect", read_only=True)
        self.on_wrong: Callable[[str, str], None] = lambda _generation, _problem: None

    # Commands and passes

    async def apply(
        self,
        target: Target,
        writes: Sequence[Write],
        *,
        floor: int | None = None,
        told: set[int] | None = None,
        carried: Snapshot | None = None,
    ) -> str:
        """Writes each document newer than the stored document; afterwards the generation has this floor.

        For commands' changes, ``told`` gets the positions of the changes that are in by then, by any process: of
        these, and of others about as recent. With these documents all changes that ``carried`` has seen are in.
        """
        try:
            return await self._write(target, writes, None, floor, told, carried)
        except WrongContentsError as error:
            self.on_wrong(target.generation, str(error))
            raise

    async def missing(self, target: Target, changes: Sequence[Change]) -> list[Change] | None:
        """Returns the changes not in the generation yet; None if the incarnation or the generation is not there.

        A change needs no more of its rows than their keys.
        """
        at = [(key, change) for change in changes for key in self._addresses_of(change)]
        found: set[int] = set()
        for start in range(0, len(at), MAX_DOCUMENTS):
            part = at[start : start + MAX_DOCUMENTS]
            generation = target.generation.encode()
            keys = [self._keys.marker(generation), *(self._keys.document(generation, key) for key, _ in part)]
            arguments: list[Any] = [*target.incarnation]
            for _, change in part:
                arguments += [stamp_bytes(change.position), change.transaction]
            async with self._redis.commanding() as link:
                reply = await self._missing(link, keys, arguments)
            if not isinstance(reply, list):
                return None
            found.update(part[number - 1][1].position for number in reply)
        return [change for change in changes if change.position in found]

    def _addresses_of(self, change: Change) -> set[bytes]:
        """Returns the keys of the row's document, and of its copies, before and after the change."""
        rows = (row for row in (change.before, change.after) if row is not None)
        return {key for row in rows for key in self._compiled.addresses_of(row)}

    async def inspect(self, generation: str) -> RedisState:
        """Returns the state of Redis and of this generation."""
        async with self._redis.commanding() as link:
            keys = [self._keys.marker(generation.encode()), self._keys.lease, self._keys.generations]
            keys.append(self._keys.carried(generation.encode()))
            found = await self._inspect(link, keys, [])
        seconds, micros, run_id, replication_id, role, policy, *found = found
        marker, lease, generations, carried, used, limit = found
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
            carried=Snapshot.parse(carried[STAMP_BYTES:].decode()) if carried else NOTHING,
        )

    async def survey(self, generation: str) -> Survey:
        """Returns what people want to know of this generation. Changes nothing."""
        async with self._redis.commanding() as link:
            return await survey_of(link, self._keys, self._compiled.lists, generation.encode())

    async def publish(
        self, state: RedisState, history: str, lease_ms: int, floor: int, relied_on: int, number: int = 0
    ) -> str:
        """Lets queries trust the generation of ``state`` for ``lease_ms`` from then on, and purges tombstones.

        ``history`` is the database's, ``floor`` and ``number`` are the pass's, ``relied_on`` is the floor that the
        fence takes for reached.
        """
        generation = state.generation.encode()
        keys = [self._keys.lease, self._keys.marker(generation), self._keys.tombstones(generation)]
        keys.append(self._keys.keeper)
        lease, ends_ms = lease_text(state.target, history), state.time_ms + lease_ms
        # ★ The Redis whose clock was read: by another's the lease would end later than the promise, or never.
        arguments = [*state.incarnation, lease, ends_ms, floor, relied_on, number, _PURGED_AT_ONCE]
        arguments.append(f"{socket.gethostname()}:{os.getpid()}")
        async with self._redis.commanding() as link:
            return await self._answer(self._publish, link, keys, arguments)

    # Builds

    def entry_count(self, write: Write) -> int:
        """Returns the number of list entries of a write, about."""
        pairs = zip(self._compiled.lists, write.entries, strict=False)
        return sum(1 if index.collection is None else len(unpacked(entries)) for index, entries in pairs)

    async def begin(self, target: Target) -> str:
        """Begins a generation, which may be written from now on."""
        keys = [self._keys.marker(target.generation.encode()), self._keys.generations]
        async with self._redis.commanding() as link:
            return await self._answer(self._begin, link, keys, [*target.incarnation, target.generation])

    async def backfill(
        self, target: Target, writes: Sequence[Write], number: int, *, floor: int | None = None
    ) -> str:
        """Writes a part of a build. Parts are numbered from 1 and must come in order; the last has the floor.

        ``writes`` must be a part as ``batches`` makes them.
        """
        return await self._write(target, writes, number, floor)

    async def drop(self, target: Target, history: str, *, replaced: bool = False) -> str:
        """Ends a generation of this history, which is neither read nor written from now on.

        With ``replaced`` another generation is published next: queries wait for it, for a second at most.
        """
        keys = [self._keys.lease, self._keys.marker(target.generation.encode()), self._keys.switching]
        wait_ms = int(LONGEST_SWITCH_S * 1000) if replaced else ""
        async with self._redis.commanding() as link:
            return await self._answer(
                self._drop, link, keys, [*target.incarnation, lease_text(target, history), wait_ms]
            )

    async def delete(
        self,
        incarnation: RedisIdentity,
        generations: Iterable[bytes],
        rest: Callable[[], Awaitable[None]] | None = None,
    ) -> str:
        """Deletes these generations of this incarnation, in small steps, with ``rest`` after each.

        Nothing is deleted on another incarnation, nor if one of the generations is leased.
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
            doomed = [self._keys.of(generation, b"") for generation in generations]
            await delete_keys(link, self._keys.prefix, doomed, rest)
            await link.call("SREM", self._keys.generations, *generations)
        return "OK"

    async def _write(
        self,
        target: Target,
        writes: Sequence[Write],
        number: int | None,
        floor: int | None,
        told: set[int] | None = None,
        carried: Snapshot | None = None,
    ) -> str:
        parts = batches(writes) or [[]]
        for part in parts:
            is_last = part is parts[-1]
            reached, seen = (floor, carried) if is_last else (None, None)
            recent_from = None if told is None else max(0, min(w.stamp for w in part) - _RECENT)
            reply = await self._write_part(target, part, number, reached, recent_from, seen)
            if told is not None and isinstance(reply, list):
                told.update(struct.unpack(f">{len(reply[1]) // STAMP_BYTES}Q", reply[1]))
            elif reply != b"OK":
                return str(reply.decode())
        return "OK"

    async def _write_part(
        self,
        target: Target,
        part: Sequence[Write],
        number: int | None,
        floor: int | None,
        recent_from: int | None,
        carried: Snapshot | None,
    ) -> Any:
        generation = target.generation.encode()
        copies = [write for write in part if write.is_copy] if self._compiled.also else []
        if copies:
            part = [*(write for write in part if not write.is_copy), *copies]
        names = self._keys
        of_generation = (
            names.marker,
            names.entries,
            names.tombstones,
            names.set_aside,
            names.recent,
            names.carried,
        )
        keys = [name(generation) for name in of_generation]
        keys += [names.index(generation, index) for index in self._compiled.lists]
        keys += [names.document(generation, write.key) for write in part]
        header = ("" if value is None else value for value in (number, floor, recent_from))
        numbers = [len(self._compiled.lists), len(copies), self._several]
        seen = b"" if carried is None else stamp_bytes(carried.stamp) + str(carried).encode()
        arguments: list[Any] = [*target.incarnation, *header, *numbers, seen]
        for write in part:
            arguments += _arguments_of(write)
        async with self._redis.commanding() as link:
            await _leads_to(link, target.incarnation)
            return await self._apply(link, keys, arguments)

    @staticmethod
    async def _answer(script: Script, link: Channel, keys: Sequence[bytes], arguments: Sequence[Any]) -> str:
        reply: bytes = await script(link, keys, arguments)
        return reply.decode()


def _arguments_of(write: Write) -> list[Any]:
    purge_at = "" if write.purge_at is None else write.purge_at
    return [stamp_bytes(write.stamp), write.transaction, purge_at, write.body or b"", *write.entries]


async def _leads_to(link: Channel, incarnation: RedisIdentity) -> bool:
    """Says if the connection leads to this incarnation; the server is asked again if not."""
    if link.server != incarnation:
        await link.identify()
    return link.server == incarnation
