"""The contents of a generation as they are stored: read for a comparison with SQL, and mended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from diptych.fence.contract import FenceId, Target
from diptych.read.addresses import is_second
from diptych.read.compiled import CompiledReadModel
from diptych.read.lists.index import packed
from diptych.read.store.keys import Keys
from diptych.read.store.record import Entries
from diptych.read.store.script import Script
from diptych.read.store.writes import Write
from diptych.read.stored import STAMP_BYTES, body_of
from diptych.redis.service import RedisService

_LOOKED_AT_ONCE = 200
"""Number of documents of one script."""

_SCANNED_AT_ONCE = 1000

_STRAYS_AT_ONCE = 500
"""Number of entries that one script looks at: Redis answers nobody else for about a millisecond."""


class Stored(NamedTuple):
    """A document in Redis with its list entries, all of one moment.

    ``value`` is the stored document with its stamp (None: nothing), ``record`` the record of its list entries,
    ``is_counted`` says if it is counted as set aside, and ``entries`` are those entries that each list has, of the
    recorded ones and of those that were looked for. At a second address there is the value alone.
    """

    value: bytes | None
    record: bytes | None = None
    is_counted: bool = False
    entries: Entries = ()

    @property
    def body(self) -> bytes:
        """The body; empty without a document."""
        return body_of(self.value) if self.value else b""


class Mending(NamedTuple):
    """A repair: the contents as they were ``found`` at a key, and the write of its row.

    ``further`` are the entries that were looked for there. A document that may not be replaced yet has None as
    ``write``: its lists are then set right by its record.
    """

    key: bytes
    found: Stored
    further: Entries
    write: Write | None


class Contents:
    """The contents of a read model's generations. Each method may raise ``RedisUnavailableError``."""

    def __init__(self, compiled: CompiledReadModel, redis: RedisService, fence: FenceId) -> None:
        self.lists = compiled.lists
        self.keys = Keys(fence)
        self._redis = redis
        lists = enumerate(compiled.lists, 1)
        self._several = ",".join(str(number) for number, index in lists if index.collection is not None)
        self._look = Script("look", read_only=True)
        self._mend = Script("mend")
        self._strays = Script("strays", read_only=True, common=False)

    async def compared(
        self, generation: bytes, writes: Sequence[Write], entries: Sequence[Sequence[bytes]]
    ) -> tuple[list[bytes | None], list[bytes | None], list[list[bytes | None]]]:
        """Returns the stored documents of writes, the records of those that are no copies, and the scores of entries.

        ``entries`` are given for each list. They are read by several commands, not all of one moment.
        """
        own = [write.key for write in writes if not write.is_copy]
        recorded = own if self.lists else []
        async with self._redis.commanding() as link:
            calls = [link.call("MGET", *self._documents(generation, (write.key for write in writes)))]
            calls += [link.call("HMGET", self.keys.entries(generation), *recorded)] if recorded else []
            for index, some in zip(self.lists, entries, strict=True):
                if some:
                    calls.append(link.call("ZMSCORE", self.keys.index(generation, index), *some))
            replies = iter(await asyncio.gather(*calls))
        documents, records = next(replies), next(replies) if recorded else []
        return documents, records, [next(replies) if some else [] for some in entries]

    async def look(self, target: Target, wanted: Mapping[bytes, Entries]) -> dict[bytes, Stored] | None:
        """Returns what is stored at these keys, each of one moment, with the further entries to look for.

        None if the incarnation or the generation is not there.
        """
        found: dict[bytes, Stored] = {}
        keys = sorted(wanted, key=is_second)
        for start in range(0, len(keys), _LOOKED_AT_ONCE):
            part = keys[start : start + _LOOKED_AT_ONCE]
            arguments: list[Any] = []
            for key in part:
                arguments += [] if is_second(key) else [packed(some) for some in wanted[key]]
            async with self._redis.commanding() as link:
                names = self._names(target, part)
                copies = sum(map(is_second, part))
                reply = await self._look(
                    link, names, [*target.incarnation, len(self.lists), copies, *arguments]
                )
            if not isinstance(reply, list) or reply[0] is None:
                return None
            found |= {key: _stored(*one) for key, one in zip(part, reply[1:], strict=True)}
        return found

    async def mend(self, target: Target, mendings: Sequence[Mending], floor: int) -> str | int:
        """Puts documents right that are as they were found, and the lists of all. Returns the number of the former.

        ``floor`` is the floor from which on documents may be replaced: see the script. Returns ``ELSEWHERE`` or
        ``GONE`` in the place of the number if the incarnation or the generation is not there.
        """
        replaced = 0
        ordered = sorted(mendings, key=lambda mending: is_second(mending.key))
        for start in range(0, len(ordered), _LOOKED_AT_ONCE):
            part = ordered[start : start + _LOOKED_AT_ONCE]
            keys = [mending.key for mending in part]
            header = [len(self.lists), sum(map(is_second, keys)), self._several]
            arguments = [each for mending in part for each in self._arguments(mending, floor)]
            async with self._redis.commanding() as link:
                names = self._names(target, keys)
                reply = await self._mend(link, names, [*target.incarnation, *header, *arguments])
            if not isinstance(reply, int):
                return str(reply.decode())
            replaced += reply
        return replaced

    def _arguments(self, mending: Mending, floor: int) -> list[Any]:
        key, found, further, write = mending
        body = b"" if write is None else write.body or b""
        own: list[Any] = ["" if write is None else floor, found.value or b"", body]
        if is_second(key):
            return own
        entries = (b"",) * len(self.lists) if write is None else write.entries
        pairs = zip(entries, further, strict=True)
        return [*own, found.record or b"", *(each for one, more in pairs for each in (one, packed(more)))]

    # Everything that is there

    async def documents(self, generation: bytes) -> AsyncIterator[list[bytes]]:
        """Yields the keys of all stored values, tombstones among them, some of them twice."""
        prefix = self.keys.document(generation, b"")
        async for names in self._scanned(
            "SCAN", None, "MATCH", _literal(self.keys.of(generation, b"d:")) + b"*"
        ):
            yield [name[len(prefix) :] for name in names if name.startswith(prefix)]

    async def strays(self, generation: bytes, list_number: int) -> AsyncIterator[tuple[int, list[bytes]]]:
        """Yields how many entries of a list were looked at, and those that the records of their documents lack.

        Lists are numbered from 1. For 0: how many records were looked at, and the keys of those without a document.
        """
        keys, cursor = [self.keys.entries(generation)], b"0"
        keys += [self.keys.index(generation, self.lists[list_number - 1])] if list_number else []
        while True:
            arguments = [self.keys.document(generation, b""), cursor, _STRAYS_AT_ONCE, list_number]
            async with self._redis.commanding() as link:
                cursor, count, found = await self._strays(link, keys, arguments)
            yield count, found
            if cursor == b"0":
                return

    async def set_aside(self, generation: bytes) -> AsyncIterator[list[bytes]]:
        """Yields the keys of the documents that are counted as set aside."""
        prefix = self.keys.document(generation, b"")
        async for found in self._scanned("ZSCAN", self.keys.set_aside(generation)):
            yield [name.removeprefix(prefix) for name in found[::2]]

    async def counted(self, generation: bytes, keys: Sequence[bytes]) -> set[bytes]:
        """Returns those of the keys whose documents are counted as set aside."""
        async with self._redis.commanding() as link:
            names = self._documents(generation, keys)
            scores = await link.call("ZMSCORE", self.keys.set_aside(generation), *names)
        return {key for key, score in zip(keys, scores, strict=True) if score is not None}

    async def beginnings(self, generation: bytes, keys: Sequence[bytes]) -> list[bytes]:
        """Returns the stamp of each stored value, and the first byte of its body, which a tombstone does not have.

        What somebody has put there that is no string is no document: queries don't see it.
        """
        async with self._redis.commanding() as link:
            names = self._documents(generation, keys)
            calls = [link.call("GETRANGE", name, 0, STAMP_BYTES) for name in names]
            found = await asyncio.gather(*calls, return_exceptions=True)
            for each in found:
                if isinstance(each, BaseException) and "WRONGTYPE" not in str(each):
                    raise each
        return [b"" if isinstance(each, BaseException) else each for each in found]

    async def _scanned(self, command: str, key: bytes | None, *options: Any) -> AsyncIterator[list[bytes]]:
        cursor = b"0"
        while True:
            words = [command, *([] if key is None else [key]), cursor, *options, "COUNT", _SCANNED_AT_ONCE]
            async with self._redis.commanding() as link:
                cursor, found = await link.call(*words)
            if found:
                yield found
            if cursor == b"0":
                return

    def _names(self, target: Target, keys: Sequence[bytes]) -> list[bytes]:
        generation = target.generation.encode()
        names = [self.keys.marker(generation), self.keys.entries(generation), self.keys.set_aside(generation)]
        names += [self.keys.index(generation, index) for index in self.lists]
        return [*names, *self._documents(generation, keys)]

    def _documents(self, generation: bytes, keys: Iterable[bytes]) -> list[bytes]:
        prefix = self.keys.document(generation, b"")
        return [prefix + key for key in keys]


def _stored(
    value: bytes | None, record: bytes | None = None, is_counted: int = 0, *entries: list[bytes]
) -> Stored:
    return Stored(value, record, bool(is_counted), tuple(map(frozenset, entries)))


def _literal(text: bytes) -> bytes:
    """Returns a pattern of this text alone."""
    return b"".join(b"\\" + bytes([c]) if c in b"*?[]\\^" else bytes([c]) for c in text)
