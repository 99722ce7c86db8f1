"""One read model in Redis: the names of its keys, and the few operations on them.

All keys of a read model carry one hash tag, ``{namespace:ReadModel}``, here ``m``:

- ``m:lease`` names whom readers may trust: ``<run id>:<generation>``; while that generation is being built, the
  same with ``building:`` before it; ``shared`` once a process wrote that the lease's holder has not heard of.
- ``m:generations`` is a set of the generations that may have left keys.
- ``m:<generation>:marker`` exists while the generation may be written.
- ``m:<generation>:d:<key>`` is an 8-byte big-endian log position, then the document's JSON bytes as they go out;
  a deleted document leaves its position alone.
- ``m:<generation>:i:<list>`` is a sorted set of list entries, all of score 0.
- ``m:<generation>:entries`` is a hash from a document's key to its list entries, to find the former ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError

from diptych.ports import STAMP_BYTES, Change, Row
from diptych.read import scripts
from diptych.read.projection import ListIndex, Projection, key_bytes
from diptych.read.redis import RedisService

MAX_DOCUMENTS = 500
MAX_BYTES = 1_000_000


class Write(NamedTuple):
    """A document to be written: its key, log position, body (None: deleted) and entry in each list."""

    key: bytes
    position: int
    body: bytes | None
    entries: tuple[bytes, ...]


class Fetched(NamedTuple):
    """What a page script found: the lease, the documents with their stamps, the last entry if more follow."""

    lease: bytes | None
    documents: list[bytes | None]
    last: bytes | None


class RedisStore:
    """The operations on one read model in Redis. Each may raise ``RedisUnavailableError``."""

    def __init__(self, projection: Projection, redis: RedisService) -> None:
        self._projection = projection
        self._redis = redis
        tag = f"{{{redis.namespace}:{projection.name}}}"
        self._prefix = tag.encode()
        self._lease = self._prefix + b":lease"
        self._generations = self._prefix + b":generations"
        self._apply = _Script("apply")
        self._page = _Script("page", read_only=True)
        self._publish = _Script("publish")

    async def fetch(self, generation: bytes, key: Any) -> tuple[bytes | None, bytes | None]:
        """The lease and the stored document (stamp and body), read together."""
        async with self._redis.querying() as client:
            lease, stored = await client.mget(self._lease, self._document(generation, key_bytes(key)))
        return lease, stored

    async def fetch_page(
        self, generation: bytes, index: ListIndex, after: bytes | None, limit: int
    ) -> Fetched:
        """At most ``limit`` documents of a list whose places are greater than ``after``."""
        # Nothing sorts between a place and the place followed by 0xff: keys are UTF-8, which has no such byte.
        start = b"-" if after is None else b"(" + after + b"\xff"
        keys = [self._lease, self._index(generation, index)]
        async with self._redis.querying() as client:
            reply = await self._page(client, keys, [self._document(generation, b""), start, limit])
        return Fetched(lease=reply[0], last=reply[1] or None, documents=reply[2:])

    async def lease(self) -> bytes | None:
        """The lease as it is now."""
        async with self._redis.commanding() as client:
            found: bytes | None = await client.get(self._lease)
        return found

    async def begin(self, generation: bytes, lease: bytes) -> set[bytes]:
        """Starts a new generation that may be written; readers trust none until it is published.

        Returns the generations there were before it.
        """
        async with self._redis.commanding() as client, client.pipeline(transaction=True) as pipeline:
            pipeline.set(self._lease, lease)
            pipeline.set(self._marker(generation), b"1")
            pipeline.smembers(self._generations)
            pipeline.sadd(self._generations, generation)
            _, _, former, _ = await pipeline.execute()
        return set(former)

    async def publish(self, generation: bytes, building: bytes, serving: bytes) -> bool:
        """Lets readers trust the generation; False if another process has written meanwhile."""
        async with self._redis.commanding() as client:
            return bool(
                await self._publish(client, [self._lease, self._marker(generation)], [building, serving])
            )

    async def apply(self, generation: bytes, lease: bytes, writes: Sequence[Write]) -> bytes:
        """Writes the documents that are newer than what is stored. Returns ``OK``, ``GONE`` or ``FOREIGN``.

        With no lease to believe in (empty) nothing is written, but whoever holds one is told: ``FOREIGN``.
        """
        outcome = b"OK"
        for batch in _batches(writes) or [[]]:
            keys = [self._lease, self._marker(generation), self._entries(generation)]
            keys += [self._index(generation, index) for index in self._projection.lists]
            keys += [self._document(generation, write.key) for write in batch]
            arguments: list[Any] = [lease, len(self._projection.lists)]
            for write in batch:
                arguments += [write.position.to_bytes(STAMP_BYTES, "big"), write.body or b"", *write.entries]
            async with self._redis.commanding() as client:
                outcome = await self._apply(client, keys, arguments)
            if outcome != b"OK":
                break
        return outcome

    async def delete(self, generations: set[bytes]) -> None:
        """Deletes these generations, in small steps, since their memory is needed."""
        if not generations:
            return
        prefixes = tuple(self._key(generation, b"") for generation in generations)
        async with self._redis.commanding() as client:
            # The markers first: a generation of which only a part is left must be neither written nor published.
            await client.unlink(*map(self._marker, generations))
            doomed: list[bytes] = []
            async for key in client.scan_iter(match=self._prefix + b":*", count=1000):
                if key.startswith(prefixes):
                    doomed.append(key)
                if len(doomed) >= MAX_DOCUMENTS:
                    await client.unlink(*doomed)
                    doomed.clear()
            if doomed:
                await client.unlink(*doomed)
            await client.srem(self._generations, *generations)

    def writes_of(self, change: Change) -> list[Write]:
        """What a change does to this read model: the old address is given up before the new one is taken."""
        writes = []
        before, after = change.before, change.after
        old = None if before is None else self._projection.key_of(before)
        new = None if after is None else self._projection.key_of(after)
        if old is not None and old != new:
            writes.append(Write(old, change.position, None, (b"",) * len(self._projection.lists)))
        if after is not None:
            writes.append(self.write_of(after, change.position))
        return writes

    def write_of(self, row: Row, position: int) -> Write:
        """The document of a row. Position 0 gives way to everything that is stored already."""
        key = self._projection.key_of(row)
        entries = tuple(index.entry(row, key) for index in self._projection.lists)
        return Write(key, position, self._projection.body(row), entries)

    def _key(self, generation: bytes, rest: bytes) -> bytes:
        return self._prefix + b":" + generation + b":" + rest

    def _marker(self, generation: bytes) -> bytes:
        return self._key(generation, b"marker")

    def _entries(self, generation: bytes) -> bytes:
        return self._key(generation, b"entries")

    def _document(self, generation: bytes, key: bytes) -> bytes:
        return self._key(generation, b"d:" + key)

    def _index(self, generation: bytes, index: ListIndex) -> bytes:
        return self._key(generation, b"i:" + index.name.encode())


class _Script:
    """A script called by its hash, and sent whole when the server does not know it (it was restarted)."""

    def __init__(self, name: str, *, read_only: bool = False) -> None:
        self._source = scripts.source(name)
        self._hash: str | None = None
        self._command = "EVALSHA_RO" if read_only else "EVALSHA"

    async def __call__(self, client: Any, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        if self._hash is None:
            self._hash = await client.script_load(self._source)
        try:
            return await client.execute_command(self._command, self._hash, len(keys), *keys, *arguments)
        except NoScriptError:
            self._hash = await client.script_load(self._source)
            return await client.execute_command(self._command, self._hash, len(keys), *keys, *arguments)


def _batches(writes: Sequence[Write]) -> list[list[Write]]:
    """Parts that one script may take: Redis answers nobody else while it runs."""
    batches: list[list[Write]] = []
    size = 0
    for write in writes:
        length = len(write.key) + len(write.body or b"") + sum(map(len, write.entries))
        if not batches or len(batches[-1]) >= MAX_DOCUMENTS or size + length > MAX_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(write)
        size += length
    return batches
