"""The reads of queries in Redis.

★ Each reads the lease in the same command as the documents: a lease read before a document may be over, and the
document old, when the document is read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import NamedTuple

from diptych.read.lists.in_redis import StoredPage, bounds_of
from diptych.read.lists.page import PageRequest
from diptych.read.store.keys import Keys
from diptych.read.store.script import Script
from diptych.redis.channel import Channel, Receiver, packed

LONGEST_SWITCH_S = 1.0
"""Time in seconds for which queries wait at most while a rebuilt generation is put in place of another."""

_SWITCH_POLL_S = 0.005


class StoredAside(NamedTuple):
    """The reply of the script ``aside``: the lease, the number of set-aside rows, and some rows by their keys."""

    lease: bytes | None
    number: int
    named: dict[bytes, bytes]


class Reads:
    """The reads of a read model in Redis, each of a generation."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._page = Script("page", read_only=True, common=False)
        self._aside = Script("aside", read_only=True, common=False)

    def documents(
        self, channel: Channel, generation: bytes, keys: Iterable[bytes], receiver: Receiver
    ) -> None:
        """Sends a command for documents. ``receiver`` gets the lease, then each key's stored document or None."""
        prefix = self._keys.document(generation, b"")
        names = [prefix + key for key in keys]
        channel.send(packed(b"MGET", self._keys.lease, *names), receiver, length=1 + len(names))
        channel.flush()  # those of this turn have been gathered already

    async def page(self, channel: Channel, generation: bytes, request: PageRequest) -> StoredPage:
        """Reads a page of a list."""
        keys = [self._keys.lease, self._keys.index(generation, request.selection.index)]
        prefix = self._keys.document(generation, b"")
        arguments = [prefix, request.limit, int(request.is_backward), request.offset, int(request.counts)]
        for bounds in bounds_of(request):
            arguments += bounds
        return StoredPage(*await self._page(channel, keys, arguments))

    async def set_aside(self, channel: Channel, generation: bytes, most: int) -> StoredAside:
        """Reads the number of set-aside rows, and at most ``most`` of the rows."""
        keys = [self._keys.lease, self._keys.set_aside(generation)]
        lease, number, names, stored = await self._aside(channel, keys, [most])
        own = len(self._keys.document(generation, b""))
        named = {name[own:]: what for name, what in zip(names, stored, strict=True) if what}
        return StoredAside(lease, number, named)

    async def switched(self, channel: Channel) -> bool:
        """Waits until a rebuilt generation is put in place of another. Returns True if there is a lease then."""
        end = time.monotonic() + LONGEST_SWITCH_S
        while True:
            lease, switching = await channel.call("MGET", self._keys.lease, self._keys.switching)
            if lease is not None or switching is None or time.monotonic() > end:
                return lease is not None
            await asyncio.sleep(_SWITCH_POLL_S)
